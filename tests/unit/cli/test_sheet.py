from __future__ import annotations

import io

import pytest
from rich.console import Console

from farmhand.cli.sheet import Sheet, aligned, bar


@pytest.mark.parametrize(
    ("amounts", "shown"),
    [
        (["1.00", "22.005", None], ["      1.00 ", "     22.005", "unknown    "]),
        (["-0.50", "12.00"], ["-0.50", "12.00"]),
        (["1.00+?", "3.00"], ["1.00+?", "3.00  "]),
        (["", "1.00"], ["    ", "1.00"]),
        ([None], ["unknown"]),
        ([], []),
    ],
)
def test_decimal_points_stand_under_one_another(amounts: list[str | None], shown: list[str]) -> None:
    assert aligned(amounts) == shown


def test_bars_are_as_long_as_what_they_stand_for() -> None:
    assert [len(bar(part, 100)) for part in (0, 0.001, 50, 100)] == [0, 1, 12, 24]
    assert bar(5, 0) == ""


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (80, ["model US$ tasks", "claude-haiku-5-5 0.0000961 9 ████████████████████████", "cat 1.00 10 █"]),
        (44, ["model US$ tasks", "claude-haiku-5-5 0.0000961 9 ████████", "cat 1.00 10 █"]),
        (36, ["model US$ tasks", "claude-haiku-5-5 0.0000961 9", "cat 1.00 10"]),
        (33, ["model US$", "claude-haiku-5-5 0.0000961", "cat 1.00"]),
    ],
)
def test_a_narrow_terminal_loses_bars_and_columns_but_no_name_and_no_digit(width: int, shown: list[str]) -> None:
    console = Console(file=io.StringIO(), width=width)
    rows = [("claude-haiku-5-5", "0.0000961", "9"), ("cat", "1.00", "10")]
    Sheet(console).table(("model", "US$", "tasks"), rows, money={1}, bars=[24.0, 1.0])
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]  # it is the StringIO
    assert [" ".join(line.split()) for line in lines] == shown
