from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.core.prices import price_table
from farmhand.core.terms import Terms
from farmhand.meter.errors import ApiError
from farmhand.meter.usage import UsageParser, usage_of
from tests.support.answers import CASES, Case
from tests.support.answers.parts import ERROR, HELLO, OPEN, PLAIN, STOP, USAGE, delta, end, start, text


def sse(*events: dict[str, object]) -> bytes:
    return b"".join(b"event: %s\ndata: %s\n\n" % (str(e["type"]).encode(), json.dumps(e).encode()) for e in events)


PACKED = {"content-encoding"}
FIELDS = (
    "cache_creation",
    "ephemeral_1h_input_tokens",
    "iterations",
    "inference_geo",
    "server_tool_use",
    "speed",
    "type",
)
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
    watch = UsageParser(streamed=True)
    edges = [0, *sorted(cuts), len(STREAM)]
    for first, last in itertools.pairwise(edges):
        watch.feed(STREAM[first:last])
    usage = watch.finish()
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens, usage.requests) == (11, 5, 40, 1)
    assert watch.stop_reason == "end_turn"
    assert watch.problem is None


def test_a_stream_that_breaks_off_counts_what_is_known() -> None:
    watch = UsageParser(streamed=True)
    watch.feed(STREAM[: STREAM.index(b"event: message_delta")])
    assert watch.finish().input_tokens == 11
    assert watch.stop_reason == ""


def test_an_error_inside_a_stream_is_seen() -> None:
    watch = UsageParser(streamed=True)
    watch.feed(sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}))
    assert isinstance(watch.problem, ApiError)
    assert watch.problem.retryable


@given(cut=st.integers(0, 60))
def test_a_plain_answer_counts(cut: int) -> None:
    body = json.dumps({"usage": {"input_tokens": 3, "output_tokens": 4}, "stop_reason": "max_tokens"}).encode()
    watch = UsageParser(streamed=False)
    watch.feed(body[:cut])
    watch.feed(body[cut:])
    assert (watch.finish().output_tokens, watch.stop_reason) == (4, "max_tokens")


@given(st.binary(max_size=300), st.booleans())
def test_garbage_counts_nothing_and_raises_nothing(garbage: bytes, streamed: bool) -> None:
    watch = UsageParser(streamed=streamed)
    watch.feed(b"data: " + garbage)
    usage = watch.finish()
    assert usage.input_tokens >= 0
    assert usage.requests == 1


@pytest.mark.parametrize("wrong", [-1, True, "7", None, 1.5])
def test_a_figure_that_is_no_count_is_left_out(wrong: object) -> None:
    watch = UsageParser(streamed=False)
    watch.feed(json.dumps({"usage": {"input_tokens": wrong, "output_tokens": 2}}).encode())
    assert (watch.finish().input_tokens, watch.usage.output_tokens) == (0, 2)


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if "gzip" not in case.name and not PACKED & case.headers.keys()],
    ids=lambda case: case.name,
)
def test_every_case_counts_the_same_in_one_piece_and_byte_by_byte(case: Case) -> None:
    """The watch alone: what the agent makes of it all is played in tests/integration/test_answer_cases.py."""
    seen = []
    for size in (1, 3, len(case.body) or 1):
        streamed = case.headers.get("content-type", "").lower().startswith("text/event-stream")
        watch = UsageParser(streamed=streamed, max_tokens=4096)
        for at in range(0, len(case.body), size):
            watch.feed(case.body[at : at + size])
        if case.ending != "cut" or watch.stop_reason:
            watch.close()
        seen.append((watch.finish(), watch.terms, watch.ended, watch.stop_reason, watch.streamed))
    assert seen[0] == seen[1] == seen[2]
    if case.state == "succeeded":
        assert watch.ended
        # A factor is missing for terms that are not believed as for those without a price.
        assert (price_table().factor(watch.terms) is None) == bool(case.uncertain)


