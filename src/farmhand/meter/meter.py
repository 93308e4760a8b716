"""The upstream side: one request with the key injected, retried before its first byte, counted while it passes."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, TypeVar

import msgspec

from farmhand.cost.prices import price_table
from farmhand.meter import policy, reserve
from farmhand.meter.budget import BudgetSpent, Reservation
from farmhand.meter.grants import Charge, Grant, Grants
from farmhand.meter.limits import Gate, Limits, Ticket
from farmhand.meter.problems import ApiError, connection_problem, problem_from_answer
from farmhand.meter.upstream import Connection, Upstream, UpstreamError
from farmhand.meter.usage import AnswerWatch
from farmhand.task import Usage

#: A body above this is checked in a thread, one at a time: it takes up to 0.3 s, and six times its size in memory.
_LARGE = 256 * 1024
COUNT_TOKENS = "/v1/messages/count_tokens"
_MAX_ERROR_BODY = 64 * 1024
#: Refusals for a limit or for load: the window of the gate shrinks.
_LOAD = frozenset({429, 529})
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to wait: exponential with full jitter, at least what the API's retry-after says."""

    attempts: int = 6
    base_s: float = 0.5
    cap_s: float = 30.0

    def delay_s(self, attempt: int, retry_after_s: float | None) -> float:
        """Seconds to wait after the failed `attempt` (1 is the first)."""
        jitter = random.uniform(0, min(self.cap_s, self.base_s * 2 ** (attempt - 1)))  # noqa: S311  (spreads load, guards nothing)
        return jitter if retry_after_s is None else retry_after_s + jitter


class _Counted(msgspec.Struct):
    """An answer of `COUNT_TOKENS`."""

    input_tokens: Annotated[int, msgspec.Meta(ge=0, le=100_000_000)]


class Exchange:
    """One answer of the API, open: its status, its headers, and its body in pieces as they come."""

    def __init__(self, answer: Connection, watch: AnswerWatch) -> None:
        self._answer = answer
        self._watch = watch
        self.status = answer.status
        self.headers = answer.headers
        self.streamed = watch.streamed

    @property
    def ended(self) -> bool:
        """Whether the pieces until now are a whole answer."""
        return self._watch.ended

    async def piece(self) -> bytes:
        """The next piece of the body, unbuffered; nothing at its end. ApiError: it was cut, or fell silent."""
        try:
            piece = await self._answer.piece()
        except (UpstreamError, TimeoutError) as error:
            raise connection_problem(error, "while the answer was under way") from None
        self._watch.feed(piece)
        return piece


class _Call:
    """One request of a client: how big it is, its place at the gate, what it holds there and of the budgets."""

    __slots__ = ("body", "free", "gate", "grant", "max_tokens", "most", "order", "reservation", "ticket")

    def __init__(
        self, grant: Grant, gate: Gate, body: bytes, *, max_tokens: int = 0, most: int = 0, free: bool = False
    ) -> None:
        self.grant = grant
        self.gate = gate
        self.order = gate.order()
        self.body = body
        self.max_tokens = max_tokens
        self.most = most
        self.free = free
        self.reservation: Reservation | None = None
        self.ticket: Ticket | None = None

    async def begin(self) -> None:
        """Wait for room in the budgets, then at the gate. BudgetSpent where a budget has none."""
        if self.grant.budgets and not self.free:
            self.reservation = await Reservation.make(self.grant.budgets, self.most)
        self.ticket = await self.gate.enter(self.order, len(self.body), self.max_tokens)

    def end(self, cost: int = 0, usage: Usage | None = None, *, streamed: bool = True) -> None:
        """Give back what `begin` took; it cost `cost`. `usage`: of a whole answer."""
        if self.ticket is not None:
            ticket, self.ticket = self.ticket, None
            self.gate.leave(ticket, usage, streamed=streamed)
        if self.reservation is not None:
            self.reservation.settle(cost)
            self.reservation = None


