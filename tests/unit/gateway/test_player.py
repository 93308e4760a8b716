"""Streams of local servers through the translation, read by the official SDKs and by a state machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import anthropic
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farmhand.gateway.dialects import events, from_chat
from farmhand.gateway.turn import Dialect
from tests.unit.gateway import clients
from tests.unit.gateway.player import (
    CASES,
    OPEN_A,
    OPEN_B,
    REST_A,
    REST_B,
    Case,
    chunk,
    find,
    look,
    say,
    sse,
    tool,
    whole,
)

WHOLE = [case for case in CASES if case.stop != "error"]
FAILED = [case for case in CASES if case.stop == "error"]
INCOMPLETE = {"max_tokens": "max_output_tokens", "refusal": "content_filter"}
DIALECTS: list[Dialect] = ["messages", "chat", "responses"]


@pytest.fixture(autouse=True, scope="module")
def clock() -> Iterator[None]:
    """A response says in which second it was made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: 1.0)
        yield


def name(case: Case) -> str:
    return case.name


def test_there_are_enough_cases_of_both_kinds() -> None:
    assert len(CASES) >= 60
    assert len(FAILED) >= 12
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", WHOLE, ids=name)
def test_messages_by_the_sdk(case: Case) -> None:
    body = clients.play("messages", case.body)
    assert clients.check_messages(clients.events(body)) == case.stop
    assert clients.anthropic_stream(body) == ([*case.parts], case.stop, case.usage or (0, 0, 0))


@pytest.mark.parametrize("case", WHOLE, ids=name)
def test_responses_by_the_sdk(case: Case) -> None:
    body = clients.play("responses", case.body)
    ended = "response.incomplete" if case.stop in INCOMPLETE else "response.completed"
    assert clients.check_responses(clients.events(body)) == ended
    assert clients.responses_stream(body) == (
        [*case.parts],
        INCOMPLETE.get(case.stop, ""),
        case.usage or (0, 0, 0),
    )


@pytest.mark.parametrize("case", WHOLE, ids=name)
def test_chat_is_passed_on(case: Case) -> None:
    body = clients.play("chat", case.body, stream_options={"include_usage": True})
    chunks = clients.chat_stream(body)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices and c.choices[0].delta)
    kept = [part[1] for part in case.parts if part[0] == "text"]
    assert text == "".join(kept) or "refusal" in case.name or "message" in case.name
    assert body.endswith(b"data: [DONE]\n\n")
    assert any(c.choices and c.choices[0].finish_reason for c in chunks)


@pytest.mark.parametrize("case", FAILED, ids=name)
def test_a_failure_is_never_a_silent_end(case: Case) -> None:
    body = clients.play("messages", case.body)
    assert clients.check_messages(clients.events(body)) == "error"
    with pytest.raises(anthropic.APIError):
        clients.anthropic_stream(body)
    body = clients.play("responses", case.body)
    assert clients.check_responses(clients.events(body)) == "response.failed"
    assert clients.events(body)[-1]["response"]["error"]["message"]


#: Failures that concern only who must take a stream apart.
TRANSLATED = {"an unknown finish", "a call without a name", "arguments that are a list", "content of another type"}


@pytest.mark.parametrize("case", [case for case in FAILED if case.name not in TRANSLATED], ids=name)
def test_a_chat_client_sees_a_failure_too(case: Case) -> None:
    body = clients.play("chat", case.body)
    with pytest.raises(openai.APIError):
        clients.chat_stream(body)
    assert b"[DONE]" not in body


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("case", CASES, ids=name)
def test_single_bytes_make_the_same(case: Case, dialect: Dialect) -> None:
    """Of text and arguments, fragments may differ; what they add up to may not. Here each event is one fragment."""
    assert clients.play(dialect, case.body, size=1) == clients.play(dialect, case.body)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CASES), st.sampled_from(DIALECTS), st.data())
def test_any_split_makes_the_same(case: Case, dialect: Dialect, draws: Any) -> None:
    cuts = draws.draw(st.lists(st.integers(0, len(case.body)), max_size=9).map(sorted))
    stream = from_chat.stream(clients.turn_of(dialect), "1")
    pieces = [stream.feed(case.body[a:b]) for a, b in pairwise([0, *cuts, len(case.body)])]
    assert b"".join([*pieces, stream.end()]) == clients.play(dialect, case.body)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("case", CASES, ids=name)
