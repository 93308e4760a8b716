from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.cells import cell_len

from farmhand.cli import list as listing
from farmhand.cli.waiting import cut
from farmhand.core.errors import UsageError
from farmhand.history.store import PastTaskCopy


def task(prompt: str | None) -> PastTaskCopy:
    result = {"id": "t019a", "state": "succeeded", "created_at": 1.7e9, "cost_usd": 0.5, "batch": "letters"}
    return PastTaskCopy("farm1", "", 0.0, 30.0, result, None if prompt is None else {"prompt": prompt})


@pytest.mark.parametrize("width", [1, 2, 3, 6, 20, 40, 79, 200])
def test_a_line_is_never_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(listing, "_width", lambda: width)
    for prompt in ("a" * 500, "鶏" * 300, "e\u0301" * 300, "\x1b[2J\nx", "", None):
        [line] = listing._table([task(prompt)]).splitlines() or [""]
        assert cell_len(line) <= width
        assert "\x1b" not in line


@pytest.mark.parametrize(
    ("since", "first"),
    [
        (None, "1970-01-01T00:00:00"),
        ("90m", "2026-11-30T23:00:00"),
        ("1h30m", "2026-11-30T23:00:00"),
        ("12h", "2026-11-30T12:30:00"),
        ("1d", "2026-12-01T00:00:00"),
        ("2026-11", "2026-11-01T00:00:00"),
    ],
)
def test_since_is_a_span_of_hours_or_whole_days(since: str | None, first: str) -> None:
    now = datetime(2026, 12, 1, 0, 30, tzinfo=UTC)
    assert datetime.fromtimestamp(listing._first(since, now), UTC).isoformat() == f"{first}+00:00"


@pytest.mark.parametrize("since", ["soon", "", "x90m", "-1h", "1.5"])
def test_since_that_is_neither_names_all_forms(since: str) -> None:
    with pytest.raises(UsageError, match="30d or 4w; 90m or 12h"):
        listing._first(since, datetime.now(UTC))


def test_into_a_pipe_a_line_has_all_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_width", lambda: 0)
    assert listing._table([task("x" * 99)]).split()[4:] == ["farm1", "letters", "US$", "0.50", "x" * 60]
    assert listing._table([task(None)]).endswith("  (gone)")
    assert listing._table([]) == ""


def test_a_terminal_that_does_not_know_its_width_shows_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, terminal = os.openpty()  # of 0 columns until somebody tells it
    with os.fdopen(leader), os.fdopen(terminal, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert listing._width() == 79


def test_a_text_is_cut_to_cells() -> None:
    assert [cut("abcdef", most) for most in (0, 1, 3, 6)] == ["", "", "ab…", "abcdef"]
    assert [cut("鶏鶏鶏", most) for most in (3, 4, 6)] == ["鶏…", "鶏…", "鶏鶏鶏"]


def test_a_list_that_is_not_whole_says_what_it_is() -> None:
    assert [listing._cut_off(limit) for limit in (1, 2)] == [
        "this is the last one: -n shows more",
        "these are the last 2: -n shows more",
    ]


@pytest.mark.parametrize("option", ["--batch", "--grep"])
def test_an_empty_variable_of_a_script_does_not_list_all(option: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    argv = ["--config", str(tmp_path / "config.toml"), option, ""]
    with pytest.raises(UsageError, match=f"{option} is empty"):
        CliRunner().invoke(listing.command, argv, catch_exceptions=False, standalone_mode=False)
