"""`jada-agent serve`: assembles the parts, serves until SIGTERM, then drains."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from farmhand import __version__, telemetry
from farmhand.agent.config import Config
from farmhand.agent.engines.api import ApiEngine
from farmhand.agent.engines.cli import CliEngine
from farmhand.agent.http.auth import limited
from farmhand.agent.http.server import AgentServer
from farmhand.agent.scheduler import Scheduler
from farmhand.agent.store import damage
from farmhand.agent.store.damage import LedgerDamaged
from farmhand.agent.store.ledger import Ledger
from farmhand.agent.store.retention import Retention
from farmhand.core import systemd
from farmhand.core.errors import NotConfigured
from farmhand.core.trace_context import traces_url
from farmhand.meter.http_server import MeterServer
from farmhand.meter.message_batches import MessageBatches
from farmhand.meter.meter import Meter
from farmhand.meter.upstream import Upstream

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


def _socket(config: Config, name: str) -> socket.socket:
    path = Path(config.runtime_dir) / f"{name}.sock"
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
    except OSError as error:
        raise NotConfigured(f"{path}: {error.strerror or error}", hint="check runtime_dir") from None
    path.chmod(_MODES[name])
    return listener


@contextmanager
def _alone(state_dir: Path) -> Iterator[None]:
    """Keep a second agent from this ledger: it would take the first one's tasks for those of a crash, and run them."""
    try:
        lock = (state_dir / "agent.lock").open("a")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise NotConfigured(f"another agent uses {state_dir}", hint="stop it first") from None
    except OSError as error:
        raise NotConfigured(f"{state_dir}: {error.strerror}", hint="check state_dir and its owner") from None
    with lock:
        yield


async def _open_ledger(path: Path) -> Ledger:
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


def _unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Handle an exception as usual, but skip LedgerDamaged, which is reported once at the end."""
    if not isinstance(context.get("exception"), LedgerDamaged):
        loop.default_exception_handler(context)


async def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raise LedgerDamaged at once if the ledger is damaged."""
    path = Path(config.state_dir) / "ledger.db"
    try:
        with _alone(path.parent):
            await _serve(config, path)
    except LedgerDamaged as damaged:
        damage.note(damaged, path)
        raise


async def _serve(config: Config, path: Path) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_unhandled)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    inherited = systemd.inherited_sockets()
    async with AsyncExitStack() as stack:

        async def listen(server: web.Server, name: str) -> None:
            listener = inherited.get(name) or _socket(config, name)
            # A connection that arrives at a full backlog fails: with Unix sockets the client does not wait.
            listening = await loop.create_server(limited(server, _PER_UID[name]), sock=listener, backlog=_BACKLOG)
            stack.callback(listening.close)

        tracing = None
        if traces_url(config.otel_endpoint):
            say, certificates = log.warning, config.ca_file
            tracing = telemetry.begin(config.otel_endpoint, "jada-agent", "farm", say=say, ca_file=certificates)
            stack.callback(tracing.close)
        ledger = await _open_ledger(path)
        stack.callback(ledger.close)
        ledger.alarm.on_damage = partial(loop.call_soon_threadsafe, stop.set)
        upstream = Upstream(config.upstream_url, tls=config.ssl_context(), idle_s=config.idle_s)
        stack.callback(upstream.close)
        meter = Meter(upstream, price=config.prices().cost)
        cli = CliEngine(config, meter.grants)
        stack.callback(cli.sandboxes.close)
        await cli.sandboxes.clear()
        provider = MessageBatches(upstream, meter.errors)
        scheduler = Scheduler(config, ledger, {"api": ApiEngine(meter), "cli": cli}, provider)
        scheduler.context.tracing = tracing
        await scheduler.recover()
        meter_server = MeterServer(meter)
        stack.push_async_callback(meter_server.close, _PATIENCE_S)
        await listen(meter_server, "meter")
        app = AgentServer(scheduler, meter).app()
        # handler_cancellation: stop handling the request of a client that has disconnected.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=_PATIENCE_S)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        assert runner.server is not None  # noqa: S101  (setup has made it)
        await listen(runner.server, "agent")
        for name, work in (("retention", Retention(config, ledger).run()), ("watchdog", systemd.watchdog())):
            stack.callback(asyncio.create_task(work, name=name).cancel)
        systemd.notify("READY=1\nSTATUS=serving")
        log.info("jada-agent %s serves; upstream %s", __version__, config.upstream_url)
        await stop.wait()
        damaged = ledger.alarm.damage is not None
        systemd.notify(f"STOPPING=1\nSTATUS={'the ledger is damaged' if damaged else 'draining'}")
        log.info("stopping")
        await scheduler.stop(0 if damaged else config.drain_s)
        if ledger.alarm.damage is not None:
            raise ledger.alarm.damage
