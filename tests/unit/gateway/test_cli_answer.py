"""The CLI's stream for a client of each dialect: one answer, text alone, whole or not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from farmhand.gateway.backends import BackendError
from farmhand.gateway.dialects import from_messages
from farmhand.gateway.dialects.cli_answer import CliAnswer
from tests.unit.gateway.turns import turn

START: dict[str, Any] = {
    "type": "message_start",
    "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5-5", "content": []}
    | {"usage": {"input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": 1}},
}
DELTA: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}}
END = [DELTA | {"usage": {"output_tokens": 5}}, {"type": "message_stop"}]


def block(index: int, kind: str, *pieces: str) -> list[dict[str, Any]]:
    name = {"text": "text", "thinking": "thinking"}[kind]
    deltas = [{"type": f"{kind}_delta", name: piece} for piece in pieces]
    return [
        {"type": "content_block_start", "index": index, "content_block": {"type": kind, name: ""}},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


STREAM = [START, *block(0, "thinking", "hm"), *block(1, "text", "one ", "two"), *END]


def played(events: list[dict[str, Any]], dialect: Any, **more: Any) -> tuple[list[dict[str, Any]], CliAnswer]:
    """The events that a client gets, or the one answer."""
    asked = turn(dialect, **more)
    answer = CliAnswer(asked)
    text = b"".join(answer.take(event) for event in events) + answer.end()
    if dialect != "messages" and asked.streamed:
        stream = from_messages.stream(asked)
        text = stream.feed(text) + stream.end()
    elif dialect != "messages":
        text, _ = from_messages.answer(asked, text)
    lines = [line.removeprefix(b"data: ") for line in text.splitlines() if line.startswith((b"data: ", b"{"))]
    return [json.loads(line) for line in lines if line != b"[DONE]"], answer


def test_thinking_is_left_out_and_the_blocks_are_numbered_again() -> None:
    found, answer = played(STREAM, "messages", streamed=True)
    kinds = [(event["type"], event.get("index")) for event in found]
    assert kinds == [
        ("message_start", None),
        ("content_block_start", 0),
        ("content_block_delta", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("message_delta", None),
        ("message_stop", None),
    ]
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.prompt_tokens) == (7, 5, 10)


def test_thinking_that_was_asked_for_is_passed_on() -> None:
    asked = {"fields": {"thinking": {"type": "adaptive"}}}
    [whole], _ = played(STREAM, "messages", **asked)
    assert [part["type"] for part in whole["content"]] == ["thinking", "text"]
    assert (whole["content"][1]["text"], whole["stop_reason"], whole["usage"]["output_tokens"]) == (
        "one two",
        "end_turn",
        5,
    )


@pytest.mark.parametrize(("stop", "finish"), [("end_turn", "stop"), ("max_tokens", "length")])
def test_a_chat_client_gets_chat(stop: str, finish: str) -> None:
    ending = [DELTA | {"delta": {"stop_reason": stop}, "usage": {"output_tokens": 5}}, {"type": "message_stop"}]
    events = [*STREAM[:-2], *ending]
    [whole], _ = played(events, "chat")
    choice = whole["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("one two", finish)
    assert whole["usage"]["prompt_tokens"] == 10
    usage_asked = {"stream_options": {"include_usage": True}}
    *chunks, last = played(events, "chat", streamed=True, fields=usage_asked)[0]
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert (text, chunks[-1]["choices"][0]["finish_reason"]) == ("one two", finish)
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 5)


TOOL = {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "Bash"}}


@pytest.mark.parametrize("dialect", ["messages", "chat"])
@pytest.mark.parametrize(
    "events",
    [
        [START, START],
        [START, *END, START],
        [*STREAM, *block(2, "text", "more")],
        [START, TOOL],
        [START, TOOL | {"content_block": None}],
        [START, {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "x"}}],
        [{"type": "message_stop"}],
        [{"type": "message_start", "message": 7}],
        ["no object"],
        [START, *block(0, "text", "cut")],
        [],
    ],
)
def test_more_or_less_than_one_answer_of_text_is_an_error(events: list[Any], dialect: Any) -> None:
    for streamed in (False, True):
        with pytest.raises(BackendError):
            played(events, dialect, streamed=streamed)
