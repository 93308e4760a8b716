"""`farmhand report` from its flags to its output, over agents in memory."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from farmhand.cli import report
from farmhand.cli.sheet import Sheet
from farmhand.core.errors import NotConfigured, UsageError
from farmhand.cost import merged
from tests.unit.cli.test_cost import Farm
from tests.unit.cost.ledgers import NOW, charge
from tests.unit.cost.reports import EVIL, FORMULA, made_up
from tests.unit.cost.test_merge import FakeAgent


@pytest.fixture
def farm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Farm:
    made = Farm(tmp_path)
    made.add("farm1", FakeAgent("u1", [charge(no, batch=f"b{no}") for no in range(1, 30)]))
    made.add("farm2", FakeAgent("u2", [charge(1, model="claude-opus-5-5")]))
    monkeypatch.setattr(merged, "Client", made.client)
    monkeypatch.setattr("farmhand.cost.merged.time.time", lambda: NOW)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return made


def run(farm: Farm, *arguments: str) -> Result:
    argv = ["--config", str(farm.config), *arguments]
    return CliRunner().invoke(report.command, argv, standalone_mode=False, env={"COLUMNS": "80"})


def test_the_page_is_one_file_of_ones_own(farm: Farm, tmp_path: Path) -> None:
    path = tmp_path / "out.html"
    path.write_text("old")
    result = run(farm, "--html", str(path))
    assert (result.return_value, result.output) == (0, "")
    text = path.read_text("utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert '"claude-opus-5-5"' in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not list(tmp_path.glob(".out.html*"))
    assert run(farm, "--html", "-", "--no-merge").stdout == text + ("" if text.endswith("\n") else "\n")


def test_a_file_that_cannot_be_written_is_one_line(farm: Farm, tmp_path: Path) -> None:
    result = run(farm, "--html", str(tmp_path / "none" / "out.html"))
    assert isinstance(result.exception, NotConfigured)
    assert "cannot be written: No such file" in str(result.exception)
    assert isinstance(run(farm, "--html", str(tmp_path), "--no-merge").exception, NotConfigured)


def test_a_host_that_is_down_is_named_and_the_status_says_so(farm: Farm, tmp_path: Path) -> None:
    farm.down.add("farm2")
    result = run(farm)
    assert result.return_value == 4
    assert "farm2 could not be asked" in result.stdout
    path = tmp_path / "out.html"
    assert run(farm, "--html", str(path)).return_value == 4
    assert "farm2: no answer" in path.read_text("utf-8")


def test_json_is_the_pages_document(farm: Farm) -> None:
    shown = json.loads(run(farm, "--json").stdout)
    assert shown["version"] == 1
    assert shown["figures"]["whole"]["requests"] == 30
    assert shown["hosts"] == ["farm1", "farm2"]
    both = run(farm, "--json", "--html", "x")
    assert isinstance(both.exception, UsageError)
    assert json.loads(both.stdout)["error"]["code"] == "usage"


def test_the_terminal_shows_every_section_in_80_columns_and_no_control_characters(farm: Farm) -> None:
    shown = run(farm).stdout
    assert max(map(len, shown.splitlines())) <= 80
    for title in (
        "Spend by model", "Spend by day", "Saved beside plain claude -p on each model in use", "Cost of a task",
        "Spend by engine", "Spend by place", "Saved against plain claude -p on claude-sonnet-5-5",
        "Time that tasks ran", "Time that tasks waited before", "Cache hits",
        "Failures and retries by cause", "Top batches (10 of 30)", "The same work in four ways", "What was claimed",
    ):  # fmt: skip
        assert title in shown, title
    assert "claude-opus-5-5" in shown
    assert "\x1b" not in shown


def test_the_terminal_says_the_same_as_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    found = made_up()
    report.write(found, Sheet(Console(width=200, highlight=False)))
    shown = capsys.readouterr().out
    assert shown.splitlines()[1] == "US$ 0.0517 for 24 tasks"
    assert "24 tasks, 3 failed; 3 retries" in shown
    assert ["all", "24", "20", "s", "20", "s", "20", "s", "20", "s"] in [line.split() for line in shown.splitlines()]
    assert EVIL in shown
    assert FORMULA in shown
    assert "farm2 could not be asked" in shown
    lines = [line.split() for line in shown.splitlines()]
    assert ["timeout", "3", "0", "█" * 24] in lines
    assert ["to", "30", "s", "24", "█" * 24] in lines
    assert ["read", "from", "the", "cache", "24000", "50.0", "%", "█" * 24] in lines
