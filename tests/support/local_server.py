"""A local model server that does exactly what a test wants, for what the real llama.cpp does only by chance."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

#: What it answers to a turn, whose body is the last of `turns`.
Play = Callable[["LocalServerPlay", asyncio.StreamWriter], Awaitable[None]]
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def until(condition: Callable[[], bool]) -> None:
    """Poll with patience."""
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen")


def chunk(data: bytes) -> bytes:
    """One chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def delta(text: str, finish: str | None = None) -> bytes:
    """An event of a Chat stream, as a chunk of the body."""
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return chunk(b"data: " + json.dumps(event).encode() + b"\n\n")


def call_delta(arguments: str, name: str = "") -> bytes:
    """A fragment of a tool call; the first one has the name."""
    start = {"id": "call_1", "type": "function"} if name else {}
    call = start | {"index": 0, "function": {"arguments": arguments} | ({"name": name} if name else {})}
    choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}
    return chunk(b"data: " + json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode() + b"\n\n")


#: The end of a Chat stream and of its body.
END = delta("", "stop") + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class LocalServerPlay:
    """A server on loopback. `answers` is path → JSON for GET; `play` answers turns."""

    def __init__(self, answers: dict[str, Any], play: Play | None = None) -> None:
        self.answers = answers
        self.play = play
        self.url = ""
        #: Paths asked for, and the bodies of turns.
        self.asked: list[str] = []
        self.turns: list[bytes] = []
        #: The headers of each request, names in lower case.
        self.heads: list[dict[str, str]] = []
        #: Set when the gateway has closed a turn's connection.
        self.left = asyncio.Event()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[LocalServerPlay]:
        """Listen."""
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                path = head.split(" ", 2)[1]
                length = next((line for line in head.lower().split("\r\n") if line.startswith("content-length:")), ":0")
                body = await reader.readexactly(int(length.partition(":")[2]))
                self.asked.append(path)
                lines = [line.partition(":") for line in head.split("\r\n")[1:]]
                self.heads.append({name.lower(): value.strip() for name, _, value in lines})
                if path in ("/v1/chat/completions", "/v1/messages") and self.play is not None:
                    self.turns.append(body)
                    del body
                    watch = asyncio.create_task(self._watch(reader))
                    await self.play(self, writer)
                    watch.cancel()
                    return
                found = self.answers.get(path)
                text = json.dumps(found if found is not None else {"error": "no such path"}).encode()
                status = "200 OK" if found is not None else "404 Not Found"
                writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(text)}\r\n\r\n".encode() + text)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            self.left.set()
        finally:
            writer.close()

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            await reader.read(1)
        self.left.set()


#: What llama.cpp answers to a look at it, as far as it is looked at.
LLAMA = {
    "/v1/models": {"data": [{"id": "m", "owned_by": "llamacpp"}]},
    "/props": {"default_generation_settings": {"n_ctx": 4096}, "modalities": {"vision": False}, "total_slots": 1},
}
