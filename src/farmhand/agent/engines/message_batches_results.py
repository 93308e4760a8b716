"""The results of a Message Batch: answers, errors, charges, and which tasks are retried."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from farmhand.agent.context import RunContext
from farmhand.agent.engines import EngineError, failure
from farmhand.agent.engines.api import result_of
from farmhand.agent.engines.reader import MessageReader
from farmhand.agent.store.commands import CRASHED, AttemptEnd, ChargeRow, crashed
from farmhand.agent.store.damage import LedgerStuck
from farmhand.agent.store.outbox import BatchedAttempt, MessageBatchStore, SentBatch
from farmhand.core.task import Result, State, resolve_model
from farmhand.meter.budget import Reservation
from farmhand.meter.errors import ApiError, problem_from_event
from farmhand.meter.grants import Key
from farmhand.meter.message_batches import ResultLine
from farmhand.meter.usage import usage_of

log = logging.getLogger("jada-agent")
#: Number of results to record together.
_TOGETHER = 200
_MAX_ID = 200
_EXPIRED = ApiError("expired", "the provider did not come to this request within 24 hours", retryable=True)
_CANCELED = ApiError("economy_cancelled", "the Message Batch was cancelled at the provider")
_LOST = ApiError("economy_lost", "the provider has this task's Message Batch, or its results, no more")


class MessageBatchResults:
    """Records the ends of attempts. `key_refused` is called when a key is no longer accepted."""

    def __init__(self, context: RunContext, store: MessageBatchStore, key_refused: Callable[[], None]) -> None:
        self._context = context
        self._ledger = context.ledger
        self._store = store
        self.key_refused = key_refused
        self._most = context.config.attempts
        #: Budget reservations by (task seq, attempt number), until the end of the attempt is recorded.
        self.reserved: dict[tuple[int, int], Reservation] = {}

    async def collect(self, sent: SentBatch, lines: AsyncIterator[ResultLine]) -> bool:
        """Record every result. Return False, with nothing recorded, if the batch belongs to another agent."""
        out = {self._store.custom_id(one): replace(one, sent_at=sent.created_at) for one in self._store.out(sent.no)}
        if not out or sent.crashes >= self._most:
            # The results were collected before the agent was stopped, or it crashes over them.
            for one in out.values():
                await self._crashed(one, sent.crashes)
            return True
        await self._store.collecting(sent.no)
        try:
            return await self._collect(sent, out, lines)
        finally:
            with suppress(LedgerStuck):
                await self._store.collected(sent.no)

    async def _collect(self, sent: SentBatch, out: dict[str, BatchedAttempt], lines: AsyncIterator[ResultLine]) -> bool:
        ours = bool(sent.id)
        # If results are processed together, a first crash of the agent cannot be attributed to one of them.
        alone = sent.suspected or self._most == 1
        together: list[tuple[BatchedAttempt, ResultLine]] = []
        async for line in lines:
            one = out.pop(line.custom_id, None)
            if one is None:
                if not ours:
                    return False
                continue
            ours = True
            if alone:
                # If the agent crashes over this result, the ledger shows which one it was.
                await self._store.handling(sent.no, one.seq)
                crashes = sent.suspected + one.crashes
                await (self._crashed(one, crashes) if crashes >= self._most else self._one(sent, one, line))
                continue
            together.append((one, line))
            if len(together) >= _TOGETHER:
                await asyncio.gather(*(self._one(sent, *both) for both in together))
                together = []
        await asyncio.gather(*(self._one(sent, *both) for both in together))
        await self.fail(sent.no)
        return True

    async def fail(self, no: int, problem: ApiError = _LOST) -> None:
        """Fail the tasks whose attempts in the batch have not ended. If the batch is lost, their cost is uncertain."""
        lost = problem is _LOST
        for one in self._store.out(no):
            await self._failed(one, problem, uncertain=int(lost))

    async def take_back(self, sent: SentBatch) -> None:
        """Return the tasks of a batch that the provider never had to where they wait. They cost nothing."""
        state: State = "awaiting_key" if self._context.pots.default(sent.pot) is None else "queued"
        await asyncio.gather(*(self._end(one, state, "parked") for one in self._store.out(sent.no)))

    def refuse(self, sent: SentBatch, key: Key, problem: ApiError) -> None:
        """Use `key` or its pot no more, since the API refused it."""
        self._context.pots[sent.pot].stops(key, problem)
        self.key_refused()

    async def _end(
        self, one: BatchedAttempt, then: Result | State, code: str, charge: ChargeRow | None = None, uncertain: int = 0
    ) -> None:
        """Record the end of the attempt and notify the waiting clients. A final task keeps its result.

        It cost nothing, what `charge` says, or an unknown amount if it is `uncertain`. Then the whole reservation stays
        in the ledger.
        """
        attempt = AttemptEnd(
            outcome=code,
            charges=[charge] if charge is not None else [],
            uncertain=uncertain,
            price_version=self._context.prices.version,
            held=None if uncertain else {},
        )
        nothing = None if uncertain else 0
        self._settle(one, nothing if charge is None else charge.cost_pico)
        self._trace(one, code, charge, then)
        changed = await self._ledger.end(one.seq, attempt, then)
        self.reserved.pop((one.seq, one.number), None)
        if changed and isinstance(then, Result):
            self._context.registry.done(one.batch, one.task_id)

    def _trace(self, one: BatchedAttempt, code: str, charge: ChargeRow | None, then: Result | State) -> None:
        """Make the spans of an attempt: it has no request of its own, and has lasted as long as its batch."""
        if self._context.tracing is None:
            return
        task = self._ledger.spec(one.seq)
        span = self._context.tracing.task(task, one.attempts, one.sent_at)
        if charge is not None:
            span.spent(charge.usage, charge.cost_pico)
        finish = then.stop_reason if isinstance(then, Result) else ""
        span.end("" if code == "succeeded" else code, finish=finish)

    def _settle(self, one: BatchedAttempt, cost: int | None) -> None:
        """Settle the attempt's reservation once, at `cost`, or at the reserved amount if that is unknown.

        The budgets of an attempt that was sent before a restart have the reserved amount as spent already.
        """
        reservation = self.reserved.get((one.seq, one.number))
        if reservation is not None:
            reservation.settle(reservation.pico if cost is None else cost)
        elif cost is not None:
            held = self._ledger.held(one.seq, one.number) or (0, 0.0)
            self._context.budgets.known(self._ledger.spec(one.seq), *held, cost)
            self._context.pots[one.pot].known(*held, cost)
            self.reserved[one.seq, one.number] = Reservation((), 0)

    async def _crashed(self, one: BatchedAttempt, times: int) -> None:
        """Fail the task: the agent has crashed over its result as often as allowed. Its cost stays uncertain."""
        await self._end(one, crashed(one.task_id, times), CRASHED, uncertain=1)

    async def _one(self, sent: SentBatch, one: BatchedAttempt, line: ResultLine) -> None:
        """Record one result. Any error in it fails the task, so that no task runs endlessly."""
        result = line.result
        try:
            if result.type == "succeeded":
                await self._succeeded(one, result.message or {})
            elif result.type == "errored":
                await self._errored(sent, one, problem_from_event(result.error or {}))
            else:
                await self._failed(one, _EXPIRED if result.type == "expired" else _CANCELED)
        except LedgerStuck:
            raise
        except Exception as error:
            log.exception("task %s: %s", one.task_id, type(error).__name__)
            why = f"its result could not be taken: {type(error).__name__}"
            failed = failure(one.task_id, EngineError("agent_error", why, hint="see the agent's journal"))
            await self._end(one, failed, "agent_error", uncertain=1)

    async def _succeeded(self, one: BatchedAttempt, message: dict[str, Any]) -> None:
        task = self._ledger.spec(one.seq)
        model, prices = resolve_model(task.model), self._context.prices
        usage, terms = usage_of(message.get("usage"), wrote=bool(message.get("content")), max_tokens=task.max_tokens)
        cost = prices.cost(model, usage, terms, economy=True)
        charge = ChargeRow(
            request_id=str(message.get("id") or "")[:_MAX_ID],
            model=model,
            usage=usage,
            cost_pico=cost,
            economy=True,
            terms=terms.text,
        )
        # If the terms have no price, the cost is unknown. If the model has no price at all, no cost could be known.
        unpriced = prices.cost(model, usage, economy=True) is None
        uncertain = int(bool(terms.unknown) or (cost is None and not unpriced))
        reader = MessageReader(lambda _text: None)
        try:
            reader.whole(message)
            result = await result_of(task, reader)
        except ApiError as error:
            await self._failed(one, error, charge, uncertain)
        else:
            await self._end(one, result, "succeeded", charge, uncertain)

    async def _errored(self, sent: SentBatch, one: BatchedAttempt, problem: ApiError) -> None:
        """Fail the task. If its key was refused, it awaits a new one, or the same again."""
        if not problem.rejects_key or one.final:
            await self._failed(one, problem)
            return
        pot = self._context.pots[sent.pot]
        key = pot.keys.of(sent.key_fingerprint)
        if key is not None:
            pot.stops(key, problem)
        await self._end(one, "awaiting_key" if self._context.pots.default(sent.pot) is None else "queued", "parked")
        self.key_refused()

    async def _failed(
        self, one: BatchedAttempt, problem: ApiError, charge: ChargeRow | None = None, uncertain: int = 0
    ) -> None:
        """Record an attempt without an answer. The task fails, or waits for another attempt."""
        if not problem.retryable or one.attempts >= self._most or one.final:
            await self._end(one, failure(one.task_id, problem), problem.code, charge, uncertain)
            return
        state: State = "awaiting_key" if self._context.pots.default(one.pot) is None else "queued"
        await self._end(one, state, problem.code, charge, uncertain)
        self._context.registry.publish(one.task_id, {"type": "restart", "reason": problem.message})
