"""One turn from its request to its end: read, decided, answered in the client's dialect, counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any, Protocol

import msgspec
from aiohttp import web

from farmhand.core.task import Usage
from farmhand.gateway import advice, classify, policy
from farmhand.gateway.backends import (
    FAILED,
    Backend,
    BackendError,
    BackendReply,
    Declined,
    NoRoom,
    PaidBackend,
    TurnSpent,
)
from farmhand.gateway.backends.metered import MeteredBackend
from farmhand.gateway.backends.metered_setup import AllowRequest, open_for
from farmhand.gateway.client_stream import ClientStream, Pings
from farmhand.gateway.dialects import chat, errors, from_chat, from_messages, messages, native, responses, unstreamed
from farmhand.gateway.dialects.from_chat import AnswerStream
from farmhand.gateway.dialects.native import NativeStream
from farmhand.gateway.dialects.parts import ChatUsage
from farmhand.gateway.labels import headers_of
from farmhand.gateway.ledger import DecisionRecord, GatewayLedger, TurnCharge, new_id
from farmhand.gateway.metrics import GatewayMetrics
from farmhand.gateway.session import Sessions
from farmhand.gateway.setup import Setup
from farmhand.gateway.turn import CannotCarry, Decision, Dialect, Reason, Turn
from farmhand.subscription.terms import TERMS

#: Turns whose answer has not begun: each holds a request. The next one is told to come again. Streams that have begun
#: hold nothing, and are as many as there are connections.
MAX_TURNS = 256
#: Seconds for which the head of a streamed answer waits for the backend, so that a quick refusal keeps its status.
HOLD_S = 10.0
#: How often a turn is decided, if others take the budget's room meanwhile.
_TRIES = 20
_READERS = {"messages": messages.read, "chat": chat.read, "responses": responses.read}


class BodyReader(Protocol):
    """What reads a request's body: see `HttpServer`."""

    async def read(self, request: web.BaseRequest) -> bytes:
        """Return the whole body."""

    def release(self, request: web.BaseRequest) -> None:
        """Release the room of the body."""


