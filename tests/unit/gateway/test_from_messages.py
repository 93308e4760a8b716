"""Answers of the Messages API in the other dialects, read by the official SDKs.

Each stream of the player is made into one of Messages first, and must then mean the same to the client.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec
import openai
import pytest

from farmhand.gateway.backends import BackendError
from farmhand.gateway.dialects import from_messages
from farmhand.gateway.turn import Dialect
from tests.unit.gateway import clients
from tests.unit.gateway.player import CASES, Case

WHOLE = [case for case in CASES if case.stop != "error"]
FAILED = [case for case in CASES if case.stop == "error"]
FINISH = {"end_turn": "stop", "max_tokens": "length", "refusal": "content_filter", "tool_use": "tool_calls"}
BOTH: list[Dialect] = ["chat", "responses"]


@pytest.fixture(autouse=True, scope="module")
def clock() -> Iterator[None]:
    """An answer says in which second it was made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: 1.0)
        yield


def play(dialect: Dialect, body: bytes, size: int = 0, **fields: Any) -> bytes:
    """What a client gets of the API's stream."""
    turn = clients.turn_of(dialect, **fields)
    stream = from_messages.stream(turn, "1")
    step = size or max(len(body), 1)
    pieces = [stream.feed(body[at : at + step]) for at in range(0, len(body), step)]
    return b"".join([*pieces, stream.end()])


def name(case: Case) -> str:
    return case.name


def of_chunks(chunks: list[Any]) -> tuple[str, str, list[tuple[str, Any]], str]:
    """Text, thinking, calls and the reason of the end, from the chunks of a Chat stream."""
    text = thinking = finish = ""
    calls: dict[int, list[str]] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            thinking += getattr(choice.delta, "reasoning_content", None) or ""
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or []:
                known = calls.setdefault(call.index, [call.function.name, ""])
                known[1] += call.function.arguments or ""
    return text, thinking, [(name, msgspec.json.decode(given)) for name, given in calls.values()], finish


def joined(case: Case, kind: str) -> str:
    return "".join(part[1] for part in case.parts if part[0] == kind)


@pytest.mark.parametrize("case", WHOLE, ids=name)
def test_chat_by_the_sdk(case: Case) -> None:
    body = play("chat", clients.play("messages", case.body), stream_options={"include_usage": True})
    chunks = clients.chat_stream(body)
    calls = [(part[1], part[2]) for part in case.parts if part[0] == "tool"]
    finish = FINISH.get(case.stop, "stop")
    assert of_chunks(chunks) == (joined(case, "text"), joined(case, "thinking"), calls, finish)
    assert body.endswith(b"data: [DONE]\n\n")
    read, cached, written = case.usage or (0, 0, 0)
    used = chunks[-1].usage
    assert (used.prompt_tokens, used.completion_tokens) == (read + cached, written)
    assert used.prompt_tokens_details.cached_tokens == cached
    without = play("chat", clients.play("messages", case.body))
    assert not [chunk for chunk in clients.chat_stream(without) if chunk.usage]


@pytest.mark.parametrize("case", WHOLE, ids=name)
def test_responses_by_the_sdk(case: Case) -> None:
    body = play("responses", clients.play("messages", case.body))
    reason = {"max_tokens": "max_output_tokens", "refusal": "content_filter"}.get(case.stop, "")
    assert clients.check_responses(clients.events(body)) == f"response.{'incomplete' if reason else 'completed'}"
    assert clients.responses_stream(body) == ([*case.parts], reason, case.usage or (0, 0, 0))


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize("case", WHOLE, ids=name)
def test_pieces_of_any_size_mean_the_same(case: Case, dialect: Dialect) -> None:
    body = clients.play("messages", case.body)
    assert play(dialect, body, 7) == play(dialect, body)


@pytest.mark.parametrize("case", WHOLE, ids=name)
def test_a_whole_answer_says_what_the_stream_says(case: Case) -> None:
    blocks: list[dict[str, Any]] = []
    for number, part in enumerate(case.parts):
        if part[0] == "tool":
            blocks.append({"type": "tool_use", "id": f"t{number}", "name": part[1], "input": part[2]})
        else:
            blocks.append({"type": part[0], part[0]: part[1]})
    read, cached, written = case.usage or (0, 0, 0)
    usage = {"input_tokens": read, "cache_read_input_tokens": cached, "output_tokens": written}
    message = {"model": "m", "content": blocks, "stop_reason": case.stop, "usage": usage}
    whole = msgspec.json.encode(message)
    chat, _ = from_messages.answer(clients.turn_of("chat"), whole, "1")
    found = openai.types.chat.ChatCompletion.model_validate_json(chat)
    assert (found.choices[0].message.content or "") == joined(case, "text")
    assert len(found.choices[0].message.tool_calls or []) == sum(part[0] == "tool" for part in case.parts)
    assert found.choices[0].finish_reason == FINISH.get(case.stop, "stop")
    response, _ = from_messages.answer(clients.turn_of("responses"), whole, "1")
    reason = {"max_tokens": "max_output_tokens", "refusal": "content_filter"}.get(case.stop, "")
    assert clients.responses_whole(response) == ([*case.parts], reason, (read, cached, written))


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize("case", FAILED, ids=name)
def test_a_stream_that_fails_ends_with_an_error(case: Case, dialect: Dialect) -> None:
    body = play(dialect, clients.play("messages", case.body))
    assert (b'"error":{' in body) if dialect == "chat" else (b"response.failed" in body)
    assert not body.endswith(b"data: [DONE]\n\n")
    assert b"response.completed" not in body


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize("case", WHOLE[:5], ids=name)
def test_a_stream_that_is_cut_anywhere_ends_with_an_error(case: Case, dialect: Dialect) -> None:
    body = clients.play("messages", case.body)
    end = body.index(b"event: message_delta")
    for at in range(0, end, 13):
        found = play(dialect, body[:at])
        assert (b'"error":{' in found) if dialect == "chat" else (b"response.failed" in found)


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    "event",
    [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "hologram"}},
        {"type": "message_delta", "delta": {"stop_reason": "of_tomorrow"}, "usage": {}},
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        ["no object"],
    ],
)
def test_what_nobody_knows_is_an_error_and_not_left_out(dialect: Dialect, event: Any) -> None:
    start = b'event: message_start\ndata: {"type":"message_start","message":{"model":"m","usage":{}}}\n\n'
    body = start + b"data: %b\n\n" % msgspec.json.encode(event) + b'data: {"type":"message_stop"}\n\n'
    found = play(dialect, body)
    assert (b'"error":{' in found) if dialect == "chat" else (b"response.failed" in found)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"content":[{"type":"hologram"}],"stop_reason":"end_turn"}'])
def test_what_is_no_message_is_an_error(body: bytes) -> None:
    with pytest.raises(BackendError):
        from_messages.answer(clients.turn_of("chat"), body)


def test_thinking_that_is_not_shown_is_no_part() -> None:
    """A model may think and show nothing: a block with a signature alone."""
    blocks = [{"type": "thinking", "thinking": "", "signature": "s"}, {"type": "text", "text": "hi"}]
    whole = {"model": "m", "content": blocks, "stop_reason": "end_turn", "usage": {}}
    answer, _ = from_messages.answer(clients.turn_of("responses"), msgspec.json.encode(whole))
    assert [item.type for item in openai.types.responses.Response.model_validate_json(answer).output] == ["message"]


def test_a_ping_may_come_first() -> None:
    stream = from_messages.stream(clients.turn_of("chat"), "1")
    assert stream.ping().endswith(b": ping\n\n")