@pytest.mark.parametrize(
    ("pieces", "narrow", "wide"),
    [([text("four words of text")], 18, 0), ([text("ü" * 9)], 0, 18), ([text("a\n"), text("b")], 4, 0), ([], 0, 0),
     ([delta({"type": "thinking_delta", "thinking": "hm, so"})], 6, 0),
     ([delta({"type": "input_json_delta", "partial_json": '{"a": 1}'})], 10, 0),
     ([delta({"type": "signature_delta", "signature": "x" * 400})], 0, 0)],
)  # fmt: skip
def test_a_stream_that_is_cut_counts_what_has_passed_and_says_so(pieces: list[bytes], narrow: int, wide: int) -> None:
    def utf8(event: bytes) -> bytes:
        return event.replace(b"\\u00fc", "ü".encode())

    watch = UsageParser(streamed=True, max_tokens=4096)
    watch.feed(start() + OPEN + b"".join(map(utf8, pieces)))
    usage = watch.finish()
    assert usage.output_tokens == max(1, -(-narrow // 2) + wide)
    assert (usage.input_tokens, watch.ended, watch.terms) == (100, False, Terms(estimated=True))


def test_what_has_passed_is_never_more_than_was_asked_for_nor_less_than_was_told() -> None:
    watch = UsageParser(streamed=True, max_tokens=20)
    watch.feed(start() + OPEN + text("x" * 1000))
    assert watch.finish().output_tokens == 20
    watch = UsageParser(streamed=True, max_tokens=20)
    watch.feed(start() + OPEN + text("x") + end({"output_tokens": 15}))
    assert watch.finish().output_tokens == 15


@pytest.mark.parametrize("behind", [b"", b"event: message_stop\nda", ERROR], ids=["nothing", "half an event", "error"])
def test_a_stream_that_said_why_it_stops_is_whole_whatever_comes_behind(behind: bytes) -> None:
    watch = UsageParser(streamed=True, max_tokens=4096)
    watch.feed(start() + HELLO + end() + behind)
    watch.close()
    assert watch.finish().output_tokens == 12
    assert (watch.ended, watch.problem, watch.terms) == (True, None, Terms())


def test_a_stop_reason_is_that_of_its_own_message() -> None:
    watch = UsageParser(streamed=True)
    watch.feed(start() + HELLO + end() + start(name="msg_2") + OPEN + text("hel"))
    watch.close()
    assert (watch.ended, watch.stop_reason) == (False, "")


@pytest.mark.parametrize(("output", "believed"), [(64, True), (1128, True), (1129, False), (60_000, False)])
def test_output_far_above_what_was_asked_for_is_not_believed(output: int, believed: bool) -> None:
    told = USAGE | {"output_tokens": output}
    watch = UsageParser(streamed=True, max_tokens=64)
    watch.feed(start() + HELLO + end({"output_tokens": output}) + STOP)
    usage = watch.finish()
    expected = () if believed else ("output_tokens",)
    assert (usage.output_tokens == output, watch.terms.unknown) == (believed, expected)
    assert usage_of(told, max_tokens=64)[1].unknown == expected
    passes = [{"type": "message", "output_tokens": output - 64}, {"type": "message", "output_tokens": 64}]
    assert bool(usage_of(USAGE | {"iterations": passes}, max_tokens=64)[1].unknown) is not believed


@given(reports=st.lists(st.dictionaries(st.sampled_from(sorted(USAGE)), st.integers(0, 10**6), max_size=4), max_size=5))
def test_of_cumulative_figures_the_highest_counts(reports: list[dict[str, int]]) -> None:
    watch = UsageParser(streamed=True)
    watch.feed(start() + HELLO + b"".join(end(report) for report in reports) + STOP)
    usage = watch.finish()
    for name, first in USAGE.items():
        assert getattr(usage, name) == max([first, *(report.get(name, 0) for report in reports)])


@given(
    told=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*USAGE, *FIELDS]),
            inner,
            max_size=5,
        ),
        max_leaves=12,
    )
)  # fmt: skip
def test_whatever_usage_says_the_counts_are_bounded_and_a_price_can_be_asked_for(told: object) -> None:
    usage, terms = usage_of(told)
    assert all(0 <= getattr(usage, name) <= 10**9 for name in usage.__struct_fields__)
    assert usage.cache_creation_1h_input_tokens <= usage.cache_creation_input_tokens
    assert terms.text.isascii()
    assert terms.text.isprintable()


def test_the_plain_answer_has_nothing_to_say_of_its_terms() -> None:
    watch = UsageParser(streamed=True)
    watch.feed(PLAIN)
    watch.finish()
    assert (watch.terms, watch.terms.text) == (Terms(), "")
    assert Terms(inference_geo="us", unknown=("input_tokens",), estimated=True).text == (
        "inference_geo=us unknown=input_tokens output=estimated"
    )


@pytest.mark.parametrize(
    ("head", "piece"),
    [(start() + OPEN, text("x" * 4096)), (b"data: ", b"x" * 4096), (b'{"content": "', b"x" * 4096)],
    ids=["events", "one event", "one message"],
)
def test_an_answer_without_end_is_refused(head: bytes, piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farmhand.meter.usage._MAX_BODY", 2**20)
    monkeypatch.setattr("farmhand.meter.usage._MAX_LOOK", 2**19)

    def feed() -> None:
        watch = UsageParser(streamed=True)
        watch.feed(head)
        for _ in range(300):
            watch.feed(piece)

    with pytest.raises(ApiError, match="larger than any"):
        feed()
