"""The gateway in the test's own process, where a test can shorten its times and look at its parts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from farmhand.gateway.answering import Answering
from farmhand.gateway.backends.local import LocalBackend
from farmhand.gateway.config import parse
from farmhand.gateway.guard import Guard
from farmhand.gateway.ledger import GatewayLedger
from farmhand.gateway.server import GatewayServer
from farmhand.gateway.service import Backends
from tests.support.gateway import free_port
from tests.support.local_server import LLAMA, LocalServerPlay, Play, until
from tests.support.raw_http import RawAnswer, head, parsed

MESSAGES, CHAT, RESPONSES = "/v1/messages", "/v1/chat/completions", "/v1/responses"
TOKEN = "fhg-test-0123456789abcdefghijklmnopqrstuv"


class GatewayInside:
    """The parts, and how clients reach them."""

    def __init__(self, port: int, answering: Answering, server: GatewayServer) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.host = f"Host: 127.0.0.1:{port}"
        self.auth = f"Authorization: Bearer {TOKEN}"
        self.json = "Content-Type: application/json"
        self.answering = answering
        self.server = server


async def _no_reload() -> None:
    """Change nothing."""


@asynccontextmanager
async def gateway_inside(directory: Path, settings: str = "") -> AsyncIterator[GatewayInside]:
    """Serve with the settings of gateway.toml's text, once the local servers have been looked at."""
    port = free_port()
    ledger = GatewayLedger(directory / "gateway.db")
    backends = Backends(ledger)
    answering = Answering(backends.setup(parse(settings)), ledger)
    server = GatewayServer(Guard(TOKEN, port), answering, _no_reload)
    for backend in answering.setup.backends.values():
        if isinstance(backend, LocalBackend):
            await asyncio.wait_for(backend.prober.looked.wait(), 120)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", port)
    try:
        yield GatewayInside(port, answering, server)
    finally:
        listener.close()
        await server.close(0.0)
        backends.close()
        ledger.close()


@asynccontextmanager
async def between(directory: Path, play: Play, **settings: str) -> AsyncIterator[tuple[GatewayInside, LocalServerPlay]]:
    """A gateway before a local server that answers turns with `play`."""
    async with LocalServerPlay(LLAMA, play).serve() as local:
        more = "\n".join(f"{name} = {value}" for name, value in settings.items())
        async with gateway_inside(directory, f'[local.play]\nurl = "{local.url}"\n{more}\n') as inside:
            yield inside, local


def request(inside: GatewayInside, path: str = MESSAGES, **more: Any) -> bytes:
    """A turn, streamed unless `more` says otherwise."""
    said = [{"role": "user", "content": "hi"}]
    turn = {"model": "x", "stream": True} | ({"input": said} if path == RESPONSES else {"messages": said})
    if path == MESSAGES:
        turn["max_tokens"] = 9
    body = json.dumps(turn | more).encode()
    length = f"Content-Length: {len(body)}"
    return head("POST", path, inside.host, inside.auth, inside.json, length) + body


async def opened(inside: GatewayInside, sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection with a request on it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", inside.port)
    writer.write(sent)
    return reader, writer


async def all_end(inside: GatewayInside, streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
    """Read each stream of Messages to its end, until no turn is open."""
    for reader, writer in streams:
        assert b"message_stop" in await reader.readuntil(b"0\r\n\r\n")
        writer.close()
    await until(lambda: inside.answering.open_turns == 0)


async def whole(inside: GatewayInside, sent: bytes) -> RawAnswer:
    """The answer to a streamed turn, to the end of its body, with the chunks' sizes in it."""
    reader, writer = await opened(inside, sent)
    found = await reader.readuntil(b"0\r\n\r\n")
    writer.close()
    return parsed(found)