class Meter:
    """Sends requests to the Messages API at `upstream` on behalf of grants.

    `price` gives the pico-dollars of a usage of a model, None where it is not known. `clock` and `sleep` are what
    waiting goes by.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        retry: RetryPolicy | None = None,
        price: Callable[[str, Usage], int | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.grants = Grants()
        self.limits = Limits(clock=clock, sleep=sleep)
        #: The API's errors by their codes, each request's; also of those that were sent again and answered.
        self.errors: Counter[str] = Counter()
        self._upstream = upstream
        self._retry = retry or RetryPolicy()
        self._price = price or price_table().cost
        self._sleep = sleep
        #: One thread, which checks large bodies one after another.
        self._checker = ThreadPoolExecutor(1, "check")

    @asynccontextmanager
    async def send(self, grant: Grant, path: str, body: bytes, headers: Mapping[str, str]) -> AsyncIterator[Exchange]:
        """POST the request in `body` to `path` with the grant's key, as `policy` lets it and `headers` pass.

        The answer stays open inside the context. Raises ApiError when the API refuses, or still fails after the last
        retry, and BudgetSpent when one of the grant's budgets has no room; it is the grant's `problem` too. What the
        answer used is charged to the grant and its budgets whenever the context ends, so also for one that was cut.
        """
        request = await self._check(grant, body)
        del body
        outgoing = policy.forwarded(headers) | {"x-api-key": grant.key.reveal(), "accept-encoding": "identity"}
        try:
            if path.startswith(COUNT_TOKENS):
                async with self._uncounted(grant, path, request.body, outgoing) as exchange:
                    yield exchange
                return
            gate = self.limits.gate(grant.key.fingerprint, grant.model)
            most = await self._most(grant, request, outgoing)
            call = _Call(grant, gate, request.body, max_tokens=request.max_tokens, most=most)
            del request
            answer = await self._open(call, path, outgoing)
            call.body = b""  # it may be large, and is not needed again
            grant.problem, grant.again_at = None, 0.0
            kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            watch = AnswerWatch(streamed=kind == "text/event-stream")
            try:
                yield Exchange(answer, watch)
            except ApiError as problem:
                grant.problem = problem
                self.errors[problem.code] += 1
                raise
            finally:
                request_id = answer.headers.get("request-id", "")
                answer.close()
                if watch.problem is not None:
                    self.errors[watch.problem.code] += 1
                self._charge(call, watch, request_id)
                grant.problem = grant.problem or watch.problem
                grant.cut_short = grant.problem is not None or watch.stop_reason == "max_tokens"
        except ApiError as problem:
            grant.problem = problem
            raise

    @asynccontextmanager
    async def _uncounted(
        self, grant: Grant, path: str, body: bytes, headers: dict[str, str]
    ) -> AsyncIterator[Exchange]:
        """A request that is free of charge; it has limits of its own at the API."""
        call = _Call(grant, self.limits.gate(grant.key.fingerprint, f"{grant.model} (counting)"), body, free=True)
        try:
            answer = await self._open(call, path, headers)
            try:
                yield Exchange(answer, AnswerWatch(streamed=False))
                call.end(usage=Usage())
            finally:
                answer.close()
        finally:
            call.end()

    async def _check(self, grant: Grant, body: bytes) -> policy.Request:
        """What is sent for `body`. Also what is refused counts as a request of the task: to look at it takes time."""
        if grant.cut_short:
            # The claude CLI asks up to three times more to go on with an answer that was cut short, each for its price.
            raise ApiError("permission_error", "the answer was cut short; this task token takes no more", status=403)
        policy.check_number(grant.started)
        grant.started += 1
        if len(body) <= _LARGE:
            return policy.read(body, model=grant.model, max_tokens=grant.max_tokens)
        return await self._slowly(partial(policy.read, body, model=grant.model, max_tokens=grant.max_tokens))

    async def _slowly(self, step: Callable[[], T]) -> T:
        """What takes long, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._checker, step)

    async def _most(self, grant: Grant, request: policy.Request, headers: dict[str, str]) -> int:
        """The most the request may cost, in pico-dollars. BudgetSpent where that is unknown and a budget limits it.

        Where the sure bound can never fit what is left of a budget, or there is none, the API counts the tokens.
        """
        if not grant.budgets:
            return 0
        limits = [budget for budget in grant.budgets if budget.limit_pico is not None]
        price = partial(self._price, grant.model)
        least, most = reserve.cost(request, price, 0), reserve.cost(request, price)
        if least is None and limits:
            raise BudgetSpent(
                f"the price of {grant.model} is not known: the budget of the {limits[0].name} has no room for it"
            )
        room = min((budget.limit_pico or 0) - budget.spent_pico for budget in limits) if limits else 0
        if limits and least is not None and least <= room and (most is None or most > room):
            most = reserve.cost(request, price, await self._count(grant, request, headers))
        return most or least or 0

    async def _count(self, grant: Grant, request: policy.Request, headers: dict[str, str]) -> int:
        """Tokens of the request as the API counts them, which is free. ApiError."""
        body = await self._slowly(partial(policy.to_count, request))
        answer = b""
        async with self._uncounted(grant, COUNT_TOKENS, body, headers) as exchange:
            while piece := await exchange.piece():
                answer += piece
        try:
            return msgspec.json.decode(answer, type=_Counted).input_tokens
        except (ValueError, RecursionError):
            raise ApiError("api_error", "the API does not tell how many tokens the request has") from None

    def _charge(self, call: _Call, watch: AnswerWatch, request_id: str) -> None:
        """Count an answer that has ended, whole or not. One that is not is settled at the most it may have cost."""
        grant, usage = call.grant, watch.finish()
        if watch.known:
            grant.charges.append(Charge(usage, request_id, watch.ended))
            grant.on_charge()
        cost = self._price(grant.model, usage) if grant.budgets and watch.known else None
        if watch.ended:
            call.end(call.most if cost is None else cost, usage, streamed=watch.streamed)
        else:
            grant.uncertain += 1
            call.end(max(call.most, cost or 0))

    async def _open(self, call: _Call, path: str, headers: dict[str, str]) -> Connection:
        """The head of the answer, after as many tries as it takes and the policy allows.

        A refusal that says when to come back (`retry-after`) is none of the tries: the request goes back to the gate
        and waits there, as long as its client does.
        """
        attempt = 1
        while True:
            try:
                return await self._once(call, path, headers)
            except ApiError as problem:
                call.grant.problem = problem
                self.errors[problem.code] += not isinstance(problem, BudgetSpent)
                told = problem.status == 429 and problem.retry_after_s is not None
                if not problem.retryable or (attempt >= self._retry.attempts and not told):
                    problem.retryable = False
                    raise
            call.grant.retries += 1
            if told:
                call.grant.again_at = 0.0
                continue
            delay = self._retry.delay_s(attempt, None)
            call.grant.again_at = time.time() + delay
            await self._sleep(delay)
            attempt += 1

    async def _once(self, call: _Call, path: str, headers: dict[str, str]) -> Connection:
        answer: Connection | None = None
        if (refusal := call.gate.refusal) is not None:
            # Who is kept back by another request's refusal may never get one of their own. The gate tells until when.
            call.grant.problem, call.grant.again_at = call.grant.problem or refusal, 0.0
        try:
            await call.begin()
            answer = await self._upstream.connection()
            await answer.post(self._upstream.base + path, headers, call.body)
        except BaseException as error:
            # From the moment that there is a connection the API may have the request.
            sent = answer is not None
            call.grant.uncertain += sent and not call.free
            call.end(call.most if sent else 0)
            if isinstance(error, UpstreamError | TimeoutError):
                raise connection_problem(error, "before an answer came") from None
            raise
        assert call.ticket is not None  # noqa: S101  (begin has got it)
        call.gate.told(call.ticket, answer.headers)
        if answer.status == 200:
            return answer
        try:
            problem = await self._refusal(call.grant, answer)
            if problem.retryable and problem.status in _LOAD:
                call.gate.refused(call.ticket, problem.retry_after_s)
            if problem.retryable:
                call.gate.hold(problem)
        finally:
            call.end()
        raise problem

    @staticmethod
    async def _refusal(grant: Grant, answer: Connection) -> ApiError:
        status, retry_after = answer.status, answer.headers.get("retry-after")
        try:
            detail = await answer.read(_MAX_ERROR_BODY)
        except (UpstreamError, TimeoutError):
            detail = b""
        finally:
            answer.close()
        return problem_from_answer(status, detail, model=grant.model, retry_after=retry_after)
