"""What a strict reader refuses for one character."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.meter.loose_json import REFUSED, clean, decode, decode_as, decode_halves, mend, well_formed

TEXTS = st.text(st.characters() | st.sampled_from(["\ud83d", "\udc04", "\\", '"', "u", "\0"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)


@given(VALUES)
def test_all_of_a_value_comes_back_with_a_mark_for_each_lone_half(value: object) -> None:
    data = json.dumps(value).encode()
    assert decode(data) == clean(value) == clean(decode_halves(data))
    assert decode_as(data, object) == clean(value)
    msgspec.json.encode(decode(data))


@given(TEXTS)
def test_halves_that_meet_are_joined(text: str) -> None:
    joined = well_formed(text)
    assert not any("\ud800" <= one <= "\udfff" for one in joined)
    assert well_formed("\ud83d" + "\udc04") == "\U0001f404"


@given(st.binary(max_size=60))
def test_bytes_are_read_or_refused_in_one_way(data: bytes) -> None:
    try:
        msgspec.json.encode(decode(data))
    except ValueError:
        with pytest.raises(REFUSED):
            msgspec.json.decode(data)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a": NaN, "b": -Infinity}', {"a": None, "b": None}),
        (b'["\xff\xfe"]', ["\ufffd\ufffd"]),
        (b'"a\tb"', "a\tb"),
        (b"\xef\xbb\xbf[1]", [1]),
        (b"[" + b"1" * 5000 + b"]", [float("inf")]),
        (rb'"\\ud83d"', "\\ud83d"),
    ],
)
def test_odd_but_clear(data: bytes, value: object) -> None:
    assert decode(data) == value


@pytest.mark.parametrize("data", [b"", b"[DONE]", b'{"a"', b"[" * 100_000, b'{"a":' * 50_000])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="JSON"):
        decode(data)


@pytest.mark.parametrize("unit", [rb"\ud83d", rb"\udc04", rb"\\", rb"\ud83d\udc04", b"\xff", rb"\\\ud83d"])
def test_a_large_line_is_mended_as_a_whole(unit: bytes) -> None:
    data = b'"' + unit * 400_000 + b'"'
    assert len(mend(data)) <= 3 * len(data)
    assert set(decode(data)) <= {"\ufffd", "\\", "\U0001f404"}
