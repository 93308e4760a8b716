"""A local model server with canned answers, and turns of 50 KB for it: what gateways are measured with.

It speaks Chat Completions and Messages, answers at once, and says of itself what llama.cpp says. A turn that asks for
`HOLD` gets the beginning of a stream and then nothing. Answers have 50 deltas.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from benchmarks.raw_http import Client, Gathering, chunk

MODEL = "m"
#: A turn with this text is a stream that stands still.
HOLD = "hold this stream open"
#: Bytes of a turn, about as many as Claude Code's smallest has.
SIZE = 50_000
DELTAS = 50
#: Deltas in one packet, when all of them come at once.
_TOGETHER = 10
PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}
_WORDS = "the quick brown fox jumps over the lazy dog "
_SCHEMA = {
    "type": "object",
    "properties": {
        name: {"type": "string", "description": _WORDS * 3} for name in ("path", "pattern", "content", "reason")
    },
    "required": ["path"],
}
_TOOLS = [(f"tool_{number}", _WORDS * 12, _SCHEMA) for number in range(16)]


def _conversation(dialect: str) -> list[dict[str, Any]]:
    """A system prompt, the user's words, and calls of a tool with their results, as the dialect has them."""
    told: list[dict[str, Any]] = [{"role": "user", "content": _WORDS * 20}]
    for number in range(6):
        name, given, result = f"call_{number}", {"path": f"src/file_{number}.py", "reason": _WORDS}, _WORDS * 20
        if dialect == "messages":
            call = {"type": "tool_use", "id": name, "name": "tool_1", "input": given}
            told.append({"role": "assistant", "content": [{"type": "text", "text": _WORDS}, call]})
            back = {"type": "tool_result", "tool_use_id": name, "content": [{"type": "text", "text": result}]}
            told.append({"role": "user", "content": [back]})
        else:
            function = {"name": "tool_1", "arguments": json.dumps(given)}
            calls = [{"id": name, "type": "function", "function": function}]
            told.append({"role": "assistant", "content": _WORDS, "tool_calls": calls})
            told.append({"role": "tool", "tool_call_id": name, "content": result})
    return told


