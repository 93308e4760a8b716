from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.meter.problems import ApiError
from farmhand.meter.usage import AnswerWatch


def sse(*events: dict[str, object]) -> bytes:
    return b"".join(b"event: %s\ndata: %s\n\n" % (str(e["type"]).encode(), json.dumps(e).encode()) for e in events)


STREAM = sse(
    {
        "type": "message_start",
        "message": {
            "usage": {"input_tokens": 11, "cache_read_input_tokens": 5, "output_tokens": 1, "service_tier": "x"}
        },
    },
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": 'data: {"type":"message_delta"} "error"'}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 40}},
    {"type": "message_stop"},
)


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_a_stream_counts_the_same_however_it_is_cut_into_pieces(cuts: list[int]) -> None:
    watch = AnswerWatch(streamed=True)
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in itertools.pairwise(edges):
        watch.feed(STREAM[start:end])
    usage = watch.finish()
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens, usage.requests) == (11, 5, 40, 1)
    assert watch.stop_reason == "end_turn"
    assert watch.problem is None


def test_a_stream_that_breaks_off_counts_what_is_known() -> None:
    watch = AnswerWatch(streamed=True)
    watch.feed(STREAM[: STREAM.index(b"event: message_delta")])
    assert watch.finish().input_tokens == 11
    assert watch.stop_reason == ""


def test_an_error_inside_a_stream_is_seen() -> None:
    watch = AnswerWatch(streamed=True)
    watch.feed(sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}))
    assert isinstance(watch.problem, ApiError)
    assert watch.problem.retryable


@given(cut=st.integers(0, 60))
def test_a_plain_answer_counts(cut: int) -> None:
    body = json.dumps({"usage": {"input_tokens": 3, "output_tokens": 4}, "stop_reason": "max_tokens"}).encode()
    watch = AnswerWatch(streamed=False)
    watch.feed(body[:cut])
    watch.feed(body[cut:])
    assert (watch.finish().output_tokens, watch.stop_reason) == (4, "max_tokens")


@given(st.binary(max_size=300), st.booleans())
def test_garbage_counts_nothing_and_raises_nothing(garbage: bytes, streamed: bool) -> None:
    watch = AnswerWatch(streamed=streamed)
    watch.feed(b"data: " + garbage)
    usage = watch.finish()
    assert usage.input_tokens >= 0
    assert usage.requests == 1


@pytest.mark.parametrize("wrong", [-1, True, "7", None, 1.5])
def test_a_figure_that_is_no_count_is_left_out(wrong: object) -> None:
    watch = AnswerWatch(streamed=False)
    watch.feed(json.dumps({"usage": {"input_tokens": wrong, "output_tokens": 2}}).encode())
    assert (watch.finish().input_tokens, watch.usage.output_tokens) == (0, 2)
