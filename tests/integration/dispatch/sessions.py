"""A session at the real `farmhand mcp`, by the official SDK's client or line by line."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters

from tests.integration.dispatch.conftest import BIN, Workstation


class Said(str):
    """What a tool said; `failed` if it is an error."""

    failed = False


class McpSession:
    """The client of one server."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.progress: list[str] = []

    async def call(self, tool: str, **arguments: Any) -> Said:
        """Call a tool and return its text."""

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            self.progress.append(message or "")

        result = await self.client.call_tool(tool, arguments, progress_callback=on_progress)
        [block] = result.content
        said = Said(getattr(block, "text"))  # noqa: B009  (one of several kinds)
        said.failed = bool(result.is_error)
        return said

    async def ended(self, job_id: str) -> Said:
        """Ask for a job's result until it has ended."""
        for _ in range(24):
            said = await self.call("farm_result", id=job_id, wait_s=5)
            if " runs " not in said and "still runs" not in said:
                return said
        raise AssertionError(said)


@asynccontextmanager
async def session(
    station: Workstation, directory: Path, *, mode: str = "legacy", **more: Any
) -> AsyncIterator[McpSession]:
    """Start a server in `directory` and yield a session at it."""
    directory.mkdir(exist_ok=True)
    server = StdioServerParameters(
        command=str(BIN / "farmhand"), args=["mcp"], env=station.environment | more.pop("env", {}), cwd=directory
    )
    async with Client(server, mode=mode, **more) as client:
        yield McpSession(client)


def id_in(said: str) -> str:
    """The id of the job that a tool speaks of."""
    found = re.search(r"\b(t[0-9a-f]{21}|b[0-9a-f]{12})\b", said)
    assert found is not None, said
    return found[1]


def jobs(station: Workstation) -> Path:
    """The directory of the jobs."""
    return station.home / ".local/state/farmhand/mcp/jobs"


class RawServer:
    """A server that is fed line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def send(self, *messages: dict[str, Any] | bytes) -> None:
        """Send messages; bytes go as they are."""
        assert self.process.stdin is not None
        for message in messages:
            self.process.stdin.write(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")
        await self.process.stdin.drain()

    async def answer(self, number: int) -> dict[str, Any]:
        """Return the answer to a request; whatever comes has to be JSON-RPC."""
        assert self.process.stdout is not None
        while line := await asyncio.wait_for(self.process.stdout.readline(), 120):
            message: dict[str, Any] = json.loads(line)
            assert message["jsonrpc"] == "2.0"
            if message.get("id") == number:
                return message
        raise AssertionError("it has ended")

    async def begin(self) -> None:
        """The handshake."""
        await self.send(INITIALIZE)
        await self.answer(0)
        await self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def call(self, number: int, tool: str, **arguments: Any) -> None:
        """Call a tool."""
        await self.send(_request(number, "tools/call", {"name": tool, "arguments": arguments}))


def _request(number: int, method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


INITIALIZE = _request(
    0,
    "initialize",
    {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
)


@asynccontextmanager
async def raw(station: Workstation) -> AsyncIterator[RawServer]:
    """Start a server and yield its pipes."""
    process = await station.start("farmhand", "mcp", stdin=asyncio.subprocess.PIPE)
    try:
        server = RawServer(process)
        await server.begin()
        yield server
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
