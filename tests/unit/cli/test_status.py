from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from farmhand.cli.flush import _for_others
from farmhand.cli.status import spool_notes, spooled
from farmhand.cli.status_view import notes, row, write_table
from farmhand.core.errors import FarmUnreachable
from farmhand.core.settings import Settings
from farmhand.offline.spool import open_spool
from farmhand.places.hosts import Host
from farmhand.places.watch import HostWatch

STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "state": "running",
    "running": 1,
    "queued": 2,
    "awaiting_key": 3,
    "slots": {"api": {"free": 31, "total": 32}, "cli": {"free": 2, "total": 2}},
    "key": "a1b2c3d4e5f6",
    "upstream": "https://api.anthropic.com",
}


def test_a_row() -> None:
    assert row("farm1", STATUS) == [
        "farm1", "0.1.0", "running", "1", "2", "3",  "1/32", "0/2", "a1b2c3d4e5f6",
    ]  # fmt: skip
    assert row("farm1", {"key": None})[-3:] == ["?", "?", "none"]


def test_what_goes_on_is_a_line_each() -> None:
    waiting = [
        {"reason": "slots", "tasks": 7, "until": None, "detail": "all slots of their engine are taken"},
        {"reason": "rate_limit", "tasks": 1, "until": 1_764_000_000.0, "detail": "retry-after"},
    ]
    budget = {"limit_usd": 2.5, "spent_usd": 0.01234, "reserved_usd": 0, "day": "2026-11-24"}
    more = {"throughput": {"per_s": 12.5}, "waiting": waiting, "budget_day": budget}
    first, second, third = notes("farm1", {**STATUS, **more})
    assert first == "farm1: 7 tasks wait: all slots of their engine are taken"
    assert second.startswith("farm1: 1 task waits: retry-after, until ")
    assert third == "farm1: US$ 0.0123 of US$ 2.50 of the day's budget is spent"
    assert notes("farm1", STATUS) == []
    late = {"time": 5_000.0, "cloudwatch": {"at": 2_000.0, "problem": "CloudWatch: AccessDenied"}}
    assert notes("farm1", {**STATUS, **late}) == [
        "farm1: no metrics have reached CloudWatch for 50 minutes: CloudWatch: AccessDenied"
    ]


def test_a_wait_until_another_day_has_its_date() -> None:
    now = datetime.now().replace(hour=12, minute=0, second=0, microsecond=0)
    for until, shown in ((now, "12:00:00"), (now + timedelta(days=3), f"{now + timedelta(days=3):%Y-%m-%d} 12:00:00")):
        waiting = [{"reason": "budget", "tasks": 2, "until": until.timestamp()}]
        assert notes("farm1", {**STATUS, "waiting": waiting}) == [f"farm1: 2 tasks wait: budget, until {shown}"]


def test_the_table_fits_and_tells_of_another_upstream_and_of_silent_hosts(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (HostWatch(name, Host(name=name, address=name), 1.0) for name in ("farm1", "farm2"))
    one.status, two.error = STATUS, FarmUnreachable("farm2: no\x1b route", hint="look")
    write_table([one, two])
    shown = capsys.readouterr()
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "a1b2c3d4e5f6" in shown.out
    assert "anthropic" not in shown.out
    assert "per second" not in shown.out
    assert shown.err == "farm2: no\ufffd route (look)\n"
    one.status = {**STATUS, "upstream": "http://127.0.0.1:1", "throughput": {"per_s": 12.5}}
    write_table([one])
    shown = capsys.readouterr()
    assert "farm1: 12.5 tasks end per second\nfarm1 sends its requests to http://127.0.0.1:1\n" in shown.out


def test_the_spool_is_shown_whatever_farm_its_tasks_are_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "/c")
    usual, demo = (Settings(config_file=f"{place}/config.toml") for place in ("/c/farmhand", "/demo"))
    open_spool(usual).add({"id": "a", "prompt": "p"})
    open_spool(demo).add({"id": "b", "prompt": "p"}, sent="farm1")
    for conf in (usual, demo):
        assert spooled(conf) == [
            {"hosts_file": None, "queued": 1, "sent": 0},
            {"hosts_file": "/demo/hosts.json", "queued": 0, "sent": 1},
        ]
        assert any("/demo/hosts.json: 0 queued, 1 sent" in line for line in spool_notes(spooled(conf)))
    assert _for_others(open_spool(usual).elsewhere(), usual)[0].startswith(
        "1 task waits for the hosts of /demo/hosts.json: "
    )
