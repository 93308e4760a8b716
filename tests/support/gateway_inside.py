"""The gateway in the test's own process, where a test can shorten its times and look at its parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from farmhand.gateway.answering import Answering
from farmhand.gateway.config import parse
from farmhand.gateway.guard import Guard
from farmhand.gateway.ledger import GatewayLedger
from farmhand.gateway.server import GatewayServer
from farmhand.gateway.service import Backends
from tests.support.gateway import free_port

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


@asynccontextmanager
async def gateway_inside(directory: Path, settings: str = "") -> AsyncIterator[GatewayInside]:
    """Serve with the settings of gateway.toml's text, once the local servers have been looked at."""
    port = free_port()
    ledger = GatewayLedger(directory / "gateway.db")
    backends = Backends()
    answering = Answering(backends.setup(parse(settings)), ledger)
    server = GatewayServer(Guard(TOKEN, port), answering, lambda: None)
    for backend in answering.setup.backends.values():
        await asyncio.wait_for(backend.prober.looked.wait(), 60)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", port)
    try:
        yield GatewayInside(port, answering, server)
    finally:
        listener.close()
        await server.close(0.0)
        backends.close()
        ledger.close()