class Answering:
    """Answers turns. A turn keeps the `setup` with which it began."""

    def __init__(self, setup: Setup, ledger: GatewayLedger) -> None:
        self.setup = setup
        self.ledger = ledger
        self._pings = Pings()
        self.metrics = GatewayMetrics(
            lambda: self.setup.states(), lambda: self.open_turns, lambda: self._pings.open_streams
        )
        ledger.heard = self.metrics.charged
        self.open_turns = 0
        #: The requests of turns whose answer has not begun, by their place in memory.
        self._asking: set[int] = set()
        self._draining = False
        self._idle = asyncio.Event()
        self._sessions = Sessions()

    async def drain(self, most_s: float) -> None:
        """Take no more turns, and wait until the open ones have ended, `most_s` seconds at the most."""
        self._draining = True
        if self.open_turns:
            with suppress(TimeoutError):
                async with asyncio.timeout(most_s):
                    await self._idle.wait()

    def status(self) -> dict[str, Any]:
        """Return what `farmhand gateway status` shows."""
        return {
            "listen": self.setup.config.listen,
            "open_turns": self.open_turns,
            "draining": self._draining,
            "states": msgspec.to_builtins(self.setup.states()),
            "turns": self.metrics.counts(),
            "terms": TERMS if self.setup.config.subscription.enabled else "",
        }

    async def allow(self, asked: AllowRequest) -> dict[str, Any]:
        """Open the metered backend for a time, or close it; return what is open. Raise FarmhandError."""
        backend = self.setup.backends.get("metered")
        metered = backend if isinstance(backend, MeteredBackend) else None
        if asked.stop:
            return {"stopped": metered is not None and metered.purse.stop(), "allowance": None}
        return {"stopped": False, "allowance": msgspec.to_builtins(await open_for(metered, asked))}

    def context(self) -> int:
        """Return the context of the first backend that takes turns, 0 if none does or it does not say."""
        return next((state.context for state in self.setup.states() if state.closed is None), 0)

    async def _decide(
        self, setup: Setup, turn: Turn, work_class: str | None, began: float, declined: Mapping[str, Reason]
    ) -> Decision:
        """Return the decision for a turn. Raise BadRequest if a header or the path names what there is not.

        `declined` has the backends that were asked and did not take it after all, with their reasons.
        """
        facts = classify.facts(turn, work_class, setup.config)
        ident = turn.decision.id if turn.decision is not None else new_id()
        facts = msgspec.structs.replace(facts, most_pico=setup.least(turn, facts.work_class))
        states, rules, last = setup.states(facts, declined), setup.config.rules, self._sessions.last(facts)
        decision = policy.decide(facts, states, rules, last, ident)
        if (paid := setup.paid(decision)) is not None:
            # Only a turn that would be paid for is looked at more closely: the provider may have to count its tokens.
            facts = msgspec.structs.replace(facts, most_pico=await paid.most(turn, decision))
            states = setup.states(facts, declined)
            decision = policy.decide(facts, states, rules, last, ident)
        turn.decision = decision
        self._sessions.keep(decision)
        self.ledger.decided(DecisionRecord(at=time.time(), decision=decision, states=states, rules=rules, last=last))
        self.metrics.decided(decision, time.perf_counter() - began)
        return decision

    async def count(self, turn: Turn, work_class: str | None) -> int | None:
        """Return the input tokens of a turn as its backend counts them; None if none does. Raise CannotCarry."""
        # To have them counted costs nothing anywhere.
        facts = classify.facts(turn, work_class, self.setup.config, most_pico=0)
        decision = policy.decide(facts, self.setup.states(), self.setup.config.rules, self._sessions.last(facts))
        if (backend := self.setup.backends.get(decision.backend)) is None:
            return None
        turn.decision = decision
        backend.check(turn)
        return await backend.count(turn)

    async def answer(
        self, reader: BodyReader, request: web.BaseRequest, dialect: Dialect, work_class: str | None
    ) -> web.StreamResponse:
        """Answer a turn. Raise BadRequest, ApiError or CannotCarry if the request is none that can be read."""
        if self._draining or len(self._asking) >= MAX_TURNS:
            why = "the gateway stops" if self._draining else f"{MAX_TURNS} turns wait for their answers"
            return _problem(dialect, BackendError(f"{why}: try again", status=503, code="overloaded_error"))
        self.open_turns += 1
        self._asking.add(id(request))
        try:
            turn, began = _read(dialect, await reader.read(request), headers_of(request))
            setup = self.setup
            declined: dict[str, Reason] = {}
            for _ in range(_TRIES):
                decision = await self._decide(setup, turn, work_class, began, declined)
                turn.work_class = decision.facts.work_class
                if not decision.backend:
                    return await self._own(setup, turn, decision)
                try:
                    return await self._relay(reader, request, setup.backends[decision.backend], turn, decision)
                except NoRoom:
                    continue
                except Declined as found:
                    # Nothing went to the client: what the rules and the limits allow after it may take the turn.
                    declined[decision.backend] = found.reason
            return _problem(dialect, BackendError("the budget is in use: try again", status=503))
        finally:
            self._asking.discard(id(request))
            self.open_turns -= 1
            if self._draining and not self.open_turns:
                self._idle.set()

    async def _own(self, setup: Setup, turn: Turn, decision: Decision) -> web.Response:
        """Return the gateway's own answer where no backend takes a turn."""
        said, outcome = advice.answer(decision, turn, setup.config.advice), "advice"
        for refusal in decision.refusals:
            backend = setup.backends.get(refusal.backend)
            dear = refusal.reason.code in advice.OF_BUDGET and bool(turn.max_tokens)
            if dear and isinstance(backend, PaidBackend) and (fits := await backend.fitting(turn, decision)):
                said, outcome = advice.ask_for_less(decision, turn, fits), "refused"
        for refusal in decision.refusals:
            backend = setup.backends.get(refusal.backend)
            if backend is None:
                continue
            backend.wake()
            if refusal.reason.code in policy.CANNOT_CARRY:
                try:
                    backend.check(turn)
                except CannotCarry as lost:
                    said, outcome = advice.not_carried(decision, turn, lost), "refused"
                    break
        self.metrics.ended(decision, outcome)
        return _sent(said)

    async def _relay(
        self, reader: BodyReader, request: web.BaseRequest, backend: Backend, turn: Turn, decision: Decision
    ) -> web.StreamResponse:
        """Pass a backend's answer on. The backend's connection ends with this call, however it ends.

        Raise NoRoom or Declined if the backend does not take the turn after all, and the client has seen nothing.
        """
        began = time.time()
        headers = {"x-farmhand-decision": decision.id, "x-farmhand-backend": decision.backend}
        translated = _translation(backend, turn, decision)
        stream = ClientStream(request, translated.ping, self._pings)
        stream.answer.headers.update(headers)
        usage, status, outcome, reply = None, 200, "cancelled", None
        refused = ""
        try:
            async with AsyncExitStack() as stack:
                reply = await _opened(stack, backend, turn, stream if turn.streamed else None)
                reader.release(request)
                headers |= reply.headers
                self._asking.discard(id(request))
                self.metrics.answering(time.time() - began)
                if reply.omitted:
                    headers["x-farmhand-omitted"] = ", ".join(reply.omitted)
                if not turn.streamed:
                    body, usage = await _whole(reply, turn, decision.id)
                    outcome = "done"
                    return web.Response(body=body, headers=headers | {"content-type": "application/json"})
                if not stream.begun:
                    stream.answer.headers.update(headers)
                await stream.begin()
                try:
                    async for piece in unstreamed.pieces(reply):
                        await stream.write(translated.feed(piece))
                        if translated.failed is not None:
                            break
                    await stream.write(translated.end())
                except BackendError as problem:
                    await stream.write(translated.fail(problem))
                outcome = "done" if translated.failed is None else "failed"
                return await stream.end()
        except CannotCarry as lost:
            status, outcome = 400, "refused"
            return _sent(advice.not_carried(decision, turn, lost))
        except Declined as declined:
            status, outcome, refused = 400, "refused", declined.reason.code
            if not stream.begun:
                raise
            await stream.write(translated.fail(BackendError(advice.text(decision, declined.reason), status=400)))
            return await stream.end()
        except BackendError as problem:
            status, outcome = problem.status, "failed"
            if not stream.begun:
                return _problem(turn.dialect, problem, headers)
            await stream.write(translated.fail(problem))
            return await stream.end()
        except NoRoom:
            if not stream.begun:
                outcome = "moved"
                raise
            await stream.write(translated.fail(BackendError("the budget is spent meanwhile", status=402)))
            return await stream.end()
        finally:
            stream.close()
            if outcome != "moved" and (stream.begun or not refused):
                self.metrics.ended(decision, outcome)
            if decision.residency != "metered":
                spent = (reply.spent() if reply is not None else None) or _counted(
                    decision, _model_of(backend), usage or translated.usage, refused
                )
                self._charge(decision, spent, status, outcome, began)

    def _charge(self, decision: Decision, spent: TurnSpent, status: int, outcome: str, began: float) -> None:
        """Write what a turn used. A local one costs nothing; beside it stands what it would have cost at list price."""
        prices, list_model = self.setup.prices, ""
        if decision.residency == "local":
            list_model = prices.resolve(self.setup.config.metered.model_of(decision.facts.work_class))
        self.ledger.charged(
            TurnCharge(
                decision=decision.id,
                created_at=began,
                model=spent.model,
                work_class=decision.facts.work_class,
                residency=decision.residency or "local",
                backend=decision.backend,
                usage=spent.usage,
                list_model=list_model,
                list_pico=prices.cost(list_model, spent.usage) if list_model else None,
                price_version=prices.version if list_model else "",
                status=status,
                outcome=outcome,
                seconds=time.time() - began,
                pico=spent.pico,
                terms=spent.terms,
                labels=decision.facts.labels,
            )
        )


