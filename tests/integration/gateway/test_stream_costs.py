"""What an open stream holds while it waits: no timer and no task of its own, no room of turns that have to be read."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

import pytest

from farmhand.gateway import answering, client_stream
from farmhand.gateway.server import MAX_CONNECTIONS
from tests.support.gateway import GatewayProcess
from tests.support.gateway_inside import all_end, between, opened, request
from tests.support.local_server import END, SSE, LocalServerPlay, delta, until
from tests.support.raw_http import send

_STREAMS = 12


def _work(prefix: str) -> list[str]:
    """The running tasks whose code is below a directory of the project."""
    found = (task.get_coro() for task in asyncio.all_tasks())
    return [coro.__qualname__ for coro in found if prefix in coro.cr_code.co_filename]  # type: ignore[union-attr]


async def test_one_timer_keeps_all_streams_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_stream, "SILENCE_S", 0.0)
    monkeypatch.setattr(client_stream, "LOOK_S", 3600.0)  # it does not fire by itself
    go = asyncio.Event()

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + delta("one"))
        await go.wait()
        writer.write(END)
        await writer.drain()

    async with between(tmp_path, play, slots="64") as (inside, _):
        pings = inside.answering._pings
        before = _work("/farmhand/gateway/")
        streams = [await opened(inside, request(inside)) for _ in range(_STREAMS)]
        for reader, _writer in streams:
            assert b"event: ping" not in await reader.readuntil(b'"one"')
            await reader.readuntil(b"\n\n")
        timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
        looks = [timer for timer in timers if getattr(timer._callback, "__self__", None) is pings]
        assert looks == [pings._timer]
        assert _work("/farmhand/gateway/") == before
        # One look, and each of them has its ping.
        looks[0].cancel()
        pings._look()
        for reader, _writer in streams:
            await asyncio.wait_for(reader.readuntil(b"event: ping"), 60)
        go.set()
        for reader, writer in streams:
            assert b"message_stop" in await reader.readuntil(b"0\r\n\r\n")
            writer.close()
        await until(lambda: not pings._open)


async def test_streams_that_have_begun_leave_the_places_of_waiting_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "MAX_TURNS", 2)
    go = asyncio.Event()

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        begins = b"not yet" not in local.turns[-1]
        if begins:
            writer.write(SSE + delta("one"))
        await go.wait()
        writer.write(END if begins else SSE + END)
        await writer.drain()

    async with between(tmp_path, play, slots="64") as (inside, _):
        streams = []
        for _number in range(_STREAMS):
            reader, writer = await opened(inside, request(inside))
            await reader.readuntil(b'"one"')
            streams.append((reader, writer))
        assert inside.answering.open_turns == _STREAMS
        waiting = request(inside, messages=[{"role": "user", "content": "not yet"}])
        streams += [await opened(inside, waiting) for _number in range(2)]
        await until(lambda: inside.answering.open_turns == _STREAMS + 2)
        busy = await send(inside.port, request(inside))
        assert (busy.status, busy.headers["retry-after"]) == (503, "1")
        go.set()
        await all_end(inside, streams)


async def test_it_may_open_as_many_files_as_its_connections_need(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))  # systemd's usual limit, which a child inherits
    try:
        async with GatewayProcess(tmp_path) as gateway:
            await gateway.start()
            found, _ = resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found >= min(2 * MAX_CONNECTIONS, hard)
