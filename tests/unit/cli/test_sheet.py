from __future__ import annotations

import pytest

from farmhand.cli.sheet import aligned, bar


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
