from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.core.readable import counted, duration, money, size


@pytest.mark.parametrize(
    ("pico", "shown"),
    [
        (0, "US$ 0.00"),
        (1, "US$ 0.000000000001"),
        (35_400_000, "US$ 0.0000354"),
        (70_000_000, "US$ 0.00007"),
        (11_800_000, "US$ 0.0000118"),
        (123_456_789_012, "US$ 0.123"),
        (500_000_000_000, "US$ 0.50"),
        (999_900_000_000, "US$ 1.00"),
        (1_234_567_000_000_000, "US$ 1,234.57"),
        (-2_500_000_000, "US$ -0.0025"),
        (-1_500_000_000_000, "US$ -1.50"),
    ],
)
def test_money(pico: int, shown: str) -> None:
    assert money(pico) == shown


@given(st.integers(-(10**19), 10**19))
def test_money_is_never_an_exponent_and_never_zero_for_something(pico: int) -> None:
    shown = money(pico)
    assert re.fullmatch(r"US\$ -?[\d,]+\.\d{2,12}", shown)
    assert bool(re.search("[1-9]", shown)) == bool(pico)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (0.25, "0.25 s"), (0.1234, "0.12 s"), (4.14, "4.1 s"), (30, "30 s"), (89, "89 s"), (300, "5 min"),
     (1800, "30 min"), (3600, "1 h"), (21600, "6 h"), (9000, "2.5 h"), (86400, "24 h"), (259200, "3 days")],
)  # fmt: skip
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 bytes"), (133, "133 bytes"), (51_842, "52 KB"), (1_200_000_000, "1.2 GB")]
)
def test_sizes(number: int, shown: str) -> None:
    assert size(number) == shown


def test_counts() -> None:
    assert [counted(1, "task"), counted(0, "task"), counted(1200, "batch", "batches")] == [
        "1 task", "0 tasks", "1,200 batches",
    ]  # fmt: skip
