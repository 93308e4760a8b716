"""The provider's API, paid by a key of the operator's: within a turn's and a day's limit, and only behind its gate."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from farmhand.core.errors import NotConfigured
from farmhand.core.prices import PriceTable
from farmhand.core.task import Usage
from farmhand.core.terms import DEAREST
from farmhand.core.trace_context import TraceContext, context_of
from farmhand.gateway.advice import DEFERRED, NOT_CARRIED, TOO_LONG
from farmhand.gateway.backends import BackendError, NoRoom
from farmhand.gateway.backends.metered_reply import MeteredReply
from farmhand.gateway.dialects import to_messages
from farmhand.gateway.ledger import TurnCharge
from farmhand.gateway.purse import Purse
from farmhand.gateway.tables import MeteredTable
from farmhand.gateway.turn import (
    BackendState,
    BadRequest,
    CannotCarry,
    Decision,
    LabelBudget,
    Reason,
    Turn,
    WorkClass,
)
from farmhand.meter import reserve
from farmhand.meter.budget import BudgetSpent
from farmhand.meter.errors import ApiError
from farmhand.meter.grants import Grant, Key, MessageRequest
from farmhand.meter.harness import HarnessPolicy
from farmhand.meter.meter import COUNT_TOKENS, Meter

if TYPE_CHECKING:
    from farmhand.telemetry.spans import Tracing

PATH = "/v1/messages"
#: Output tokens below which a client is not told to ask for less: Claude Code 2.1.330 asks once more, with 4,096 or
#: more, and keeps to that number. So an eighth is left for the conversation's growth.
_WORTH = 4096
_LEFT = 8
#: The most output tokens of any request.
_MOST_OUTPUT = 1_000_000
#: Seconds for which nothing is sent after the key was refused.
_REFUSED_S = 60.0
_VERSION = "2023-06-01"


class _Counted(msgspec.Struct):
    input_tokens: int


class PreparedTurn(NamedTuple):
    """What is made of a turn before it is decided: its body for the API, what is known of that, and its policy."""

    body: to_messages.PaidRequest
    request: MessageRequest
    policy: HarnessPolicy


class MeteredBackend:
    """The residency `metered`; see `Backend`. `key` is None while only `farmhand gateway allow` could open it."""

    name = "metered"

    def __init__(
        self,
        table: MeteredTable,
        key: Key | None,
        meter: Meter,
        purse: Purse,
        prices: PriceTable,
        tracing: Tracing | None = None,
    ) -> None:
        self.key = key
        self._tracing = tracing
        self.purse = purse
        self.table = table
        self._meter = meter
        self._prices = prices
        #: Why the key was refused, and until when nothing is sent.
        self._refused: tuple[Reason, float] | None = None

    def state(self) -> BackendState:
        """Implement `Backend`."""
        # What was allowed is of no use without a key.
        allowance, spent = self.purse.allowance if self.key is not None else None, None
        closed = None if self.table.enabled else Reason("shut", "off")
        labels: tuple[LabelBudget, ...] = ()
        try:
            day = self.purse.day
            spent = day.spent_pico + day.reserved_pico
            labels = self.purse.labels(self._label_limits())
        except NotConfigured as error:
            # What was spent today is not known: other backends go on.
            closed = Reason("ledger", error.message)
        if self._refused is not None and time.monotonic() < self._refused[1]:
            closed = self._refused[0]
        return BackendState(
            name=self.name,
            residency="metered",
            closed=closed,
            vision=True,
            schema=True,
            prefill=True,
            documents=True,
            image_urls=self.table.fetch,
            hosted_tools=self.table.hosted_tools,
            safeguards=True,
            background=self.table.background,
            turn_pico=self.table.turn_pico,
            day_pico=self.table.day_pico,
            spent_pico=spent,
            labels=labels,
            allowance=allowance,
            model=", ".join(sorted(set(self.table.models.values()))),
        )

    def labelled(self, labels: Mapping[str, str]) -> tuple[LabelBudget, ...]:
        """Implement `PaidBackend`."""
        limits = self.table.label_picos(labels)
        try:
            return self.purse.labels(limits)
        except NotConfigured:
            # What was spent is not known: nothing is left.
            return tuple(LabelBudget(name=name, limit_pico=most, spent_pico=most) for name, most in limits.items())

    def _label_limits(self) -> dict[str, int]:
        """Return the limits of the labels that the settings name, and of those that were used today."""
        named = [name for name in self.table.budget_label_usd if not name.endswith(":*")]
        found: dict[str, int] = {}
        for name in (*named, *self.purse.known_labels):
            label, _, value = name.partition(":")
            found |= self.table.label_picos({label: value})
        return found

    def wake(self) -> None:
        """Implement `Backend`."""

    def native(self, turn: Turn) -> bool:
        """Implement `Backend`."""
        return turn.dialect == "messages"

    def check(self, turn: Turn) -> to_messages.PaidRequest:
        """Return the request. Raise CannotCarry or BadRequest."""
        decision = turn.decision
        model = self.model(decision.facts.work_class if decision is not None else "chat")
        options = to_messages.PaidOptions(model=model, fetch=self.table.fetch, extra_body=self.table.extra_body)
        return to_messages.request(turn, options)

    def model(self, work_class: WorkClass) -> str:
        """Return the model for a class, by its full id."""
        return self._prices.resolve(self.table.model_of(work_class))

    # --- what it may cost ---------------------------------------------------------------------------------------------

    def least(self, turn: Turn, work_class: WorkClass) -> int | None:
        """Implement `PaidBackend`: the price of the answer alone, without a look at the request."""
        asked = to_messages.limit_of(turn)
        return self._prices.cost(self.model(work_class), Usage(output_tokens=asked), DEAREST)

    async def most(self, turn: Turn, decision: Decision) -> int | None:
        """Implement `PaidBackend`. The API counts the tokens if the certain bound has no room: that is free."""
        turn.decision = decision
        try:
            made = self._prepared(turn)
        except (CannotCarry, BadRequest, BackendError):
            return 0  # it will not be sent
        request, model = made.request, made.body.model
        most = self._cost(request, model)
        room = self._room(decision)
        if most is not None and most <= room:
            return most
        least = self._cost(request, model, 0)
        if least is None or least > room:
            return most if most is not None else least
        return self._cost(request, model, await self._count(turn, made))

    async def fitting(self, turn: Turn, decision: Decision) -> int:
        """Implement `PaidBackend`."""
        turn.decision = decision
        try:
            made = self._prepared(turn)
        except (CannotCarry, BadRequest, BackendError):
            return 0
        request, model = made.request, made.body.model
        room = self._room(decision)

        def fits(tokens: int, counted: int | None) -> bool:
            cost = self._cost(msgspec.structs.replace(request, max_tokens=tokens), model, counted)
            return cost is not None and cost <= room

        counted = None if fits(request.max_tokens // 2, None) else await self._count(turn, made)
        low, high = 0, request.max_tokens
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle, counted) else (low, middle - 1)
        return max(_WORTH, low - low // _LEFT) if low >= _WORTH else 0

    def _room(self, decision: Decision) -> int:
        """Return what a turn may cost now."""
        state = self.state()
        limits = [self.table.turn_pico]
        if state.day_pico is not None:
            limits.append(state.day_pico - (state.spent_pico or 0))
        given = state.allowance
        if given is not None and (decision.by_allowance or not self.table.enabled):
            limits.append(given.limit_pico - given.spent_pico)
        limits += [one.limit_pico - one.spent_pico for one in self.labelled(decision.facts.labels)]
        return min(limits)

    def _cost(self, request: MessageRequest, model: str, counted: int | None = None) -> int | None:
        return reserve.cost(request, lambda usage: self._prices.cost(model, usage, DEAREST), counted)

    def _prepared(self, turn: Turn) -> PreparedTurn:
        """Return what is made of a turn, once. Raise CannotCarry, BadRequest or BackendError."""
        if isinstance(turn.prepared, PreparedTurn):
            return turn.prepared
        made, policy = self.check(turn), self._policy()
        try:
            request = policy.read(made.body, model=made.model, max_tokens=_MOST_OUTPUT)
        except ApiError as problem:
            raise BackendError(problem.message, status=400, code=NOT_CARRIED) from None
        turn.prepared = PreparedTurn(made, request, policy)
        return turn.prepared

    def _policy(self) -> HarnessPolicy:
        return HarnessPolicy(hosted_tools=self.table.hosted_tools, fetch=self.table.fetch)

    async def _count(self, turn: Turn, made: PreparedTurn) -> int | None:
        """Return the input tokens as the API counts them; None if it does not."""
        try:
            body = to_messages.to_count(made.request.body)
            made.policy.counted = await self._counted(turn, body, made.body.model)
        except (ApiError, msgspec.DecodeError):
            return None
        return made.policy.counted

    async def _counted(self, turn: Turn, body: bytes, model: str) -> int:
        grant = Grant("count", self._key(), model, max_tokens=_MOST_OUTPUT, policy=self._policy())
        answer = b""
        async with self._meter.send(grant, COUNT_TOKENS, body, _headers(turn)) as exchange:
            while piece := await exchange.piece():
                answer += piece
        return msgspec.json.decode(answer, type=_Counted).input_tokens

    async def count(self, turn: Turn) -> int | None:
        """Implement `Backend`: as the API counts them, for which it charges nothing."""
        try:
            made = self.check(turn)
            return await self._counted(turn, made.body, made.model)
        except (ApiError, msgspec.DecodeError):
            return None

    # --- the answer ---------------------------------------------------------------------------------------------------

    def _key(self) -> Key:
        if self.key is None:
            raise NoRoom("there is no key")
        return self.key

    @asynccontextmanager
    async def answer(self, turn: Turn) -> AsyncIterator[MeteredReply]:
        """Implement `Backend`. What it may cost is in the ledger before it is sent, and what it came to after it."""
        decision = turn.decision
        assert decision is not None, "a metered turn is decided before it is answered"  # noqa: S101
        if turn.dialect == "messages" and turn.max_tokens is None:
            raise BadRequest("max_tokens", "it is missing")
        made, request, policy = self._prepared(turn)
        policy.checked = request
        charge = TurnCharge(
            decision=decision.id,
            created_at=time.time(),
            model=made.model,
            work_class=decision.facts.work_class,
            residency="metered",
            backend=self.name,
            price_version=self._prices.version,
            labels=decision.facts.labels,
        )
        labels = self.table.label_picos(charge.labels)
        payment = self.purse.pay(charge, self.table.turn_pico, labels, by_allowance=decision.by_allowance)
        grant = Grant(
            decision.id,
            self._key(),
            made.model,
            max_tokens=_MOST_OUTPUT,
            budgets=payment.budgets,
            on_hold=payment.hold,
            policy=policy,
            trace=None if self._tracing is None else self._tracing.within(_context(turn)),
        )
        omitted, outcome, status = made.omitted, "cancelled", 200
        sent = self._meter.send(grant, PATH, made.body, _headers(turn))
        del made, request
        try:
            async with sent as exchange:
                turn.release()
                try:
                    yield MeteredReply(exchange, omitted)
                    outcome = "done"
                except BackendError:
                    outcome = "failed"
                    raise
        except BudgetSpent as spent:
            if not grant.uncertain:
                raise NoRoom(spent.message) from None
            # The first try may be billed, and the turn's limit has no room for a second one.
            outcome, status = "failed", 502
            raise BackendError("the connection to the API was cut before an answer came", status=502) from None
        except ApiError as problem:
            outcome, status = "refused" if problem.status else "failed", problem.status or 502
            raise self._problem(turn, problem) from None
        except (sqlite3.Error, OSError) as error:
            outcome, status = "failed", 503
            raise BackendError(f"the gateway's ledger cannot be written: {error}", status=503) from None
        finally:
            payment.end(self._came_to(charge, grant, policy, outcome, status))

    def _came_to(
        self, charge: TurnCharge, grant: Grant, policy: HarnessPolicy, outcome: str, status: int
    ) -> TurnCharge:
        """Return the row of an ended turn. What may have been charged beside its cost is held."""
        usage, pico, terms, known = Usage(), 0, [], True
        for one in grant.charges:
            usage.add(one.usage)
            cost = self._prices.cost(grant.model, one.usage, one.terms)
            known, pico = known and cost is not None, pico + (cost or 0)
            terms += [one.terms.text] if one.terms.text else []
        terms += [f"passed={','.join(policy.unknown)}"] if policy.unknown else []
        held = sum(most or 0 for most in grant.held.values())
        done = bool(grant.charges) and grant.charges[-1].complete
        return msgspec.structs.replace(
            charge,
            usage=usage,
            # Of a request without a report nothing is known but the most that it can have cost.
            pico=pico if known and (grant.charges or not held) else None,
            held=held,
            outcome=outcome if done or outcome != "done" else "failed",
            status=status,
            seconds=time.time() - charge.created_at,
            terms=" ".join(terms),
            request_id=grant.charges[-1].request_id if grant.charges else "",
        )

    def _problem(self, turn: Turn, problem: ApiError) -> BackendError:
        """Return what a refusal of the API means for the client."""
        if problem.rejects_key or problem.status in (401, 403):
            # To the client these would speak of its own login. 402 is shown at once, and asked once.
            words = f"the API refuses the gateway's key: {problem.message}"
            self._refused = (Reason("key", words[:200]), time.monotonic() + _REFUSED_S)
            return BackendError(words, status=402 if turn.dialect == "messages" else 400, code=DEFERRED)
        # Not every refusal is the API's own: a proxy's page is none that a client can read.
        if problem.body.lstrip()[:1] == b"{" and turn.dialect == "messages":
            return BackendError(problem.message, status=problem.status, body=problem.body)
        if problem.status in (400, 413, 422, 404):
            long = problem.status == 413 or "prompt is too long" in problem.message
            status = problem.status if problem.status != 404 and turn.dialect == "messages" else 400
            return BackendError(problem.message, status=status, code=TOO_LONG if long else "invalid_request")
        found = BackendError(problem.message, status=problem.status if problem.status in (429, 529) else 502)
        if problem.retry_after_s is not None:
            found.headers["retry-after"] = str(max(1, round(problem.retry_after_s)))
        return found


def _context(turn: Turn) -> TraceContext | None:
    """Return the harness's trace. The headers themselves do not go to the API."""
    return context_of(turn.headers.get("traceparent"), turn.headers.get("tracestate"))


def _headers(turn: Turn) -> dict[str, str]:
    return {"anthropic-version": _VERSION, **(turn.headers if turn.dialect == "messages" else {})}
