from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from farmhand.cli import app, status_view
from farmhand.core.errors import FarmUnreachable, UsageError
from farmhand.places.watch import HostWatch
from tests.unit.cli.test_status import STATUS
from tests.unit.places.test_watch import FakeClient, client, watch

__all__ = ["client"]


def drawn(watches: list[HostWatch], width: int = 80) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(status_view.screen(watches, 2.0, width))
    return console.export_text()


def test_the_screen_has_a_row_for_each_host_a_sum_and_what_they_wait_for() -> None:
    one, two, three, four = (watch(f"farm{n}") for n in range(1, 5))
    waiting = [{"reason": "rate_limit", "tasks": 7, "until": None, "detail": "the API's limit\x1b"}]
    one.status = {**STATUS, "throughput": {"per_s": 12.5}, "waiting": waiting}
    two.status = {**STATUS, "state": "draining"}
    three.status, three.error = STATUS, FarmUnreachable("farm3: no route", hint="look")
    one.per_s.extend([0, 1, 2])
    shown = drawn([one, two, three, four])
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line.split()}
    assert rows["farm1"] == ["farm1", "running", "1", "2", "3", "1/32", "0/2", "12.5", "▁▅█"]
    assert rows["farm2"][:5] == ["farm2", "draining", "1", "2", "3"]
    assert rows["farm4"] == ["farm4", "asking"]
    assert rows["all"] == ["all", "2", "of", "4", "2", "4", "6", "12.5"]
    assert "farm1: 7 tasks wait: the API's limit\ufffd" in shown
    assert "farm3: no route (look)" in shown
    assert "tasks end per second" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def busy(name: str, spent: float, budget: dict[str, Any] | None = None) -> HostWatch:
    made = watch(name)
    batches = [{"name": "letters.csv-7f3a", "tasks": 1200, "done": 300, "failed": 2, "cost_usd": 0.0123}]
    made.status = {**STATUS, "spent_today_usd": spent, "budget_day": budget, "batches": batches}
    return made


def test_the_days_money_and_the_batches_of_all_hosts_are_on_the_screen() -> None:
    budget = {"limit_usd": 2.0, "spent_usd": 0.5, "reserved_usd": 0.25, "day": "2026-11-24"}
    one, two, old = busy("farm1", 0.5, budget), busy("farm2", 0.0000354), watch("farm3")
    old.status = dict(STATUS)
    shown = drawn([one, two, old])
    assert "today (UTC): US$ 0.50 spent on 2 of 3 hosts, US$ 1.25 left of US$ 2.00 on 1 host" in shown
    [line] = [line for line in shown.splitlines() if line.startswith("letters.csv-7f3a")]
    assert line.split() == ["letters.csv-7f3a", "600", "of", "2,400", "4", "0.0246", "█" * 5 + "░" * 15]
    assert status_view.today([old]) == ""
    assert "US$ 0.0000354 spent" in status_view.today([two])


@pytest.mark.parametrize("width", [200, 100, 80, 60, 40, 24])
def test_a_narrow_terminal_drops_columns_and_never_letters(width: int) -> None:
    shown = drawn([busy("a-host-with-a-name", 1.5), busy("farm2", 0)], width)
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    table = shown.partition("\n\n")[2].partition("\n\n")[0].splitlines()
    first = next(line.split() for line in table if line.startswith("a-host-with-a-name"))
    whole = ["a-host-with-a-name", "running", "1", "2", "3", "1/32", "0/2", "0", "▁"]
    if width >= 40:
        assert first[:2] == whole[:2]
    assert set(first) <= set(whole)
    assert len(first) == len(whole) - 1 if width >= 80 else len(first) < len(whole) - 1


def test_status_drops_columns_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    host = busy("a-host-with-a-name", 0)
    monkeypatch.setenv("COLUMNS", "50")
    status_view.write_table([host])
    shown = capsys.readouterr().out
    assert "a-host-with-a-name  running" in shown
    assert "a1b2c3d4e5f6" not in shown
    assert "…" not in shown
    monkeypatch.setenv("COLUMNS", "100")
    status_view.write_table([host])
    wide = capsys.readouterr().out
    # One meaning, named: slots in use, as `top` has them.
    assert [word for word in wide.split() if "/" in word] == ["1/32", "0/2"]
    assert "in use  in use" in wide


def test_sparks() -> None:
    assert status_view.spark([]) == ""
    assert status_view.spark([0, 0]) == "▁▁"
    assert status_view.spark([0, 7]) == "▁█"


@pytest.fixture
def run(tmp_path: Path, client: type[FakeClient], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text("")
    entries = {name: {"address": name} for name in ("farm1", "farm2")}
    (tmp_path / "hosts.json").write_text(json.dumps({"hosts": entries}))

    def call(*arguments: str) -> Any:
        argv = ["top", "--config", str(tmp_path / "config.toml"), *arguments]
        return CliRunner().invoke(app.farmhand, argv, standalone_mode=False)

    return call


def test_into_a_pipe_it_is_one_line_for_each_host_once(run: Callable[..., Any], client: type[FakeClient]) -> None:
    result = run()
    assert result.return_value == 0
    line = ": running, 1 running, 2 queued, 3 awaiting a key, slots in use: api 1/32, cli 0/2, 2.5 tasks/s"
    assert result.stdout.splitlines() == [f"farm1{line}", f"farm2{line}"]
    assert client.closed == 2
    assert run("--host", "farm2").stdout.splitlines() == [f"farm2{line}"]


def test_json_is_what_status_prints(run: Callable[..., Any], client: type[FakeClient]) -> None:
    answer = json.loads(run("--json").stdout)
    shown = answer["hosts"]
    assert (answer["version"], answer["spool"]) == (1, [])
    assert shown["farm1"]["queued"] == shown["farm2"]["queued"] == 2
    client.breaks = 1
    failed = run("--json", "--host", "farm1")
    assert failed.return_value == 4
    assert json.loads(failed.stdout)["hosts"]["farm1"]["error"]["code"] == "lost"
    assert json.loads(run("--json", "--host", "none").stdout)["error"]["code"] == "not_configured"


def test_a_host_that_is_silent_is_a_line_on_stderr_and_the_status(
    run: Callable[..., Any], client: type[FakeClient]
) -> None:
    client.breaks = 1
    result = run("--host", "farm1")
    assert (result.return_value, result.stdout) == (4, "")
    assert "the connection was lost" in result.stderr


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "x", "1e9"])
def test_an_interval_that_is_none_is_refused(run: Callable[..., Any], interval: str) -> None:
    assert isinstance(run("--interval", interval).exception, click.BadParameter | UsageError)