def _read(dialect: Dialect, body: bytes, headers: dict[str, str]) -> tuple[Turn, float]:
    """Return the turn of a request, and when its reading began."""
    began = time.perf_counter()
    turn = _READERS[dialect](body, headers)
    # Only the turn holds the body, and its backend lets go of it.
    turn.body = body
    return turn, began


def _model_of(backend: Backend) -> str:
    """Return the model of a backend that has one; "" for one that has several, of which none was asked."""
    state = backend.state()
    return state.model if state.residency == "local" else ""


def _counted(decision: Decision, model: str, usage: ChatUsage | None, refused: str) -> TurnSpent:
    """Return what a turn used of which its backend says nothing.

    A local turn costs nothing; what it would have cost elsewhere is a question for later. `refused` is why a backend
    declined the turn: then nothing was used, unless its process failed.
    """
    if refused:
        return TurnSpent(model=model, usage=Usage(), pico=None if refused == FAILED else 0, terms=refused)
    used = usage or ChatUsage()
    counts = Usage(requests=1, input_tokens=used.read, cache_read_input_tokens=used.cached, output_tokens=used.written)
    pico = 0 if decision.residency == "local" else None
    return TurnSpent(model=model, usage=counts, pico=pico, terms="" if usage is not None else "estimated")


def _translation(backend: Backend, turn: Turn, decision: Decision) -> AnswerStream:
    """Return what makes the client's stream of the backend's."""
    if backend.native(turn):
        return NativeStream()
    if decision.residency == "local":
        return from_chat.stream(turn, decision.id)
    return from_messages.stream(turn, decision.id)


