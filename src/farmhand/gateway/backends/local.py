"""A model server on this machine: Chat Completions upstream, or its own Messages API where the operator asks for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import msgspec

from farmhand.core.errors import NotConfigured
from farmhand.gateway.backends import BackendError, TurnSpent
from farmhand.gateway.carries import ChatOptions, ChatRequest
from farmhand.gateway.dialects import errors, messages, to_chat
from farmhand.gateway.health import Prober
from farmhand.gateway.policy import LOCAL
from farmhand.gateway.tables import LocalServer
from farmhand.gateway.turn import BackendState, Dialect, Turn
from farmhand.meter.upstream import Upstream, UpstreamConnection, UpstreamError

#: Seconds without a byte after which a local server counts as hung: a long prompt takes minutes before its first.
_IDLE_S = 1800.0
#: Bytes of an error that are read.
_MAX_ERROR = 64 * 1024
PATHS: dict[Dialect, str] = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}


class _Count(msgspec.Struct):
    input_tokens: int


class LocalReply:
    """An open answer of a local server; see `Reply`."""

    def __init__(self, connection: UpstreamConnection, dialect: Dialect, omitted: tuple[str, ...]) -> None:
        self.status = connection.status
        self.headers: dict[str, str] = {}
        self.dialect = dialect
        self.streamed = connection.headers.get("content-type", "").startswith("text/event-stream")
        self.omitted = omitted
        self._connection = connection

    async def pieces(self) -> AsyncIterator[bytes]:
        """Implement `Reply`."""
        try:
            while piece := await self._connection.piece():
                yield piece
        except (UpstreamError, TimeoutError) as error:
            raise BackendError(f"the local server ended its answer before its time: {error}") from None

    def spent(self) -> TurnSpent | None:
        """Implement `BackendReply`."""
        return None


class LocalBackend:
    """The local server of `[local.NAME]`; see `Backend`. `prober` has to run beside it."""

    def __init__(self, name: str, server: LocalServer, environ: Mapping[str, str] = os.environ) -> None:
        self.name = LOCAL + name
        self._server = server
        self._headers = {"accept": "*/*", "user-agent": "farmhand-gateway"}
        if server.auth_env:
            if not (key := environ.get(server.auth_env)):
                raise NotConfigured(f"[local.{name}] auth_env: {server.auth_env} is not set", hint="set or unset it")
            self._headers["authorization"] = f"Bearer {key}"
        self._upstream = Upstream(server.url, idle_s=_IDLE_S)
        self.prober = Prober(self._upstream, server.model, self._headers)
        self._places = server.slots
        self._turns = asyncio.Semaphore(server.slots)

    def state(self) -> BackendState:
        """Implement `Backend`."""
        seen = self.prober.seen
        if seen is None:
            return BackendState(name=self.name, residency="local", closed=self.prober.problem, model=self._server.model)
        vision = {"yes": True, "no": False, "auto": seen.vision}[self._server.images]
        context = self._server.context or seen.context
        return BackendState(
            name=self.name, residency="local", context=context, vision=vision, schema=seen.schema, model=seen.model
        )

    def wake(self) -> None:
        """Implement `Backend`."""
        if self.prober.seen is None:
            self.prober.soon()

    def check(self, turn: Turn) -> ChatRequest:
        """Return the request for this server. Raise CannotCarry if a part of the turn would be lost."""
        state, server = self.state(), self._server
        options = ChatOptions(
            model=state.model,
            vision=state.vision,
            schema=state.schema,
            prefill=state.prefill,
            mid_system=server.mid_system,
            omit_hosted_tools=server.omit_hosted_tools,
            extra_body=server.extra_body,
        )
        return (messages.native_request if self.native(turn) else to_chat.request)(turn, options)

    def native(self, turn: Turn) -> bool:
        """Return whether a turn goes to the server's own Messages API: it has to be of that dialect itself."""
        return self._server.dialect == turn.dialect == "messages"

    @asynccontextmanager
    async def answer(self, turn: Turn) -> AsyncIterator[LocalReply]:
        """Implement `Backend`. It waits for a free slot. Once the answer's head is in, nothing holds the request."""
        dialect: Dialect = "messages" if self.native(turn) else "chat"
        made = self.check(turn)
        omitted = made.omitted
        sent = self._upstream.request(
            "POST", PATHS[dialect], self._headers | {"content-type": "application/json"}, made.body
        )
        del made
        while self.prober.seen is not None and self._places < self.prober.seen.slots:
            self._places += 1
            self._turns.release()
        try:
            async with self._turns, sent as connection:
                turn.release()
                if connection.status != 200:
                    raise await self._problem(connection, same=dialect == turn.dialect)
                yield LocalReply(connection, dialect, omitted)
        except (UpstreamError, TimeoutError) as error:
            self.prober.soon()
            raise BackendError(f"{self.name} does not answer: {str(error).lower()}") from None

    async def _problem(self, connection: UpstreamConnection, *, same: bool) -> BackendError:
        """Return the error for an answer other than 200. `same`: the client speaks the dialect, and gets its words."""
        if connection.status < 400:
            # Such as a redirect, which is never followed: a local turn stays on this machine.
            words = f"{self.name} answered HTTP {connection.status}, which is no answer to a turn"
            return BackendError(words, code="local_server")
        problem = errors.from_server(connection.status, await connection.read(_MAX_ERROR))
        if not same:
            problem.body = b""
        if connection.status == 503:
            self.prober.soon()
        return problem

    async def count(self, turn: Turn) -> int | None:
        """Return the input tokens of a Messages request as the server counts them; None if it cannot."""
        if self.prober.seen is None or self.prober.seen.kind != "llama.cpp":
            return None
        headers = self._headers | {"content-type": "application/json"}
        body = msgspec.json.encode(turn.fields)
        try:
            async with self._upstream.request("POST", "/v1/messages/count_tokens", headers, body) as connection:
                text = await connection.read(_MAX_ERROR)
                return msgspec.json.decode(text, type=_Count).input_tokens if connection.status == 200 else None
        except (UpstreamError, TimeoutError, msgspec.DecodeError):
            return None

    def close(self) -> None:
        """Close the idle connections."""
        self._upstream.close()
