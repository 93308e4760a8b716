"""A thousand streams at once through the gateway's own process, with its real times."""

from __future__ import annotations

import asyncio
import json
import resource
from contextlib import AsyncExitStack
from pathlib import Path

from tests.support.gateway import GatewayProcess
from tests.support.local_server import END, LLAMA, SSE, LocalServerPlay, delta

STREAMS = 1000
#: Each with a body like a harness's.
BODY_BYTES = 50_000
PINGS = {"messages": b"event: ping\n", "chat/completions": b": ping\n\n", "responses": b": ping\n\n"}


class Stream:
    """One client, and how many pings it got."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ping: bytes) -> None:
        self.reader = reader
        self.writer = writer
        self.ping = ping
        self.begun = asyncio.Event()
        self.pinged = asyncio.Event()
        self.ended = asyncio.Event()
        self.seen = b""
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while piece := await self.reader.read(65536):
            self.seen += piece
            if b"one" in self.seen:
                self.begun.set()
            if self.seen.count(self.ping) >= 2:
                self.pinged.set()
            if self.seen.endswith(b"0\r\n\r\n"):
                self.ended.set()
                return


async def test_a_thousand_idle_streams_get_their_pings_and_cost_little(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        local.turns.clear()
        writer.write(SSE + delta("one"))
        await go.wait()
        writer.write(delta("two") + END)
        await writer.drain()

    async with AsyncExitStack() as stack:
        props: dict[str, object] = {"default_generation_settings": {"n_ctx": 4096}, "total_slots": STREAMS}
        says = {**LLAMA, "/props": props}
        server = await stack.enter_async_context(LocalServerPlay(says, play).serve())
        settings = f'[local.play]\nurl = "{server.url}"\ncontext = 200000\n'
        gateway = await stack.enter_async_context(GatewayProcess(tmp_path, settings))
        # As in a shell: a stream needs two files, and 1,024 are not enough.
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        await gateway.start()
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        await gateway.until_up("local:play")
        streams = [await _opened(gateway, path) for path in PINGS]
        await asyncio.gather(*(stream.begun.wait() for stream in streams))
        before = gateway.memory()
        for number in range(STREAMS - len(streams)):
            streams.append(await _opened(gateway, [*PINGS][number % len(PINGS)]))
            # As many as are told to wait are let in; none is sent away.
            if number % 100 == 99:
                await asyncio.wait_for(streams[-100].begun.wait(), 120)
        await asyncio.wait_for(asyncio.gather(*(stream.begun.wait() for stream in streams)), 120)
        grown = gateway.memory() - before
        # 43 KB each here. Were the bodies held, it would be more than 95.
        assert grown < 75_000_000, f"{grown / STREAMS / 1000:.1f} KB for each stream"
        began = gateway.cpu_s()
        await asyncio.wait_for(asyncio.gather(*(stream.pinged.wait() for stream in streams)), 120)
        assert gateway.cpu_s() - began < 3
        assert (await gateway.status())["open_turns"] == STREAMS
        go.set()
        await asyncio.wait_for(asyncio.gather(*(stream.ended.wait() for stream in streams)), 120)
        assert all(b"two" in stream.seen for stream in streams)
        for stream in streams:
            stream.writer.close()


async def _opened(gateway: GatewayProcess, path: str) -> Stream:
    said = [{"role": "user", "content": "x" * BODY_BYTES}]
    words = {"input": said} if path == "responses" else {"messages": said}
    limit = {"max_tokens": 9} if path == "messages" else {}
    body = json.dumps({"model": "farmhand/chat", "stream": True, **words, **limit}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = f"POST /v1/{path} HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\nAuthorization: Bearer {gateway.token}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    return Stream(reader, writer, PINGS[path])