def test_a_ping_after_each_byte_changes_nothing(case: Case, dialect: Dialect) -> None:
    stream = from_chat.stream(clients.turn_of(dialect), "1")
    body = stream.ping()
    for at in range(len(case.body)):
        body += stream.feed(case.body[at : at + 1]) + stream.ping()
    body += stream.end()
    assert stream.ping() == b""
    plain = clients.events(clients.play(dialect, case.body))
    kept = [one for one in clients.events(body) if one.get("type") != "ping"]
    if dialect == "messages":
        clients.check_messages(clients.events(body))
    # A ping begins the answer, before the server has named its model.
    assert kept[1:] == plain[1:] or [_unnamed(one) for one in kept] == [_unnamed(one) for one in plain]


def _unnamed(event: dict[str, Any]) -> Any:
    return {key: _unnamed(one) if isinstance(one, dict) else one for key, one in event.items() if key != "model"}


def test_text_goes_on_at_once() -> None:
    stream = from_chat.stream(clients.turn_of("messages"), "1")
    assert b"Hel" in stream.feed(sse(say("Hel")))
    assert b"lo" in stream.feed(sse(say("lo")))


def test_arguments_go_on_at_once() -> None:
    """CLIProxyAPI#4727: they were kept until the end of the call."""
    stream = from_chat.stream(clients.turn_of("messages"), "1")
    assert b'"name":"look"' in stream.feed(sse(look("")))
    assert b"partial_json" in stream.feed(sse(tool(0, OPEN_A)))
    assert b"a.py" in stream.feed(sse(tool(0, REST_A)))
    # The second call waits for the first one, and streams as soon as that is whole.
    assert b"find" in stream.feed(sse(find(OPEN_B)))
    assert b"partial_json" in stream.feed(sse(tool(1, REST_B)))


def test_a_call_that_the_limit_cut_is_no_tool_use() -> None:
    """CLIProxyAPI#5836: clients ran the call with what there was of its arguments."""
    body = whole(say("x"), look(OPEN_A), finish="length")
    assert clients.check_messages(clients.events(clients.play("messages", body))) == "max_tokens"
    assert clients.check_responses(clients.events(clients.play("responses", body))) == "response.incomplete"


@pytest.mark.parametrize("said_as", ["stop_reason", "matched_stop"])
def test_a_stop_sequence_is_known_where_the_server_says_it(said_as: str) -> None:
    body = whole(say("x"), chunk({}, "stop", **{said_as: "END"}))
    ended = clients.events(clients.play("messages", body, stop_sequences=["END"]))[-2]["delta"]
    assert ended == {"stop_reason": "stop_sequence", "stop_sequence": "END"}
    ended = clients.events(clients.play("messages", body))[-2]["delta"]
    assert ended == {"stop_reason": "end_turn", "stop_sequence": None}


def test_usage_that_only_we_asked_for_stays_here() -> None:
    body = whole(say("x"))
    assert all(one["choices"] for one in clients.events(clients.play("chat", body)))
    stream = from_chat.stream(clients.turn_of("chat"), "1")
    stream.feed(body)
    assert stream.usage is not None
    assert (stream.usage.read, stream.usage.cached, stream.usage.written) == (7, 3, 5)


def test_chat_events_keep_their_bytes() -> None:
    event = b'data: {"choices" : [ {"delta":{"content":"\\u00e9"}, "index":0} ],  "x": 1.0}'
    body = event + b"\n\n" + whole()
    assert clients.play("chat", body).startswith(event + b"\n\n")


def test_a_context_that_overflows_amid_the_stream_says_what_clients_look_for() -> None:
    body = sse({"error": {"type": "exceed_context_size_error", "n_prompt_tokens": 15024, "n_ctx": 4096}})
    error = clients.events(clients.play("messages", body))[-1]["error"]
    assert error == {"type": "invalid_request_error", "message": "prompt is too long: 15024 tokens > 4096 maximum"}
    error = clients.events(clients.play("responses", body))[-1]["response"]["error"]
    assert error["code"] == "context_length_exceeded"


def test_an_event_without_an_end_is_not_kept_for_ever() -> None:
    stream = from_chat.stream(clients.turn_of("messages"), "1")
    piece = b"data: " + b"x" * (events.MAX_EVENT // 4)
    sent = b"".join(stream.feed(piece) for _ in range(5))
    assert clients.events(sent)[-1]["type"] == "error"
    assert stream.feed(piece) == b""


@pytest.mark.parametrize("said", ['data: {"error":{"message":"no room"}}', 'error: {"code":500,"message":"no room"}'])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_words_of_a_failed_server_reach_the_client(dialect: Dialect, said: str) -> None:
    stream = from_chat.stream(clients.turn_of(dialect), "1")
    sent = stream.feed(sse(say("x"), said, "data: [DONE]")) + stream.end()
    assert "no room" in sent.decode()
    assert str(stream.failed) == "no room"
    assert stream.failed is not None
    assert stream.failed.status == 502
