"""Upstream requests: the key is added, retries happen before the first byte, and usage is counted as it passes."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated, TypeVar

import msgspec

from farmhand.core.prices import price_table
from farmhand.core.task import Usage
from farmhand.core.terms import DEAREST, STANDARD, Terms
from farmhand.meter import policy, reserve
from farmhand.meter.budget import BudgetSpent, Reservation
from farmhand.meter.errors import ApiError, connection_problem, problem_from_answer
from farmhand.meter.exchange import Exchange
from farmhand.meter.grants import Charge, Grant, Grants, MessageRequest, RequestSpan
from farmhand.meter.headroom import LONGEST_S
from farmhand.meter.limits import Gate, Limits, Ticket
from farmhand.meter.upstream import Upstream, UpstreamConnection, UpstreamError
from farmhand.meter.usage import UsageParser

#: A larger body is checked in a thread, one at a time: it takes up to 0.3 s, and six times its size in memory.
_LARGE = 256 * 1024
COUNT_TOKENS = "/v1/messages/count_tokens"
_MAX_ERROR_BODY = 64 * 1024
#: Time limit for reading an error's body: the status matters most.
_ERROR_BODY_S = 30.0
#: Maximum length of a stored request id; the API's have 28 characters.
_MAX_ID = 200
#: Refusals for a limit or for load: they shrink the gate's window.
_LOAD = frozenset({429, 529})
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A retry policy: exponential backoff with jitter, and at least the API's retry-after.

    `told` limits the refusals that carry a retry-after: they do not count as `attempts` and would otherwise be endless.
    With `wait` off nothing waits until a told time, or for room in a budget: the caller gets the refusal at once.
    """

    attempts: int = 6
    base_s: float = 0.5
    cap_s: float = 30.0
    told: int = 50
    wait: bool = True

    def delay_s(self, attempt: int, retry_after_s: float | None) -> float:
        """Return the seconds to wait after the failed `attempt` (1 is the first), at most 10 minutes."""
        backoff = min(self.cap_s, self.base_s * 2.0 ** min(attempt - 1, 60))
        backoff *= random.uniform(0.5, 1.0)  # noqa: S311  (spreads load, guards nothing)
        return backoff if retry_after_s is None else min(max(retry_after_s + backoff / 10, backoff), LONGEST_S)


class _TokenCount(msgspec.Struct):
    input_tokens: Annotated[int, msgspec.Meta(ge=0, le=100_000_000)]


@dataclass(slots=True)
class _MeterCall:
    """One client request: its size, its place in the gate's queue, and what it holds of the gate and the budgets.

    `number` is the number under which the grant holds its cost; 0 while it does not.
    """

    grant: Grant
    gate: Gate
    order: int
    body: bytes
    max_tokens: int = 0
    most: int | None = None
    free: bool = False
    wait: bool = True
    number: int = 0
    reservation: Reservation | None = None
    ticket: Ticket | None = None
    span: RequestSpan | None = None

    async def begin(self) -> Ticket:
        """Wait for room in the budgets, then at the gate, and record the worst-case cost. Raise BudgetSpent."""
        grant = self.grant
        if grant.budgets and not self.free:
            if self.wait:
                self.reservation = await Reservation.make(grant.budgets, self.most or 0)
            else:
                self.reservation = Reservation(grant.budgets, self.most or 0)
        self.ticket = await self.gate.enter(self.order, len(self.body), self.max_tokens)
        # A repeated request after a refusal keeps its number.
        if not self.free and not self.number:
            grant.sent += 1
            number = grant.sent
            grant.held[number] = self.most
            try:
                await grant.on_hold(number, self.most)
            except BaseException:
                del grant.held[number]
                raise
            self.number = number
        return self.ticket

    def lose(self, known: int = 0) -> None:
        """Keep the worst-case cost minus `known` held for good: the request was sent and its cost is unknown."""
        number, self.number = self.number, 0
        if number:
            self.grant.held[number] = None if self.most is None else max(0, self.most - known)

    def release(self) -> None:
        """Release the held cost, since the actual cost is known."""
        number, self.number = self.number, 0
        self.grant.held.pop(number, None)

    def end(self, cost: int = 0, usage: Usage | None = None, *, streamed: bool = True) -> None:
        """Release what `begin` acquired, at the cost `cost`. `usage` is that of a complete answer."""
        if self.ticket is not None:
            ticket, self.ticket = self.ticket, None
            self.gate.leave(ticket, usage, streamed=streamed)
        if self.reservation is not None:
            self.reservation.settle(cost)
            self.reservation = None


