"""What became of the requests of a Message Batch: answers, errors, charges, and which tasks go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Any

from farmhand.agent.context import RunContext
from farmhand.agent.engines import EngineError
from farmhand.agent.engines.api import answer_of
from farmhand.agent.engines.reader import MessageReader
from farmhand.agent.store.commands import AttemptEnd, ChargeRow
from farmhand.agent.store.ledger import LedgerStuck
from farmhand.agent.store.outbox import BatchedAttempt, MessageBatchStore, SentBatch
from farmhand.agent.store.recovery import CRASHED, crashed
from farmhand.core.task import Result, State, Task, TaskError, resolve_model
from farmhand.meter import ApiError, Reservation
from farmhand.meter.errors import problem_from_event
from farmhand.meter.message_batches import ResultLine
from farmhand.meter.usage import usage_of

log = logging.getLogger("jada-agent")
#: Results that are recorded together.
_TOGETHER = 200
_MAX_ID = 200
_EXPIRED = ApiError("expired", "the provider did not come to this request within 24 hours", retryable=True)
_CANCELED = ApiError("economy_cancelled", "the Message Batch was cancelled at the provider")
_LOST = ApiError("economy_lost", "the provider has this task's Message Batch, or its results, no more")


class MessageBatchResults:
    """Records ends. `reserved` are the reservations of budgets by (seq, number of the attempt).

    `key_refused` is called where a result says that a key is not served any more.
    """

    def __init__(
        self,
        room: RunContext,
        outbox: MessageBatchStore,
        reserved: dict[tuple[int, int], Reservation],
        key_refused: Callable[[], None],
    ) -> None:
        self._room = room
        self._key_refused = key_refused
        self._outbox = outbox
        self._reserved = reserved

    async def collect(self, sent: SentBatch, lines: AsyncIterator[ResultLine]) -> bool:
        """Record every result. False, and nothing recorded, where the batch is another's."""
        out = {self._outbox.custom_id(one): one for one in self._outbox.out(sent.no)}
        if not out:
            # Collected before, and then the agent was stopped.
            return True
        if sent.crashes >= self._room.config.attempts:
            for one in out.values():
                await self._crashed(one, sent.crashes)
            return True
        await self._outbox.collecting(sent.no)
        try:
            return await self._collect(sent, out, lines)
        finally:
            with suppress(LedgerStuck):
                await self._outbox.collected(sent.no)

    async def _collect(self, sent: SentBatch, out: dict[str, BatchedAttempt], lines: AsyncIterator[ResultLine]) -> bool:
        ours = bool(sent.id)
        # Taken in together, nobody could tell whose result it was that took the agent down for the first time.
        alone = sent.suspected or self._room.config.attempts == 1
        together: list[tuple[BatchedAttempt, ResultLine]] = []
        async for line in lines:
            one = out.pop(line.custom_id, None)
            if one is None:
                if not ours and not together:
                    return False
                continue
            ours = True
            if alone:
                await self._alone(sent, one, line)
                continue
            together.append((one, line))
            if len(together) >= _TOGETHER:
                await self._record(sent, together)
                together = []
        await self._record(sent, together)
        for one in out.values():
            await self._end(one, self._room.ledger.spec(one.seq), _LOST, uncertain=1)
        return True

    async def _alone(self, sent: SentBatch, one: BatchedAttempt, line: ResultLine) -> None:
        """Should the agent crash over this result, it is known that it was this one."""
        await self._outbox.handling(sent.no, one.seq)
        crashes = sent.suspected + one.crashes
        if crashes >= self._room.config.attempts:
            await self._crashed(one, crashes)
        else:
            await self._one(sent, one, line)

    async def _crashed(self, one: BatchedAttempt, times: int) -> None:
        """The agent has ended over this result as often as it may: its task fails, and its cost stays uncertain."""
        self._keep(one)
        await self.finish(one.seq, one.task_id, one.batch, self._attempt(CRASHED, [], 1), crashed(one.task_id, times))

    async def lost(self, no: int) -> None:
        """Nothing more is to be learned of the batch: what it may have cost is uncertain."""
        for one in self._outbox.out(no):
            await self._end(one, self._room.ledger.spec(one.seq), _LOST, uncertain=1)

    def drop(self, out: Iterable[BatchedAttempt]) -> None:
        """What was reserved for these is free again: they have cost nothing."""
        for one in out:
            self._settle(one, self._room.ledger.spec(one.seq), 0)

    async def _record(self, sent: SentBatch, together: list[tuple[BatchedAttempt, ResultLine]]) -> None:
        await asyncio.gather(*(self._one(sent, one, line) for one, line in together))

    async def _one(self, sent: SentBatch, one: BatchedAttempt, line: ResultLine) -> None:
        """Whatever is wrong with a result, its task does not run for ever."""
        try:
            await self._take(sent, one, line)
        except LedgerStuck:
            raise
        except Exception as error:
            log.exception("task %s: %s", one.task_id, type(error).__name__)
            self._keep(one)
            why = f"its result could not be taken: {type(error).__name__}"
            failed = TaskError(code="agent_error", message=why, hint="see the agent's journal")
            result = Result(id=one.task_id, state="failed", error=failed)
            await self.finish(one.seq, one.task_id, one.batch, self._attempt("agent_error", [], 1), result)

    async def _take(self, sent: SentBatch, one: BatchedAttempt, line: ResultLine) -> None:
        task = self._room.ledger.spec(one.seq)
        match line.result.type:
            case "succeeded":
                await self._succeeded(one, task, line.result.message or {})
            case "errored":
                problem = problem_from_event(line.result.error or {})
                if problem.parks_key and not one.final:
                    await self._park(sent, one, problem)
                else:
                    await self._end(one, task, problem)
            case "expired":
                await self._end(one, task, _EXPIRED)
            case _:
                await self._end(one, task, _CANCELED)

    async def _succeeded(self, one: BatchedAttempt, task: Task, message: dict[str, Any]) -> None:
        model = resolve_model(task.model)
        usage, terms = usage_of(message.get("usage"), wrote=bool(message.get("content")), max_tokens=task.max_tokens)
        cost = self._room.prices.cost(model, usage, terms, economy=True)
        charge = ChargeRow(
            request_id=str(message.get("id") or "")[:_MAX_ID],
            model=model,
            usage=usage,
            cost_pico=cost,
            economy=True,
            terms=terms.text,
        )
        self._settle(one, task, cost)
        reader = MessageReader(lambda _text: None)
        # Terms without a price leave the cost unknown; a model without any has none that could be known.
        unpriced = self._room.prices.cost(model, usage, economy=True) is None
        uncertain = int(bool(terms.unknown) or (cost is None and not unpriced))
        try:
            reader.whole(message)
            answer = await answer_of(task, reader)
        except (EngineError, ApiError) as error:
            await self._end(one, task, error, charges=[charge], uncertain=uncertain)
            return
        result = Result(
            id=task.id,
            state="succeeded",
            text=answer.text,
            structured=answer.structured,
            stop_reason=answer.stop_reason,
        )
        await self.finish(one.seq, task.id, one.batch, self._attempt("succeeded", [charge], uncertain), result)

    async def _end(
        self,
        one: BatchedAttempt,
        task: Task,
        problem: ApiError | EngineError,
        *,
        charges: list[ChargeRow] | None = None,
        uncertain: int = 0,
    ) -> None:
        """The attempt brought no answer: the task fails, or waits for another attempt."""
        if uncertain:
            self._keep(one)
        elif charges is None:
            self._settle(one, task, 0)
        attempt = self._attempt(problem.code, charges or [], uncertain)
        if problem.retryable and one.attempts < self._room.config.attempts and not one.final:
            state: State = "queued" if self._room.keys.held else "awaiting_key"
            await self._room.ledger.end(one.seq, attempt, state)
            live = self._room.stage.get(one.task_id)
            if live is not None:
                live.tell({"type": "restart", "reason": problem.message})
            return
        error = TaskError(code=problem.code, message=problem.message, hint=problem.hint)
        await self.finish(one.seq, one.task_id, one.batch, attempt, Result(id=task.id, state="failed", error=error))

    async def _park(self, sent: SentBatch, one: BatchedAttempt, problem: ApiError) -> None:
        """The request was refused for its key: the task waits for another one, or for this one to be brought again."""
        self.drop([one])
        key = self._room.keys.of(sent.key_fingerprint)
        if key is not None:
            self._room.keys.refuse(key, problem)
        await self._room.ledger.end(one.seq, self._attempt("parked", []), "awaiting_key")
        self._key_refused()

    def _attempt(self, outcome: str, charges: list[ChargeRow], uncertain: int = 0) -> AttemptEnd:
        """An attempt's end; of one whose cost is `uncertain` all stays reserved."""
        return AttemptEnd(
            outcome=outcome,
            charges=charges,
            uncertain=uncertain,
            price_version=self._room.prices.version,
            held=None if uncertain else {},
        )

    def _keep(self, one: BatchedAttempt) -> None:
        """What the attempt did cost will never be known: what was reserved for it is spent."""
        reservation = self._reserved.pop((one.seq, one.number), None)
        if reservation is not None:
            reservation.settle(reservation.pico)

    def _settle(self, one: BatchedAttempt, task: Task, cost: int | None) -> None:
        """It cost `cost`; where that is not known, what was reserved."""
        if cost is None:
            self._keep(one)
            return
        reservation = self._reserved.pop((one.seq, one.number), None)
        if reservation is not None:
            reservation.settle(cost)
        else:
            # Sent before a restart.
            held = self._room.ledger.held(one.seq, one.number) or (0, 0.0)
            self._room.budgets.known(task, *held, cost)

    async def finish(self, seq: int, task_id: str, batch: str, attempt: AttemptEnd | None, result: Result) -> None:
        """Record a task's end and tell those who wait for it. One that is final already keeps what it has."""
        if await self._room.ledger.end(seq, attempt, result):
            self._room.progress.done(batch)
            self._room.stage.end(task_id)
