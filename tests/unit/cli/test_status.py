from __future__ import annotations

from typing import Any

import pytest

from farmhand.cli.status import notes, row, write_table
from farmhand.errors import FarmUnreachable

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
        "farm1", "0.1.0", "running", "1", "2", "3",  "31/32", "2/2", "a1b2c3d4e5f6",
    ]  # fmt: skip
    assert row("farm1", {"key": None})[-3:] == ["?", "?", "none"]


def test_what_goes_on_is_a_line_each() -> None:
    waiting = [
        {"reason": "slots", "tasks": 7, "until": None, "detail": "all slots of their engine are taken"},
        {"reason": "rate_limit", "tasks": 1, "until": 1_764_000_000.0, "detail": "retry-after"},
    ]
    budget = {"limit_usd": 2.5, "spent_usd": 0.01234, "reserved_usd": 0, "day": "2026-11-24"}
    more = {"throughput": {"per_s": 12.5}, "waiting": waiting, "budget_day": budget}
    rate, first, second, third = notes("farm1", {**STATUS, **more})
    assert rate == "farm1: 12.5 tasks end per second"
    assert first == "farm1: 7 tasks wait: all slots of their engine are taken"
    assert second.startswith("farm1: 1 task waits: retry-after, until ")
    assert third == "farm1: US$ 0.0123 of 2.5 of the day's budget is spent"
    assert notes("farm1", {**STATUS, "throughput": {"per_s": 0}}) == []


def test_the_table_fits_and_tells_of_another_upstream_and_of_silent_hosts(capsys: pytest.CaptureFixture[str]) -> None:
    write_table({"farm1": STATUS, "farm2": FarmUnreachable("farm2: no\x1b route", hint="look")})
    shown = capsys.readouterr()
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "a1b2c3d4e5f6" in shown.out
    assert "anthropic" not in shown.out
    assert shown.err == "farm2: no\ufffd route (look)\n"
    write_table({"farm1": {**STATUS, "upstream": "http://127.0.0.1:1"}})
    assert "farm1 sends its requests to http://127.0.0.1:1\n" in capsys.readouterr().out
