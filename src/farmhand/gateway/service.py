"""`farmhand gateway serve`: assembles the parts, serves until SIGTERM, reloads at SIGHUP, and drains."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from farmhand import __version__, telemetry
from farmhand.core import systemd
from farmhand.core.errors import FarmhandError, NotConfigured
from farmhand.core.prices import PriceTable, price_table
from farmhand.core.readable import counted
from farmhand.gateway import config as settings
from farmhand.gateway import ledger
from farmhand.gateway.answering import Answering
from farmhand.gateway.backends import Backend
from farmhand.gateway.backends.local import LocalBackend
from farmhand.gateway.backends.metered_setup import MeteredSetup, key_of
from farmhand.gateway.backends.plan_turns import PlanTurns
from farmhand.gateway.backends.subscription import SubscriptionBackend
from farmhand.gateway.guard import Guard, token_of
from farmhand.gateway.server import MAX_CONNECTIONS, GatewayServer
from farmhand.gateway.setup import Setup
from farmhand.gateway.tables import GatewayConfig, LocalServer, SubscriptionTable
from farmhand.meter.grants import Key
from farmhand.subscription.terms import TERMS

if TYPE_CHECKING:
    from farmhand.telemetry.spans import Tracing

#: Seconds that running turns have when the gateway stops.
DRAIN_S = 30.0
#: Seconds that the first look at the local servers may delay the start.
_FIRST_LOOK_S = 0.5
_BACKLOG = 1024
#: Open files that the gateway can need: a stream has two connections. systemd's usual limit is 1,024.
_FILES = 2 * MAX_CONNECTIONS + 256
log = logging.getLogger("farmhand-gateway")

_Plan = tuple[SubscriptionTable, SubscriptionBackend]


class Backends:
    """The backends of the settings in force, each with the task that looks at its server."""

    def __init__(self, book: ledger.GatewayLedger, tracing: Tracing | None = None) -> None:
        self._made: dict[str, tuple[LocalServer, LocalBackend, asyncio.Task[None]]] = {}
        #: Backends that settings to come will add, whose servers have been looked at.
        self._ready: dict[str, LocalBackend] = {}
        self._plan: _Plan | None = None
        self._ready_plan: _Plan | None = None
        self._plan_turns = PlanTurns(book)
        self._retired: list[SubscriptionBackend] = []
        self._metered = MeteredSetup(book, tracing=tracing)
        self._ready_key: Key | None = None

    async def prepare(self, config: GatewayConfig) -> None:
        """Make what `config` adds, so that it can take turns as soon as it is in force. Raise NotConfigured or Refused.

        The new local servers are looked at, the CLI of the plan is asked who pays, and the key is read. Each may take
        its time.
        """
        if self._metered.pays(config.metered):
            self._ready_key = await asyncio.to_thread(key_of, config.metered)
        made = {name: server for name, (server, _, _) in self._made.items()}
        new = {name: server for name, server in config.local.items() if made.get(name) != server}
        self._ready = {name: LocalBackend(name, server) for name, server in new.items()}
        looks = [asyncio.create_task(backend.prober.look()) for backend in self._ready.values()]
        self._ready_plan = await asyncio.to_thread(self._planned, config.subscription)
        if looks:
            _, late = await asyncio.wait(looks, timeout=_FIRST_LOOK_S)
            for look in late:
                look.cancel()

    def discard(self) -> None:
        """Close what was prepared for settings that are not in force: they were refused."""
        ready, self._ready = self._ready, {}
        for backend in ready.values():
            backend.close()
        plan, self._ready_plan, self._ready_key = self._ready_plan, None, None
        if plan is not None and plan is not self._plan:
            plan[1].close()

    def setup(self, config: GatewayConfig, prices: PriceTable | None = None) -> Setup:
        """Return what `config` says, with the backends that stay as they are, and the shipped prices unless given.

        Raise NotConfigured or Refused, with no change.
        """
        kept = {name: made for name, made in self._made.items() if config.local.get(name) == made[0]}
        ready = self._ready_plan
        plan = ready if ready is not None and ready[0] == config.subscription else self._planned(config.subscription)
        # It is the last that can fail.
        prices = prices or price_table()
        metered, self._ready_key = self._metered.made(config.metered, prices, self._ready_key), None
        self._take(plan)
        new = {name: server for name, server in config.local.items() if name not in kept}
        fresh = {name: self._ready.get(name) or LocalBackend(name, server) for name, server in new.items()}
        self._ready = {}
        for name, (_, backend, task) in self._made.items():
            if name not in kept:
                # Turns that it still answers go on.
                task.cancel()
                backend.close()
        made = {name: (config.local[name], one, asyncio.create_task(one.prober.run())) for name, one in fresh.items()}
        self._made = {name: (kept | made)[name] for name in config.local}
        backends: list[Backend] = [backend for _, backend, _ in self._made.values()]
        backends += [one for one in (plan and plan[1], metered) if one is not None]
        return Setup(config, {backend.name: backend for backend in backends}, prices)

    def _planned(self, table: SubscriptionTable) -> _Plan | None:
        """Return the backend of the plan, if it is enabled: the one that is there, if its table is the same.

        A new one asks the CLI, which takes about a second, and more on a busy machine. Raise NotConfigured or Refused.
        """
        if not table.enabled or (self._plan is not None and self._plan[0] == table):
            return self._plan if table.enabled else None
        return table, SubscriptionBackend(table, self._plan_turns)

    def _take(self, plan: _Plan | None) -> None:
        """Let this be the backend of the plan; the one before ends with its turns."""
        before, self._plan, self._ready_plan = self._plan, plan, None
        if plan is not before:
            if plan is not None:
                self._plan_turns.use(plan[1].account)
                log.warning("the subscription is on. %s", TERMS)
            if before is not None:
                before[1].close()
                self._retired.append(before[1])
        self._plan_turns.reopen()

    async def looked(self) -> None:
        """Wait until each server was asked, but not for long."""
        looks = [asyncio.create_task(backend.prober.looked.wait()) for _, backend, _ in self._made.values()]
        if looks:
            _, late = await asyncio.wait(looks, timeout=_FIRST_LOOK_S)
            for look in late:
                look.cancel()

    def close(self) -> None:
        """Look at no server any more."""
        self._metered.close()
        self.setup(GatewayConfig())

    async def closed(self) -> None:
        """Wait until what the backends have started has ended, after `close`."""
        for backend in self._retired:
            await backend.closed()


class Service:
    """The gateway with the settings of the file `path`, and the operator's own prices, whose file need not exist.

    `otel_endpoint` is where spans of metered turns go, "" for none.
    """

    def __init__(self, path: Path, prices: Path, otel_endpoint: str = "") -> None:
        self._path = path
        self._otel_endpoint = otel_endpoint
        # It is read again at a reload.
        self._prices: Callable[[], PriceTable] = lambda: price_table.__wrapped__(prices)
        self._backends: Backends
        self._config = settings.load(path)
        self._guard = Guard(token_of(self._config.token_path), self._config.address[1])
        self._answering: Answering
        self._reloading = asyncio.Lock()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain. Raise NotConfigured if it cannot start."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if 0 <= soft < _FILES:
            most = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        config = self._config
        async with AsyncExitStack() as stack:
            book = ledger.GatewayLedger(ledger.default_path())
            stack.callback(book.close)
            tracing = None
            if self._otel_endpoint:
                tracing = telemetry.begin(self._otel_endpoint, "farmhand-gateway", "gateway", say=log.warning)
                stack.callback(tracing.close)
            self._backends = Backends(book, tracing)
            self._answering = Answering(self._backends.setup(config, self._prices()), book)
            stack.push_async_callback(self._backends.closed)
            stack.callback(self._backends.close)
            server = GatewayServer(self._guard, self._answering, self.reload)
            stack.push_async_callback(server.close, 0.0)
            await self._backends.looked()
            host, port = config.address
            try:
                listener = await loop.create_server(server, host, port, backlog=_BACKLOG)
            except OSError as error:
                taken = error.errno == errno.EADDRINUSE
                reason = "another process listens there" if taken else error.strerror
                hint = "is a gateway running already? farmhand gateway status"
                raise NotConfigured(f"cannot listen on {config.listen}: {reason}", hint=hint) from None
            stack.callback(listener.close)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop.set)
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
            systemd.notify("READY=1\nSTATUS=serving")
            log.info("farmhand gateway %s listens on %s", __version__, config.listen)
            await stop.wait()
            systemd.notify("STOPPING=1\nSTATUS=draining")
            log.info("stopping; %s open", counted(self._answering.open_turns, "turn is", "turns are"))
            listener.close()
            await self._answering.drain(DRAIN_S)

    async def reload(self) -> None:
        """Read settings and token again and swap them whole. Raise FarmhandError with the old ones in force.

        It goes on if the caller leaves.
        """
        await asyncio.shield(asyncio.create_task(self._reload()))

    async def _reload(self) -> None:
        async with self._reloading:
            self._answering.metrics.reloaded(ok=False)
            config = settings.load(self._path)
            if config.listen != self._config.listen:
                raise NotConfigured("listen has changed, which needs a restart", hint="restart the gateway")
            token, prices = token_of(config.token_path), self._prices()
            try:
                await self._backends.prepare(config)
                self._answering.setup = self._backends.setup(config, prices)
            except BaseException:
                self._backends.discard()
                raise
            self._guard.use(token)
            self._config = config
            self._answering.metrics.reloaded(ok=True)
            log.info("read %s again", self._path)

    def _on_hangup(self) -> None:
        self._hung_up = asyncio.create_task(self._reload_or_say())

    async def _reload_or_say(self) -> None:
        try:
            await self.reload()
        except FarmhandError as error:
            log.error("the old settings stay in force: %s", error)
