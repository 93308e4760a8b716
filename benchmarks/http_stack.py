"""Which HTTP stack the meter should have: its own, and others in its place, beside each other in one run.

Each stack serves the same `Meter` in a process of its own; what is compared is the processor time of that process for a
request. Servers: the meter's (aiohttp's low-level `web.Server`), uvicorn with a raw ASGI application. Clients: our
upstream, aiohttp's `ClientSession`. uvicorn is measured where it is installed. docs/adr/0006 has the figures.

    python -m benchmarks.http_stack [--rounds N]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import aiohttp

from benchmarks.meter import CONNECTIONS, _cpu_s, _pin, _process, _throughput
from benchmarks.raw_http import MODEL, Client
from benchmarks.raw_http import Upstream as Canned

#: Server and client of each stack.
STACKS = ("aiohttp ours", "uvicorn ours", "aiohttp aiohttp", "uvicorn aiohttp")
_RETURNED = ("content-type", "request-id", "retry-after")
_SECONDS = 1.0


class _AiohttpAnswer:
    """An answer as the meter's `UpstreamConnection` has it, read by aiohttp."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url
        self.status = 0
        self.headers: dict[str, str] = {}

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> None:
        self._answer = await self._session.request(
            method, self._url + path, data=body, headers=headers, allow_redirects=False
        )
        self.status = self._answer.status
        self.headers = {name.lower(): value for name, value in self._answer.headers.items()}

    @property
    def read_out(self) -> bool:
        return self._answer.content.at_eof()

    async def piece(self) -> bytes:
        return await self._answer.content.readany()

    def close(self) -> None:
        self._answer.release()


class _AiohttpUpstream:
    base = ""

    def __init__(self, url: str) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        self.session = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        )
        self._url = url

    async def connection(self) -> _AiohttpAnswer:
        return _AiohttpAnswer(self.session, self._url)


def _asgi(meter: Any) -> Any:
    async def left(receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        # A client that leaves ends its call: ASGI tells it to who waits for it, and to nobody else.
        answering = asyncio.create_task(answer(scope["path"], headers, body, send))
        leaving = asyncio.create_task(left(receive))
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        for task in (answering, leaving):
            task.cancel()

    async def answer(path: str, headers: dict[str, str], body: bytes, send: Any) -> None:
        grant = meter.grants.find(headers["x-api-key"])
        async with grant.turns, meter.send(grant, path, body, headers) as exchange:
            kept = [(n.encode(), v.encode()) for n, v in exchange.headers.items() if n in _RETURNED]
            piece = await exchange.piece()
            if not exchange.streamed:
                kept.append((b"content-length", str(len(piece)).encode()))
            await send({"type": "http.response.start", "status": exchange.status, "headers": kept})
            while piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                piece = await exchange.piece()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


async def _serve(stack: str, socket: str, url: str) -> None:
    """Serve the meter with this stack; print its task tokens, then go on until stdin ends."""
    from farmhand.meter import policy
    from farmhand.meter.grants import Grant, Key
    from farmhand.meter.http_server import MeterServer
    from farmhand.meter.meter import Meter
    from farmhand.meter.upstream import Upstream

    policy.MAX_REQUESTS = sys.maxsize
    server, client = stack.split()
    upstream: Any = Upstream(url) if client == "ours" else _AiohttpUpstream(url)
    meter = Meter(upstream)
    factory: Any
    if server == "uvicorn":
        from uvicorn.config import Config  # type: ignore[import-not-found,unused-ignore]
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # type: ignore[import-not-found,unused-ignore]
        from uvicorn.server import ServerState  # type: ignore[import-not-found,unused-ignore]

        config = Config(_asgi(meter), http="httptools", lifespan="off", access_log=False, server_header=False)
        config.load()
        state = ServerState()

        def factory() -> Any:
            return HttpToolsProtocol(config, state, {})
    else:
        factory = MeterServer(meter)
    await asyncio.get_running_loop().create_unix_server(factory, socket)
    grants = [Grant(task_id=str(n), key=Key("sk-ant-benchmark-0000"), model=MODEL) for n in range(CONNECTIONS)]
    print(json.dumps([meter.grants.issue(grant) for grant in grants]), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    if client == "aiohttp":
        await upstream.session.close()


async def _measure(stacks: list[str], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of processor time for a request: stack → kind → one figure for each round."""
    loop = asyncio.get_running_loop()
    upstream = await loop.create_server(Canned, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{upstream.sockets[0].getsockname()[1]}"
    taken: dict[str, dict[str, list[float]]] = {stack: {"plain": [], "streamed": []} for stack in stacks}
    with tempfile.TemporaryDirectory() as directory:
        for number in range(rounds + 1):
            for stack in stacks:
                socket = f"{directory}/{stack.replace(' ', '-')}-{number}.sock"
                async with _process("--serve", stack, socket, url, module="benchmarks.http_stack") as (child, tokens):
                    clients = [(await loop.create_unix_connection(Client, socket))[1] for _ in tokens]
                    for kind, stream in (("plain", False), ("streamed", True)):
                        await _throughput(clients, tokens, _SECONDS / 4, stream=stream)
                        before, started = _cpu_s(child.pid), loop.time()
                        rate = await _throughput(clients, tokens, _SECONDS, stream=stream)
                        requests = rate * (loop.time() - started)
                        if number:
                            taken[stack][kind].append((_cpu_s(child.pid) - before) * 1000 / requests)
    upstream.close()
    return taken


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.http_stack", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--serve", nargs=3, metavar=("STACK", "SOCKET", "UPSTREAM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        _pin(0)
        asyncio.run(_serve(*options.serve))
        return 0
    _pin(1)
    stacks = [s for s in STACKS if importlib.util.find_spec("uvicorn") or not s.startswith("uvicorn")]
    taken = asyncio.run(_measure(stacks, options.rounds))
    print(f"{'server and client':<18} {'plain, ms':>10} {'ratio':>6} {'streamed, ms':>13} {'ratio':>6}")
    for stack, kinds in taken.items():
        figures = []
        for kind in ("plain", "streamed"):
            ours = statistics.median(kinds[kind])
            figures += [ours, ours / statistics.median(taken[STACKS[0]][kind])]
        print(f"{stack:<18} {figures[0]:>10.3f} {figures[1]:>6.2f} {figures[2]:>13.3f} {figures[3]:>6.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
