"""Splitting a stream into events, whatever rewrote it on the way."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.meter.sse import EventDecoder

A, B = ("a", b'{"n": 1}'), ("", b'{"n": 2}')
BODY = b'event: a\ndata: {"n": 1}\n\ndata: {"n": 2}\n\n'


def events(body: bytes, cuts: list[int] | None = None) -> list[tuple[str, bytes]]:
    decoder = EventDecoder()
    edges = [0, *sorted(cuts or []), len(body)]
    found = [event for first, last in pairwise(edges) for event in decoder.feed(body[first:last])]
    return found + decoder.flush()


@given(st.lists(st.integers(0, len(BODY)), max_size=12), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_the_events_are_the_same_however_lines_end_and_pieces_are_cut(cuts: list[int], line_end: bytes) -> None:
    body = BODY.replace(b"\n", line_end)
    assert events(body, [cut * len(body) // len(BODY) for cut in cuts]) == [A, B]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (BODY.rstrip(b"\n"), [A, B]),
        (b"\xef\xbb\xbf" + BODY, [A, B]),
        (b": comment\nid: 1\nretry: 5\n" + BODY, [A, B]),
        (b'data: {\ndata: "n": 3}\n\n', [("", b'{\n"n": 3}')]),
        (b"data: [DONE]\n\n", [("", b"[DONE]")]),
        (b'error: {"code": 400}\n\ndata: [DONE]\n\n', [("error", b'{"error":{"code": 400}}'), ("", b"[DONE]")]),
        (b"error: no object\n\n", []),
        (b'data: {"n": 1}\ndata: {"n": 2}\n', [("", b'{"n": 1}'), B]),
        (b"event: a\n\n" + b'data: {"n": 2}', [B]),
        (b"", []),
        (b"\n\n\r\r\n", []),
    ],
)
def test_forms(body: bytes, found: list[tuple[str, bytes]]) -> None:
    assert events(body) == found


@given(st.binary(max_size=200))
def test_it_holds_no_more_than_has_come(body: bytes) -> None:
    decoder = EventDecoder()
    decoder.feed(body)
    assert decoder.pending <= 2 * len(body) + 1
