"""The smallest HTTP there can be on both ends of what is measured, so that little of the figures is theirs.

An upstream that answers the Messages API's requests with canned bytes at once, and a client that sends canned bytes
and waits for the end of the answer. Neither parses more than it needs.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

MODEL = "claude-haiku-5-5"
_TEXT = "The quick brown fox jumps over the lazy dog. "
_USAGE = {"input_tokens": 25, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}
_MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "stop_sequence": None}
_HEAD = (
    "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nrequest-id: req_011CTbenchmark\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\n"
    "anthropic-organization-id: 00000000-0000-4000-8000-000000000000\r\n"
    + "".join(
        f"anthropic-ratelimit-{kind}-limit: 100000000\r\nanthropic-ratelimit-{kind}-remaining: 99999000\r\n"
        f"anthropic-ratelimit-{kind}-reset: 2026-11-24T12:00:01Z\r\n"
        for kind in ("requests", "tokens", "input-tokens", "output-tokens")
    )
)


def _plain() -> bytes:
    content = [{"type": "text", "text": _TEXT * 4}]
    usage = _USAGE | {"output_tokens": 40}
    body = json.dumps(_MESSAGE | {"content": content, "stop_reason": "end_turn", "usage": usage}).encode()
    return (_HEAD.format("application/json") + f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def _events() -> list[bytes]:
    """The events of one stream: eight deltas, as a short answer has."""
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": _TEXT}}
    ending = {"delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 40}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": _MESSAGE | {"content": [], "stop_reason": None, "usage": _USAGE}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *[delta] * 8,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", **ending},
        {"type": "message_stop"},
    ]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


def chunk(data: bytes) -> bytes:
    """A chunk of a body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


PLAIN = _plain()
#: The head and the first event, then the rest in two pieces: what a short answer's packets look like.
STREAM = (
    (_HEAD.format("text/event-stream; charset=utf-8") + "Transfer-Encoding: chunked\r\n\r\n").encode()
    + chunk(_events()[0]),
    b"".join(chunk(event) for event in _events()[1:6]),
    b"".join(chunk(event) for event in _events()[6:]) + b"0\r\n\r\n",
)


def request(token: str, *, stream: bool) -> bytes:
    """A whole request for a short answer, as the api engine makes it."""
    ask = {"model": MODEL, "max_tokens": 256, "messages": [{"role": "user", "content": _TEXT * 10}], "stream": stream}
    body = json.dumps(ask).encode()
    head = (
        f"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nx-api-key: {token}\r\nanthropic-version: 2023-06-01\r\n"
        f"content-type: application/json\r\naccept: */*\r\nuser-agent: benchmark\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Gathering(asyncio.Protocol):
    """Collects bytes until a message is whole."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (sockets have no other kind)
        self.transport = transport

    def whole(self) -> bool:
        """Whether `data` ends a message: by its length, or by its last chunk."""
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found:
            return False
        lower = head.lower()
        at = lower.find(b"content-length:")
        if at < 0:
            return body.endswith(b"0\r\n\r\n")
        return len(body) >= int(lower[at + 15 :].split(b"\r\n", 1)[0])


class Upstream(Gathering):
    """Answers each request with canned bytes; a stream's pieces in turns of the loop of their own."""

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self.data += data
        if not self.whole() or self.transport is None:
            return
        stream = b'"stream": true' in self.data
        self.data = b""
        if not stream:
            self.transport.write(PLAIN)
            return
        loop = asyncio.get_running_loop()
        self.transport.write(STREAM[0])
        loop.call_soon(self.transport.write, STREAM[1])
        loop.call_soon(loop.call_soon, self.transport.write, STREAM[2])


class Client(Gathering):
    """One connection with one request at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._done: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self.data += data
        if self.whole() and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(exc or ConnectionError("the server hung up"))

    async def ask(self, request: bytes) -> float:
        """Send `request`; the seconds until its answer has ended. RuntimeError where that is no success."""
        if self.transport is None:
            raise RuntimeError("not connected")
        self._done = asyncio.get_running_loop().create_future()
        self.data = b""
        started = time.perf_counter()
        self.transport.write(request)
        await self._done
        took = time.perf_counter() - started
        if not self.data.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"not answered: {self.data[:500]!r}")
        return took