def turn(dialect: str, model: str, *, stream: bool, hold: bool = False) -> bytes:
    """The body of a turn of a coding harness: 16 tools, six calls of them, about `SIZE` bytes."""
    body: dict[str, Any] = {"model": model, "max_tokens": 1024, "stream": stream}
    last = {"role": "user", "content": HOLD if hold else "go on"}
    if dialect == "messages":
        body["tools"] = [{"name": n, "description": d, "input_schema": s} for n, d, s in _TOOLS]
        body["system"] = [{"type": "text", "text": ""}]
    else:
        tools = [{"name": n, "description": d, "parameters": s} for n, d, s in _TOOLS]
        body["tools"] = [{"type": "function", "function": tool} for tool in tools]
    messages = [*_conversation(dialect), last]
    short = SIZE - len(json.dumps(body | {"messages": messages})) - 50
    if short < 0:
        raise ValueError(f"a turn of {SIZE - short} bytes")
    text = (_WORDS * (short // len(_WORDS) + 1))[:short]
    if dialect == "messages":
        body["system"][0]["text"] = text
        return json.dumps(body | {"messages": messages}).encode()
    return json.dumps(body | {"messages": [{"role": "system", "content": text}, *messages]}).encode()


def request(port: int, dialect: str, token: str, body: bytes) -> bytes:
    """A whole request."""
    head = (
        f"POST {PATHS[dialect]} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {token}\r\n"
        "content-type: application/json\r\nanthropic-version: 2023-06-01\r\naccept: */*\r\nuser-agent: benchmark\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _plain(body: Any) -> bytes:
    text = json.dumps(body).encode()
    return f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n".encode() + text


_SPOKEN = _WORDS.strip() + " "
_USAGE = {"prompt_tokens": 12500, "completion_tokens": DELTAS, "total_tokens": 12500 + DELTAS}
_USED = {"input_tokens": 12500, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": DELTAS}
_CHAT = {"id": "chatcmpl-1", "created": 1764500000, "model": MODEL}
_MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "stop_sequence": None}
_SAID = {"role": "assistant", "content": _SPOKEN * DELTAS}
_CHOICE = {"index": 0, "message": _SAID, "finish_reason": "stop"}
_SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _chat_event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    event = _CHAT | {"object": "chat.completion.chunk", "choices": [choice]} | more
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _messages_event(kind: str, **more: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | more)}\n\n".encode()


def _stream(first: list[bytes], delta: bytes, last: list[bytes]) -> list[bytes]:
    """The packets of a stream: its beginning, the deltas, its end."""
    packets = [_SSE + b"".join(map(chunk, first))]
    packets += [chunk(delta) * _TOGETHER] * (DELTAS // _TOGETHER)
    return [*packets, b"".join(map(chunk, last)) + b"0\r\n\r\n"]


PLAIN = {
    "chat": _plain(_CHAT | {"object": "chat.completion", "choices": [_CHOICE], "usage": _USAGE}),
    "messages": _plain(
        _MESSAGE | {"content": [{"type": "text", "text": _SPOKEN * DELTAS}], "stop_reason": "end_turn", "usage": _USED}
    ),
}
STREAMS = {
    "chat": _stream(
        [_chat_event({"role": "assistant", "content": ""})],
        _chat_event({"content": _SPOKEN}),
        [_chat_event({}, "stop"), _chat_event({}, choices=[], usage=_USAGE), b"data: [DONE]\n\n"],
    ),
    "messages": _stream(
        [
            _messages_event("message_start", message=_MESSAGE | {"content": [], "stop_reason": None, "usage": _USED}),
            _messages_event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        ],
        _messages_event("content_block_delta", index=0, delta={"type": "text_delta", "text": _SPOKEN}),
        [
            _messages_event("content_block_stop", index=0),
            _messages_event(
                "message_delta",
                delta={"stop_reason": "end_turn", "stop_sequence": None},
                usage={"output_tokens": DELTAS},
            ),
            _messages_event("message_stop"),
        ],
    ),
}
#: What it says of itself: as many slots as anybody asks for, so that no turn waits for another.
_ABOUT = {
    b"/v1/models": {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "llamacpp"}]},
    b"/props": {
        "default_generation_settings": {"n_ctx": 200_000},
        "modalities": {"vision": True},
        "total_slots": 4096,
    },
}


class ModelServer(Gathering):
    """Answers each request of a connection; the packets of a stream in turns of the loop of their own."""

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self.data += data
        if self.transport is None or not self.whole():
            return
        asked, self.data = self.data, b""
        method, path, _ = asked.split(b" ", 2)
        if method != b"POST":
            self.transport.write(_plain(_ABOUT[path]))
            return
        dialect = "chat" if path.startswith(b"/v1/chat/") else "messages"
        if b'"stream": true' not in asked and b'"stream":true' not in asked:
            self.transport.write(PLAIN[dialect])
            return
        packets = STREAMS[dialect]
        self.transport.write(packets[0])
        if HOLD.encode() not in asked:
            self._go_on(iter(packets[1:]))

    def _go_on(self, packets: Any) -> None:
        packet = next(packets, None)
        if packet is not None and self.transport is not None:
            self.transport.write(packet)
            asyncio.get_running_loop().call_soon(self._go_on, packets)

    def whole(self) -> bool:
        """Whether `data` is a request: one without a body has no length."""
        return (self.data.startswith((b"GET ", b"HEAD ")) and self.data.endswith(b"\r\n\r\n")) or super().whole()


class IdleClient(Client):
    """A stream that stands still: when its last byte came, and its longest silence. Seconds of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.last = 0.0
        self.longest = 0.0
        self.heard = 0
        self.head = b""

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        now = asyncio.get_running_loop().time()
        if self.heard:
            self.longest = max(self.longest, now - self.last)
        if len(self.head) < 12:
            self.head += data[:12]
        self.last, self.heard = now, self.heard + 1
