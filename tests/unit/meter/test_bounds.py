from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farmhand.meter.bounds import check_values

VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=8), inner, max_size=8),
    max_leaves=60,
)


def marks(value: Any) -> int:
    """Objects, lists and further members, counted in the decoded value."""
    if isinstance(value, dict):
        return 1 + max(0, len(value) - 1) + sum(map(marks, value.values()))
    if isinstance(value, list):
        return 1 + max(0, len(value) - 1) + sum(map(marks, value))
    return 0


@given(VALUES, st.booleans())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_it_counts_what_a_decoder_makes(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    count = marks(value)
    check_values(text, count)
    if count:
        with pytest.raises(ValueError, match="more than"):
            check_values(text + b" " * len(text), count - 1)


@pytest.mark.parametrize(
    "text",
    [
        '"' + "{[,\\\\" * 1000 + '"',
        '"' + '{,\\"' * 1000 + '"',
        '["' + "\\\\" * 999 + '",1]',
        '"' + ',\\\\\\"' * 999 + '"',
    ],
)
def test_what_stands_in_strings_does_not_count(text: str) -> None:
    json.loads(text)
    check_values(text.encode(), 10)


@pytest.mark.parametrize("text", [b"[" + b"{}," * 100, b'["' + b'","' * 100, b'{"a":' * 100, b'"\\\\",' * 100])
def test_what_breaks_off_is_counted_as_far_as_it_goes(text: bytes) -> None:
    with pytest.raises(ValueError, match="more than 50 values"):
        check_values(text, 50)
