"""`jada-agent serve`: assembles the parts, serves until SIGTERM, then drains."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from farmhand import __version__
from farmhand.agent import systemd
from farmhand.agent.config import Config
from farmhand.agent.engines.api import ApiEngine
from farmhand.agent.engines.cli import CliEngine
from farmhand.agent.http.connection_limit import limited
from farmhand.agent.http.server import AgentServer
from farmhand.agent.scheduler import Scheduler
from farmhand.agent.store import damage
from farmhand.agent.store.damage import LedgerDamaged
from farmhand.agent.store.ledger import Ledger
from farmhand.agent.store.retention import Retention
from farmhand.core.errors import NotConfigured
from farmhand.meter import Meter, MeterServer, Upstream
from farmhand.meter.message_batches import MessageBatches

log = logging.getLogger("jada-agent")
#: File modes of sockets that the daemon creates itself, without systemd. Only the meter's is open to other users.
_MODES = {"agent": 0o600, "meter": 0o666}
#: Connections per user at a time. All ssh calls share one user, the dispatch account; each sandbox has its own.
_PER_UID = {"agent": 512, "meter": 64}
_BACKLOG = 1024
#: How long open requests may continue when the daemon stops, in seconds.
_PATIENCE_S = 2.0
#: Checking a large ledger can take longer than the unit's start timeout.
_CHECKING = "EXTEND_TIMEOUT_USEC=60000000\nSTATUS=looking at the ledger"


def _socket(config: Config, inherited: dict[str, socket.socket], name: str) -> socket.socket:
    """Return the named socket from systemd, or create one in `runtime_dir`."""
    if name in inherited:
        return inherited[name]
    path = Path(config.runtime_dir) / f"{name}.sock"
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
    except OSError as error:
        raise NotConfigured(f"{path}: {error.strerror}", hint="check runtime_dir") from None
    path.chmod(_MODES[name])
    return listener


@asynccontextmanager
async def _listening(
    server: web.Server, config: Config, inherited: dict[str, socket.socket], name: str
) -> AsyncIterator[None]:
    # A connection that arrives at a full backlog fails: with Unix sockets the client does not wait.
    listening = await asyncio.get_running_loop().create_server(
        limited(server, _PER_UID[name]), sock=_socket(config, inherited, name), backlog=_BACKLOG
    )
    try:
        yield
    finally:
        listening.close()


async def _open_ledger(config: Config) -> Ledger:
    path = _ledger_path(config)
    try:
        rescued = damage.heed(path)
        ledger = Ledger(path, beat=partial(systemd.notify, _CHECKING))
        if rescued:
            await ledger.recount()
            damage.forget(path)
            log.warning("the ledger %s has taken the place of a damaged one", path)
        return ledger
    except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
        raise NotConfigured(f"{path}: {error}", hint="check state_dir and its owner") from None


def _ledger_path(config: Config) -> Path:
    return Path(config.state_dir) / "ledger.db"


def _unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Handle an exception as usual, but skip LedgerDamaged, which is reported once at the end."""
    if not isinstance(context.get("exception"), LedgerDamaged):
        loop.default_exception_handler(context)


async def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raise LedgerDamaged at once if the ledger is damaged."""
    try:
        await _serve(config)
    except LedgerDamaged as damaged:
        damage.note(damaged, _ledger_path(config))
        raise


async def _serve(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_unhandled)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    inherited = systemd.inherited_sockets()
    async with AsyncExitStack() as stack:
        ledger = await _open_ledger(config)
        stack.callback(ledger.close)
        ledger.alarm.on_damage = partial(loop.call_soon_threadsafe, stop.set)
        tls = config.ssl_context()
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=tls, limit=0),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        )
        upstream = Upstream(config.upstream_url, tls=tls, idle_s=config.idle_s)
        stack.callback(upstream.close)
        meter = Meter(upstream, price=config.prices().cost)
        cli = CliEngine(config, meter.grants)
        stack.callback(cli.close)
        await cli.clear()
        provider = MessageBatches(session, config.upstream_url, idle_s=config.idle_s, errors=meter.errors)
        scheduler = Scheduler(config, ledger, {"api": ApiEngine(meter), "cli": cli}, provider)
        await scheduler.recover()
        meter_server = MeterServer(meter)
        stack.push_async_callback(meter_server.close, _PATIENCE_S)
        await stack.enter_async_context(_listening(meter_server, config, inherited, "meter"))
        app = AgentServer(scheduler, meter.limits, meter.errors).app()
        # handler_cancellation: stop handling the request of a client that has disconnected.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=_PATIENCE_S)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        assert runner.server is not None  # noqa: S101  (setup has made it)
        await stack.enter_async_context(_listening(runner.server, config, inherited, "agent"))
        for name, work in (("retention", Retention(config, ledger).run()), ("watchdog", systemd.watchdog())):
            stack.callback(asyncio.create_task(work, name=name).cancel)
        systemd.notify("READY=1\nSTATUS=serving")
        log.info("jada-agent %s serves; upstream %s", __version__, config.upstream_url)
        await stop.wait()
        if ledger.alarm.damage is None:
            systemd.notify("STOPPING=1\nSTATUS=draining")
            log.info("stopping")
            await scheduler.stop(config.drain_s)
        else:
            systemd.notify("STOPPING=1\nSTATUS=the ledger is damaged")
            await scheduler.stop(0)
        if ledger.alarm.damage is not None:
            raise ledger.alarm.damage
