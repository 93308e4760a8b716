"""One turn from its request to its end: read, decided, answered in the client's dialect, counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Protocol

import msgspec
from aiohttp import web

from farmhand.gateway import advice, classify, policy
from farmhand.gateway.backends import BackendError, Reply
from farmhand.gateway.backends.local import LocalBackend
from farmhand.gateway.dialects import chat, errors, from_chat, messages
from farmhand.gateway.ledger import GatewayLedger, new_id
from farmhand.gateway.metrics import GatewayMetrics
from farmhand.gateway.session import Sessions
from farmhand.gateway.stream import Pings, Stream
from farmhand.gateway.tables import GatewayConfig
from farmhand.gateway.turn import BackendState, CannotCarry, Decision, Dialect, Turn

#: Turns that are answered at once; the next one is told to come again.
MAX_TURNS = 256
#: Seconds for which the head of a streamed answer waits for the backend, so that a quick refusal keeps its status.
HOLD_S = 10.0
_READERS = {"messages": messages.read, "chat": chat.read}


class BodyReader(Protocol):
    """What reads a request's body: see `HttpServer`."""

    async def read(self, request: web.BaseRequest) -> bytes:
        """Return the whole body."""

    def release(self, request: web.BaseRequest) -> None:
        """Release the room of the body."""


class Setup(msgspec.Struct, frozen=True):
    """What a reload replaces as a whole: the settings and the backends, in the file's order."""

    config: GatewayConfig
    backends: Mapping[str, LocalBackend]

    def states(self) -> list[BackendState]:
        """Return the states of all backends, also of those that are off."""
        return [backend.state() for backend in self.backends.values()] + list(self.config.closed())


class Answering:
    """Answers turns. A turn keeps the `setup` with which it began."""

    def __init__(self, setup: Setup, ledger: GatewayLedger) -> None:
        self.setup = setup
        self.ledger = ledger
        self.metrics = GatewayMetrics(lambda: self.setup.states(), lambda: self.open_turns)
        self.open_turns = 0
        self.draining = False
        self._sessions = Sessions()
        self._pings = Pings()
