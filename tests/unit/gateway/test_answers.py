"""Whole answers of local servers in the client's dialect."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from farmhand.gateway.backends import BackendError
from farmhand.gateway.dialects import from_chat, native
from farmhand.gateway.dialects.parts import ChatUsage
from tests.unit.gateway import clients
from tests.unit.gateway.player import USAGE, A, B


def completion(message: Any, finish: str = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return msgspec.json.encode({"id": "c", "model": "qwen", "choices": [choice], "usage": USAGE} | more)


def call(name: str, arguments: Any) -> dict[str, Any]:
    return {"id": f"id-{name}", "type": "function", "function": {"name": name, "arguments": arguments}}


ANSWERS: list[tuple[dict[str, Any], str, list[Any], str]] = [
    ({"content": "hi"}, "stop", [("text", "hi")], "end_turn"),
    ({"content": None}, "stop", [], "end_turn"),
    ({"content": "hi"}, "length", [("text", "hi")], "max_tokens"),
    ({"content": "hi", "reasoning_content": "hm"}, "stop", [("thinking", "hm"), ("text", "hi")], "end_turn"),
    (
        {"content": "so", "tool_calls": [call("look", '{"path":"a.py"}'), call("find", '{"q":"b","n":2}')]},
        "tool_calls",
        [("text", "so"), ("tool", "look", A), ("tool", "find", B)],
        "tool_use",
    ),
    ({"content": "", "tool_calls": [call("now", "")]}, "stop", [("tool", "now", {})], "tool_use"),
    ({"content": "", "tool_calls": [call("look", A)]}, "stop", [("tool", "look", A)], "tool_use"),
]


@pytest.mark.parametrize(("message", "finish", "parts", "stop"), ANSWERS)
def test_by_the_sdks(message: dict[str, Any], finish: str, parts: list[Any], stop: str) -> None:
    body = completion(message, finish)
    made, usage = from_chat.answer(clients.turn_of("messages"), body, "1")
    assert clients.anthropic_whole(made) == (parts, stop, (7, 3, 5))
    assert usage is not None
    made, _ = from_chat.answer(clients.turn_of("responses"), body, "1")
    incomplete = "max_output_tokens" if stop == "max_tokens" else ""
    assert clients.responses_whole(made) == (parts, incomplete, (7, 3, 5))
    assert from_chat.answer(clients.turn_of("chat"), body, "1")[0] is body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        completion({"content": "x"}, "abort"),
        completion({"content": 7}),
        completion({"tool_calls": [call("look", '{"path":')]}, "length"),
        completion({"tool_calls": [call("look", "[1]")]}),
        completion({"tool_calls": [call("", "{}")]}),
        completion({"content": "x"}, choices=[{"message": {}}, {"message": {}}]),
        completion({"content": "x"}, error={"message": "broken"}),
    ],
)
@pytest.mark.parametrize("dialect", ["messages", "responses"])
def test_what_is_no_whole_answer_is_an_error(dialect: Any, body: bytes) -> None:
    with pytest.raises(BackendError) as caught:
        from_chat.answer(clients.turn_of(dialect), body, "1")
    assert str(caught.value)


def test_a_missing_usage_is_unknown_and_not_zero() -> None:
    made, usage = from_chat.answer(clients.turn_of("messages"), completion({"content": "x"}, usage=None), "1")
    assert usage is None
    assert clients.anthropic_whole(made)[2] == (0, 0, 0)


@pytest.mark.parametrize("count", [2**63, 10**30])
def test_a_usage_that_cannot_be_is_unknown(count: int) -> None:
    """SQLite has no such number: the whole row of the charge was lost."""
    used = {"prompt_tokens": 1, "completion_tokens": count}
    assert from_chat.answer(clients.turn_of("messages"), completion({"content": "x"}, usage=used), "1")[1] is None
    message = f'{{"usage": {{"input_tokens": 1, "output_tokens": {count}}}}}'
    assert native.answer(message.encode())[1] is None


def test_a_count_that_a_message_leaves_null_is_none_of_the_others() -> None:
    """The API's schema allows it."""
    message = {"content": [], "usage": {"input_tokens": 7, "output_tokens": 5, "cache_read_input_tokens": None}}
    assert native.answer(msgspec.json.encode(message))[1] == ChatUsage(7, 0, 5)