async def _whole(reply: BackendReply, turn: Turn, ident: str) -> tuple[bytes, ChatUsage | None]:
    """Return a whole answer in the client's dialect. Raise BackendError."""
    body = bytearray()
    async for piece in reply.pieces():
        body += piece
        if len(body) > unstreamed.MAX_ANSWER:
            raise BackendError(f"the answer is larger than {unstreamed.MAX_ANSWER} bytes")
    if reply.dialect == turn.dialect == "messages":
        return native.answer(bytes(body))
    if reply.dialect == "messages":
        return from_messages.answer(turn, bytes(body), ident)
    return from_chat.answer(turn, bytes(body), ident)


async def _opened(stack: AsyncExitStack, backend: Backend, turn: Turn, stream: ClientStream | None) -> BackendReply:
    """Return the backend's answer. After HOLD_S the client of a stream gets its head, and pings from then on."""
    if stream is None:
        return await stack.enter_async_context(backend.answer(turn))
    opening = asyncio.ensure_future(stack.enter_async_context(backend.answer(turn)))
    try:
        done, _ = await asyncio.wait({opening}, timeout=HOLD_S)
        if not done:
            await stream.begin()
        return await opening
    except BaseException:
        # The client left: what was asked of the backend ends before this call does.
        opening.cancel()
        await asyncio.wait({opening})
        raise


def _sent(said: advice.OwnAnswer) -> web.Response:
    return web.Response(status=said.status, headers=said.headers, body=said.body)


def _problem(dialect: Dialect, problem: BackendError, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a backend's failure in the client's dialect, or as the backend wrote it."""
    found = dict(headers or {}) | {"content-type": "application/json"}
    if problem.status == 503:
        found["retry-after"] = "1"
    found |= problem.headers
    body = problem.body or errors.body(dialect, problem.status, str(problem), problem.code)
    return web.Response(status=problem.status, headers=found, body=body)
