"""A whole answer to a streamed request, which some servers and proxies give: the client gets the stream that it is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from farmhand.gateway.backends import BackendError, BackendReply
from farmhand.gateway.dialects import from_chat, from_messages, unstreamed
from farmhand.gateway.dialects.native import NativeStream
from farmhand.gateway.turn import Dialect
from tests.unit.gateway import clients

USED = {"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": 2}
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "text", "text": "käse\n\ndata: x"},
        {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": [1, None]}},
        {"type": "tool_use", "id": "t2", "name": "wait", "input": {}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": USED,
}
CALL = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"at":[1,null]}'}}
COMPLETION: dict[str, Any] = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "käse", "tool_calls": [CALL, CALL | {"id": "t2"}]},
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
}
#: What each client makes of its stream: its parts, why it ended, and its usage.
READ: dict[Dialect, Callable[[bytes], Any]] = {
    "messages": clients.anthropic_stream,
    "responses": clients.responses_stream,
    "chat": clients.chat_stream,
}


def reply(dialect: Dialect, *body: bytes) -> BackendReply:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in body:
            yield piece

    return cast(BackendReply, SimpleNamespace(dialect=dialect, pieces=pieces))


async def streamed(theirs: Dialect, dialect: Dialect, body: bytes) -> bytes:
    """What the client gets of a whole answer in the dialect `theirs`, which comes in two pieces."""
    turn = clients.turn_of(dialect)
    stream: Any = from_chat.stream(turn, "1")
    if theirs == "messages":
        stream = NativeStream() if dialect == "messages" else from_messages.stream(turn, "1")
    found = [stream.feed(one) async for one in unstreamed.pieces(reply(theirs, b"\n ", body[:9], body[9:]))]
    return b"".join([*found, stream.end()])


@pytest.mark.parametrize("theirs", ["messages", "chat"])
@pytest.mark.parametrize("dialect", ["messages", "chat", "responses"])
async def test_the_sdks_read_a_whole_answer_as_a_stream(theirs: Dialect, dialect: Dialect) -> None:
    body = json.dumps(MESSAGE if theirs == "messages" else COMPLETION).encode()
    made = (await streamed(theirs, dialect, body)).lstrip()
    seen = READ[dialect](made)
    if dialect == "chat":
        last = [call for chunk in seen for choice in chunk.choices for call in choice.delta.tool_calls or []]
        assert {call.index for call in last} == {0, 1}
        assert made.endswith(b"data: [DONE]\n\n")
        assert [choice.finish_reason for chunk in seen for choice in chunk.choices][-1] == "tool_calls"
        assert "käse" in "".join(choice.delta.content or "" for chunk in seen for choice in chunk.choices)
        return
    parts, stop, used = seen
    assert "käse" in str(parts)
    assert next(part[1:] for part in parts if part[0] == "tool") == ("look", {"at": [1, None]})
    assert used == ((5, 2, 7) if theirs == "messages" else (5, 0, 7))
    if dialect == "messages":
        assert stop == "tool_use"
        plain = [one for one in clients.events(made) if one.get("delta", {}).get("type") != "signature_delta"]
        assert clients.check_messages(plain) == "tool_use"


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        ("messages", b"{"),
        ("messages", b'{"type":"error","error":{"message":"full up"}}'),
        ("messages", b'{"content":["x"]}'),
        ("chat", b'{"error":{"message":"full up"}}'),
        ("chat", b'{"choices":["x"]}'),
        ("chat", b"{" * 9),
    ],
)
async def test_what_is_no_answer_either_is_an_error(dialect: Dialect, body: bytes) -> None:
    with pytest.raises(BackendError, match=r"no message|full up"):
        await anext(unstreamed.pieces(reply(dialect, body)))


async def test_a_stream_comes_piece_by_piece_and_an_endless_whole_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = (b"event: message_start\n", b'data: {"a": 1}\n\n', b"{}")
    assert [one async for one in unstreamed.pieces(reply("messages", *sent))] == list(sent)
    monkeypatch.setattr(unstreamed, "MAX_ANSWER", 10)
    with pytest.raises(BackendError, match="larger than 10 bytes"):
        await anext(unstreamed.pieces(reply("messages", b"{" + b" " * 11)))
