"""The running server: on TCP loopback or a Unix socket."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from aiohttp import web

from tests.support.messages_api.app import build
from tests.support.messages_api.batch import Plan
from tests.support.messages_api.batches import Advance, Batches
from tests.support.messages_api.faults import BatchFault, Fault
from tests.support.messages_api.limits import Limits
from tests.support.messages_api.log import Entry
from tests.support.messages_api.rules import Rule
from tests.support.messages_api.state import DEFAULT_KEY, State


class MessagesApi:
    """`async with MessagesApi() as api:` serves on a free port of 127.0.0.1; `api.url` is the base URL.

    `listen` is `HOST:PORT` (port 0: a free one) or `unix:PATH`; `also` are further `HOST:PORT` of the same
    API. Requests still running at the end are cancelled.
    """

    def __init__(
        self,
        listen: str = "127.0.0.1:0",
        *also: str,
        keys: Iterable[str] = (DEFAULT_KEY,),
        keys_file: Path | None = None,
        latency_ms: float = 0.0,
        event_ms: float = 0.0,
        log_file: Path | None = None,
        limits: Limits | None = None,
        batch_plan: Plan | None = None,
    ) -> None:
        self._listen = listen
        self._also = also
        self.state = State(
            keys=keys,
            keys_file=keys_file,
            latency_s=latency_ms / 1000,
            event_s=event_ms / 1000,
            log_file=log_file,
            limits=limits,
        )
        self.state.batches.plan = batch_plan or Plan()
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen; sets `url`."""
        # handler_cancellation: a client that goes away ends its request, and the log says so.
        self._runner = web.AppRunner(build(self.state), handler_cancellation=True, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        if self._listen.startswith("unix:"):
            path = self._listen.removeprefix("unix:")
            await web.UnixSite(self._runner, path).start()
            self.url = f"http+unix://{path}"
            return
        for place in (self._listen, *self._also):
            host, _, port = place.rpartition(":")
            await web.TCPSite(self._runner, host.strip("[]"), int(port)).start()
        bound = self._runner.addresses[0]
        self.url = f"http://{f'[{bound[0]}]' if ':' in bound[0] else bound[0]}:{bound[1]}"

    async def stop(self) -> None:
        """Stop listening and close the log."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            if self._listen.startswith("unix:"):
                Path(self._listen.removeprefix("unix:")).unlink(missing_ok=True)
        await self.state.batches.stop()
        self.state.log.shut()

    async def __aenter__(self) -> MessagesApi:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def fault(self, *faults: Fault) -> None:
        """Queue faults."""
        self.state.faults.add(*faults)

    def batch_fault(self, *faults: BatchFault) -> None:
        """Queue faults of single requests of batches."""
        self.state.batches.faults.add(*faults)

    def limit(self, limits: Limits | None) -> None:
        """Put limits in force, with full buckets; None takes them off."""
        self.state.limits.set(limits)

    @property
    def batches(self) -> Batches:
        """The Message Batches: their plan, and all there are."""
        return self.state.batches

    async def advance(self, **what: Any) -> None:
        """Move batches on, as `Advance` says: `await api.advance(action="process", fraction=0.5)`."""
        await self.state.batches.advance(msgspec.convert(what, Advance))

    def rule(self, *rules: Rule) -> None:
        """Add scripted answers."""
        self.state.rules.add(*rules)

    @property
    def log(self) -> list[Entry]:
        """What was received, oldest first."""
        return self.state.log.entries()

    @property
    def posts(self) -> list[Entry]:
        """The requests to /v1/messages among them."""
        return [entry for entry in self.log if entry.method == "POST" and entry.path == "/v1/messages"]
