"""What the operator says about the merged ledgers; the whole way is in tests/unit/cli/test_cost.py."""

from __future__ import annotations

from datetime import date

import pytest

from farmhand.core.since import since_day
from farmhand.cost.merged import box_prices


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2026-11-24", "2026-11-24"),
        ("2026-11", "2026-11-01"),
        ("1d", "2026-11-24"),
        ("30d", "2026-10-26"),
        ("2w", "2026-11-11"),
    ],
)
def test_since(text: str, day: str) -> None:
    found = since_day(text, date(2026, 11, 24))
    assert found == (date.fromisoformat(day) - date(1970, 1, 1)).days


def test_box_prices() -> None:
    assert box_prices("", ["a"]) == {"a": None}
    assert box_prices("24", ["a", "b"]) == {"a": 24 * 10**12, "b": 24 * 10**12}
    assert box_prices("24, b=12.5", ["a", "b"]) == {"a": 24 * 10**12, "b": 12_500 * 10**9}
    assert box_prices("b=1", ["a", "b"]) == {"a": None, "b": 10**12}
