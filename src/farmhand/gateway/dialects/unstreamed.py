"""A whole answer where a stream was asked for, as some servers and proxies send it: it becomes the stream it is.

It may have been paid for, so the client gets it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

from farmhand.gateway.backends import BackendError, BackendReply
from farmhand.gateway.dialects import errors
from farmhand.gateway.dialects.sse import DONE, data, event

#: Bytes of a whole answer.
MAX_ANSWER = 32 * 1024 * 1024
#: Blank bytes before an answer that are kept: more mean nothing.
_BLANK = 64
#: By a block's type its fields that come as deltas, and their deltas' types; a field has the same name in both.
_DELTAS = {
    "text": (("text", "text_delta"),),
    "thinking": (("thinking", "thinking_delta"), ("signature", "signature_delta")),
}
_CALLS = ("tool_use", "server_tool_use", "mcp_tool_use")


async def pieces(reply: BackendReply) -> AsyncIterator[bytes]:
    """Yield a stream as it comes, and a whole answer as a stream. Raise BackendError. No event begins with `{`."""
    whole: bytearray | None = None
    begun, blank = False, b""
    async for piece in reply.pieces():
        if not begun:
            piece, blank = blank + piece, b""
            if not (begun := bool(piece.strip())):
                blank = piece[-_BLANK:]
                continue
            whole = bytearray() if piece.lstrip().startswith(b"{") else None
        if whole is None:
            yield piece
            continue
        whole += piece
        if len(whole) > MAX_ANSWER:
            raise BackendError(f"the answer is larger than {MAX_ANSWER} bytes")
    if whole is not None:
        yield b"".join(_events(reply, bytes(whole)))


def _events(reply: BackendReply, body: bytes) -> Iterator[bytes]:
    try:
        found = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        raise BackendError("the answer is no message") from None
    if reply.dialect == "messages":
        if not isinstance(found.get("content"), list):
            raise errors.instead(found.get("error"))
        yield from map(event, _of_message(found))
    elif found.get("error"):
        raise errors.from_server(200, body)
    else:
        yield data(_of_completion(found))
        yield DONE


def _of_message(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    ends = {name: found.get(name) for name in ("stop_reason", "stop_sequence")}
    yield {"type": "message_start", "message": found | {"content": []} | dict.fromkeys(ends)}
    for index, block in enumerate(found["content"]):
        if not isinstance(block, dict):
            raise BackendError("the answer is no message")
        deltas = list(_deltas(block))
        # What comes as deltas begins empty; a block that has none comes whole.
        empty = {name: type(block[name])() for delta in deltas for name in delta if name in block and name != "type"}
        empty |= {"input": {}} if block.get("type") in _CALLS else {}
        yield {"type": "content_block_start", "index": index, "content_block": block | empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {"type": "message_delta", "delta": ends, "usage": found.get("usage") or {}}
    yield {"type": "message_stop"}


def _deltas(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kind = block.get("type")
    if kind in _CALLS:
        yield {"type": "input_json_delta", "partial_json": msgspec.json.encode(block.get("input") or {}).decode()}
    for name, delta in _DELTAS.get(str(kind), ()):
        if isinstance(block.get(name), str):
            yield {"type": delta, name: block[name]}


def _of_completion(found: dict[str, Any]) -> dict[str, Any]:
    """Return the one chunk of a whole completion; a call of a tool has its place in its list."""
    choices = found.get("choices")
    made = []
    for choice in choices if isinstance(choices, list) else []:
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            raise BackendError("the answer is no message")
        calls = message.get("tool_calls")
        if isinstance(calls, list):
            numbered = [{"index": at} | call for at, call in enumerate(calls) if isinstance(call, dict)]
            message = message | {"tool_calls": numbered}
        made.append({name: value for name, value in choice.items() if name != "message"} | {"delta": message})
    return found | {"object": "chat.completion.chunk", "choices": made}