class Meter:
    """Sends requests to the Messages API at `upstream` on behalf of grants.

    `price` returns the pico-dollars of a model's usage on an answer's terms, or None if unknown. `clock` and `sleep`
    are used for waiting.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        retry: RetryPolicy | None = None,
        price: Callable[[str, Usage, Terms], int | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.grants = Grants()
        self.limits = Limits(clock=clock, sleep=sleep)
        #: API errors by code, one per request, including requests that succeeded after a retry.
        self.errors: Counter[str] = Counter()
        self._upstream = upstream
        self._retry = retry or RetryPolicy()
        self._price = price or price_table().cost
        self._sleep = sleep
        #: One thread, which checks large bodies one after another.
        self._checker = ThreadPoolExecutor(1, "check")

    @asynccontextmanager
    async def send(self, grant: Grant, path: str, body: bytes, headers: Mapping[str, str]) -> AsyncIterator[Exchange]:
        """POST the request in `body` to `path` with the grant's key, after the checks and header filter of `policy`.

        Raise ApiError, which is also the grant's `problem`, if the API refuses or the last retry fails, and BudgetSpent
        if one of the grant's budgets has no room. The answer's usage is charged when the context ends, also if the
        answer was cut.
        """
        request = await self._check(grant, body)
        del body
        outgoing = (grant.policy or policy).forwarded(headers) | {"accept-encoding": "identity"}
        span: RequestSpan | None = None
        before, cause = grant.retries, "cancelled"
        try:
            if path.startswith(COUNT_TOKENS):
                async with self._uncounted(grant, path, request.body, outgoing) as exchange:
                    yield exchange
                return
            if grant.trace is not None:
                span = grant.trace.request(grant.model, request.max_tokens)
            gate = self.limits.gate(grant.key.fingerprint, grant.model)
            most = await self._most(grant, request, outgoing)
            call = _MeterCall(grant, gate, gate.order(), request.body, request.max_tokens, most, wait=self._retry.wait)
            call.span = span
            del request
            try:
                answer = await self._open(call, path, outgoing)
            except BaseException:
                call.release()  # does nothing after `lose`, that is, for a request that may have been charged
                raise
            call.body = b""  # it may be large, and is not needed any more
            grant.problem, grant.again_at = None, 0.0
            kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            watch = UsageParser(streamed=kind == "text/event-stream", max_tokens=call.max_tokens)
            try:
                yield Exchange(answer, watch)
            except ApiError as problem:
                grant.problem = problem
                self.errors[problem.code] += 1
                raise
            finally:
                request_id = answer.headers.get("request-id", "")[:_MAX_ID].encode("ascii", "replace").decode()
                answer.close()
                if watch.problem is not None:
                    self.errors[watch.problem.code] += 1
                self._charge(call, watch, request_id)
                grant.problem = grant.problem or watch.problem
                grant.cut_short = grant.problem is not None or watch.stop_reason == "max_tokens"
            cause = watch.problem.code if watch.problem is not None else ""
        except ApiError as problem:
            grant.problem = problem
            cause = problem.code
            raise
        finally:
            if span is not None:
                span.end(cause, grant.retries - before)

    @asynccontextmanager
    async def _uncounted(
        self, grant: Grant, path: str, body: bytes, headers: dict[str, str]
    ) -> AsyncIterator[Exchange]:
        """Send a free request, which has its own limits at the API."""
        gate = self.limits.gate(grant.key.fingerprint, f"{grant.model} (counting)")
        call = _MeterCall(grant, gate, gate.order(), body, free=True, wait=self._retry.wait)
        try:
            with closing(await self._open(call, path, headers)) as answer:
                yield Exchange(answer, UsageParser(streamed=False))
                call.end(usage=Usage())
        finally:
            call.end()

    async def _check(self, grant: Grant, body: bytes) -> MessageRequest:
        """Return the checked request. A refused body counts too, as checking takes time."""
        if grant.cut_short:
            # The claude CLI makes up to three requests to continue an answer that was cut short, each paid.
            raise ApiError("permission_error", "the answer was cut short; this task token takes no more", status=403)
        policy.check_number(grant.started)
        grant.started += 1
        check = partial((grant.policy or policy).read, body, model=grant.model, max_tokens=grant.max_tokens)
        return check() if len(body) <= _LARGE else await self._slowly(check)

    async def _slowly(self, step: Callable[[], T]) -> T:
        """Run a slow step in the checker's thread, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._checker, step)

    async def _most(self, grant: Grant, request: MessageRequest, headers: dict[str, str]) -> int | None:
        """Return the worst-case cost in pico-dollars. Raise BudgetSpent if it is unknown and a budget limits it.

        If the certain bound can never fit into what is left of a budget, or there is none, the API counts the tokens.
        """

        def price(usage: Usage) -> int | None:
            return self._price(grant.model, usage, DEAREST)

        cost = partial(reserve.cost, request, price)
        most = cost()
        limits = [budget for budget in grant.budgets if budget.limit_pico is not None]
        if not limits or (most is not None and all(budget.may_fit(most) for budget in limits)):
            return most
        least = cost(0)
        if least is None:
            raise BudgetSpent(
                f"the price of {grant.model} is not known: the budget of the {limits[0].name} has no room for it"
            )
        tight = next((budget for budget in limits if not budget.may_fit(least)), None)
        counted = None if tight else await self._count(grant, request, headers)
        most = cost(counted)
        tight = tight or next((budget for budget in limits if not budget.may_fit(most or 0)), None)
        if tight is None or most is None:
            return most
        room = min((budget.limit_pico or 0) - budget.spent_pico for budget in limits)
        raise tight.spent(most, reserve.longest(request, price, room, counted))

    async def _count(self, grant: Grant, request: MessageRequest, headers: dict[str, str]) -> int:
        """Return the request's tokens as the API counts them, which is free. Raise ApiError."""
        body = await self._slowly(partial(policy.to_count, request))
        answer = b""
        async with self._uncounted(grant, COUNT_TOKENS, body, headers) as exchange:
            while piece := await exchange.piece():
                answer += piece
        try:
            return msgspec.json.decode(answer, type=_TokenCount).input_tokens
        except (ValueError, RecursionError):
            raise ApiError("api_error", "the API does not tell how many tokens the request has") from None

    def _charge(self, call: _MeterCall, watch: UsageParser, request_id: str) -> None:
        """Charge an ended answer, complete or not. An unknown cost is settled at the worst case."""
        grant, usage = call.grant, watch.finish()
        terms = watch.terms
        cost = self._price(grant.model, usage, terms) if watch.known else None
        most = call.most or 0
        # If the terms have no price, the cost is unknown. If the model has no price at all, no cost could be known.
        unpriced = call.most is None and self._price(grant.model, usage, STANDARD) is None
        known = watch.ended and not terms.unknown and (cost is not None or unpriced)
        grant.uncertain += not known
        if watch.ended:
            call.end(most if cost is None else cost, None if terms.unknown else usage, streamed=watch.streamed)
        else:
            call.end(max(most, cost or 0))
        if known:
            call.release()
        else:
            call.lose(cost or 0)
        if call.span is not None:
            call.span.charged(usage, cost if known else None, watch.stop_reason)
        if watch.known or watch.ended:
            grant.charges.append(Charge(usage, request_id, watch.ended, terms))
            grant.on_charge()

    async def _open(self, call: _MeterCall, path: str, headers: dict[str, str]) -> UpstreamConnection:
        """Return the open answer, after as many tries as needed and allowed by the policy.

        A refusal with `retry-after` does not count as a try: the request waits at the gate again, up to its own limit.
        """
        attempt = refusals = 1
        while True:
            try:
                return await self._once(call, path, headers)
            except ApiError as problem:
                call.grant.problem = problem
                self.errors[problem.code] += not isinstance(problem, BudgetSpent)
                told = problem.status == 429 and problem.retry_after_s is not None
                if told and not self._retry.wait:
                    raise
                last = refusals >= self._retry.told if told else attempt >= self._retry.attempts
                if not problem.retryable or last:
                    problem.retryable = False
                    raise
            call.grant.retries += 1
            if told:
                call.grant.again_at = 0.0
                refusals += 1
                continue
            delay = self._retry.delay_s(attempt, None)
            call.grant.again_at = time.time() + delay
            await self._sleep(delay)
            attempt += 1

    async def _once(self, call: _MeterCall, path: str, headers: dict[str, str]) -> UpstreamConnection:
        """Send the request once. Raise ApiError, retryable or not, unless it is answered."""
        answer: UpstreamConnection | None = None
        key = call.grant.key
        used = ""
        if (refusal := call.gate.refusal) is not None:
            # A request that is blocked by another one's refusal may never get its own. The gate reports until when.
            call.grant.problem, call.grant.again_at = call.grant.problem or refusal, 0.0
            if not call.wait:
                raise call.gate.refused_until()
        try:
            ticket = await call.begin()
            answer = await self._upstream.connection()
            used = key.reveal()
            await answer.send("POST", self._upstream.base + path, key.signed(headers), call.body)
        except BaseException as error:
            # Once there is a connection, the API may have the request.
            sent = answer is not None
            call.grant.uncertain += sent and not call.free
            call.end((call.most or 0) if sent else 0)
            if sent:
                call.lose()
            if isinstance(error, UpstreamError | TimeoutError):
                raise connection_problem(error, "before an answer came") from None
            raise
        call.gate.told(ticket, answer.headers)
        if answer.status == 200:
            return answer
        detail = b""
        try:
            with closing(answer), suppress(UpstreamError, TimeoutError):
                async with asyncio.timeout(_ERROR_BODY_S):
                    detail = await answer.read(_MAX_ERROR_BODY)
            problem = problem_from_answer(answer.status, detail, model=call.grant.model, headers=answer.headers)
            if problem.status == 401 and key.reveal() != used:
                problem.retryable = True  # it was on its way when the token was renewed
            elif problem.retryable:
                call.gate.refused(ticket, problem, load=problem.status in _LOAD)
        finally:
            call.end()
        raise problem
