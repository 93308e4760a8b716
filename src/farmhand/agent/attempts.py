"""A running task: attempt after attempt, within its time, until one brings a result or it has to wait again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from farmhand.agent.context import RunContext
from farmhand.agent.engines import Engine, EngineError
from farmhand.agent.events import RunningTask
from farmhand.agent.store.commands import CANCELLED, AttemptEnd, ChargeRow, NoLongerQueued
from farmhand.agent.store.damage import LedgerDamaged, LedgerStuck
from farmhand.agent.store.ledger import insist
from farmhand.agent.store.queries import QueuedTask
from farmhand.core.prices import PriceTable
from farmhand.core.task import DEFAULT_TIMEOUT_S, Result, State, Task, TaskError, resolve_model
from farmhand.meter import ApiError, Grant, Key, RetryPolicy

log = logging.getLogger("jada-agent")
#: How long the attempts of one task wait for each other; the meter's own retries wait longer.
_BETWEEN_ATTEMPTS = RetryPolicy(base_s=0.5, cap_s=20.0)
End = Callable[[int, AttemptEnd | None, Result | State], Awaitable[bool]]


class Parked(Exception):
    """The API does not take the key: the task waits for another one."""


class Attempt:
    """One task while it holds a slot. Whatever goes wrong in here is this task's failure alone."""

    def __init__(self, context: RunContext, engine: Engine, claim: QueuedTask, key: Key, live: RunningTask) -> None:
        self._context = context
        self._ledger = context.ledger
        self._engine = engine
        self._claim = claim
        self._key = key
        self._live = live
        #: Whether an attempt is open, and its grant.
        self._begun = False
        self._grant: Grant | None = None
        #: How an attempt ended, and the task, that the ledger may not have yet.
        self._ended: AttemptEnd | None = None
        self._result: Result | None = None

    async def run(self) -> None:
        """Run the task; its final state, or its return to the queue, is in the ledger when this returns."""
        try:
            await self._guarded()
        except NoLongerQueued:
            log.debug("task %s had ended before it began", self._claim.id)
        except LedgerDamaged:
            log.debug("task %s ends with the agent", self._claim.id)
        except LedgerStuck as error:
            # Stopping: as after a crash, the task is unfinished in the ledger.
            log.error("task %s: %s", self._claim.id, error)

    async def _guarded(self) -> None:
        try:
            await self._attempts()
        except asyncio.CancelledError:
            await self._cut()
        except (NoLongerQueued, LedgerStuck):
            raise
        except Exception as error:
            log.exception("task %s: %s", self._claim.id, type(error).__name__)
            self._close("agent_error")
            await self._finish(self._failed("agent_error", f"the agent failed: {type(error).__name__}"))

    async def _cut(self) -> None:
        """Ended from outside: cancelled for good, or put back because the agent stops."""
        if self._live.cancelled:
            self._close("cancelled")
            await self._finish(Result(id=self._claim.id, state="cancelled", error=CANCELLED))
            return
        self._close("interrupted")
        # What has its result, and waits for room on the disk to record it, does not run again.
        await self._record(self._result or "queued", self._ledger.end)

    async def _attempts(self) -> None:
        # Before anything of the task is looked at: whatever that does to the agent, it is known which task it was.
        await self._begin()
        task = self._ledger.spec(self._claim.seq)
        config = self._context.config
        limit = min(task.timeout_s or DEFAULT_TIMEOUT_S, config.task_timeout_max_s)
        deadline = time.monotonic() + limit
        # Attempts that ended with the agent count as well.
        turn, tries = 1 + self._claim.crashes, 1
        while True:
            self._open(task)
            try:
                result, problem = await self._attempt(task, deadline, limit)
            except Parked:
                usable = self._context.keys.of(self._key.fingerprint) is not None
                await self._put_back("queued" if usable else "awaiting_key")
                return
            # Nobody sits before a batch, and it is no fault of its tasks that the API cannot for the moment: they wait
            # as long as their time lasts. Such an attempt does not count, unless it may have been charged for.
            waits = bool(task.batch) and isinstance(problem, ApiError) and problem.passes
            counts = not (waits and self._was_free())
            if waits and self._context.mode == "running":
                await self._put_back("queued")
                return
            again = waits or (problem is not None and problem.retryable)
            if not again or (counts and turn >= config.attempts):
                await self._finish(result)
                return
            if not await self._end("running"):
                return
            self._ended = None
            assert result.error is not None  # noqa: S101  (only errors are tried again)
            self._live.publish({"type": "restart", "reason": result.error.message})
            delay = _BETWEEN_ATTEMPTS.delay_s(tries, None)
            if self._live.grant is not None:
                self._live.grant.again_at = time.time() + delay
            await asyncio.sleep(delay)
            turn += counts
            tries += 1
            await self._begin()

    def _was_free(self) -> bool:
        """Whether the attempt that has just ended can have cost nothing."""
        return self._ended is not None and not self._ended.charges and not self._ended.uncertain

    async def _begin(self) -> None:
        """The attempt is in the ledger before anything is done for it."""
        self._begun = True
        await insist(lambda: self._ledger.start(self._claim.seq, self._key.fingerprint), unless=self._stopping)
        self._live.text.clear()
        self._live.publish({"type": "state", "state": "running"})

    def _stopping(self) -> bool:
        return self._context.stopping

    def _open(self, task: Task) -> None:
        """The attempt may spend."""
        before = self._live.grant
        self._live.grant = self._grant = Grant(
            task_id=task.id,
            key=self._key,
            model=resolve_model(task.model),
            max_tokens=task.max_tokens,
            budgets=self._context.budgets.of(task),
        )
        self._grant.on_hold = self._hold
        if self._engine.makes_requests:
            self._grant.on_charge = self._note
        if before is not None:
            # Until the API answers, what it said last holds.
            self._grant.problem, self._grant.again_at = before.problem, before.again_at

    async def _hold(self, request: int, most_pico: int | None) -> None:
        """A request is about to leave: what it may cost is spent from now on, whatever becomes of the agent."""
        try:
            await insist(lambda: self._ledger.reserve(self._claim.seq, request, most_pico), unless=self._stopping)
        except (NoLongerQueued, LedgerStuck) as error:
            if not self._engine.makes_requests:
                raise
            raise ApiError("api_error", "this task's agent is stopping", status=503) from error

    def _note(self) -> None:
        """Of an attempt with many answers each is recorded as it comes; where that fails, the attempt's end does it."""
        if self._grant is not None:
            so_far = attempt_end(self._grant, self._context.prices, "running")
            noted = self._ledger.charge(self._claim.seq, so_far)
            noted.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _attempt(self, task: Task, deadline: float, limit: float) -> tuple[Result, EngineError | ApiError | None]:
        """One attempt: its result, and what went wrong, if another one may do better. Raises Parked."""
        grant = self._grant
        assert grant is not None  # noqa: S101  (_open has made it)
        try:
            left = deadline - time.monotonic()
            async with asyncio.timeout(left):
                answer = await self._engine.run(task, grant, self._live.add_text, left)
            self._close("succeeded")
            return answer.as_result(task.id), None
        except TimeoutError:
            self._close("timeout")
            message, hint = f"the task ran longer than {limit:g} s", "raise --timeout, or make the task smaller"
            if grant.problem is not None:
                message += f" (the API's last answer: {grant.problem.message})"
                hint = grant.problem.hint or hint
            return self._failed("timeout", message, hint), None
        except (EngineError, ApiError) as error:
            if isinstance(error, ApiError) and error.parks_key:
                self._context.keys.refuse(self._key, error)
                self._close("parked")
                raise Parked from None
            self._close(error.code)
            return self._failed(error.code, error.message, error.hint), error

    def _close(self, outcome: str) -> None:
        """The open attempt, if there is one, has ended."""
        begun, self._begun = self._begun, False
        grant, self._grant = self._grant, None
        if not begun:
            return
        if grant is None:
            self._ended = AttemptEnd(outcome=outcome, price_version=self._context.prices.version)
        else:
            self._ended = attempt_end(grant, self._context.prices, outcome)
        if self._ended.charges:
            self._context.keys.prove(self._key)

    async def _put_back(self, state: State) -> None:
        """The task waits again."""
        if await self._end(state):
            self._live.text.clear()
            self._live.publish(self._context.registry.state_event(state))

    async def _finish(self, result: Result) -> None:
        """Record the result; those who wait for it hear it once it is committed."""
        self._result = result
        await self._end(result)

    async def _end(self, then: Result | State) -> bool:
        """Record the end of the attempt. False: that was refused, and it is the task's end; those who wait know."""

        async def patiently(seq: int, ended: AttemptEnd | None, then: Result | State) -> bool:
            return await insist(lambda: self._ledger.end(seq, ended, then), unless=self._stopping)

        recorded = await self._record(then, patiently)
        if not recorded or isinstance(then, Result):
            self._context.registry.done(self._claim.batch, self._claim.id)
        return recorded

    async def _record(self, then: Result | State, end: End) -> bool:
        """Have `end` record it. Figures that the ledger will not take are uncertain, and what was answered counts all
        the same; an answer that it will not take ends the task. False where that came to pass.
        """
        for tries_left in (2, 1, 0):
            try:
                await end(self._claim.seq, self._ended, then)
                break
            except LedgerStuck:
                raise
            except Exception as error:
                if not tries_left:
                    raise
                name = type(error).__name__
                log.exception("task %s: its end could not be recorded as it is: %s", self._claim.id, name)
                if self._ended is not None:
                    self._ended = uncounted(self._ended)
                if tries_left == 1:
                    if self._ended is not None:
                        self._ended = replace(self._ended, outcome="agent_error")
                    then = self._failed("agent_error", f"the end of an attempt could not be recorded: {name}")
        return bool(tries_left)

    def _failed(self, code: str, message: str, hint: str = "see its journal") -> Result:
        return Result(id=self._claim.id, state="failed", error=TaskError(code=code, message=message, hint=hint))


def uncounted(end: AttemptEnd) -> AttemptEnd:
    """The attempt without charges that the ledger will not take: all that was reserved for it stays so."""
    return replace(end, charges=(), uncertain=end.uncertain + len(end.charges), held=None)


def attempt_end(grant: Grant, prices: PriceTable, outcome: str) -> AttemptEnd:
    """The end of the attempt that used `grant`, its answers priced on their terms.

    Of an answer that broke off what had passed is charged. Where charges cannot be read, all of it stays reserved.
    """
    end = AttemptEnd(
        outcome=outcome,
        retries=grant.retries,
        uncertain=grant.uncertain,
        held=dict(grant.held),
        price_version=prices.version,
    )
    try:
        charges = [
            ChargeRow(
                request_id=charge.request_id,
                model=grant.model,
                usage=charge.usage,
                cost_pico=prices.cost(grant.model, charge.usage, charge.terms),
                terms=charge.terms.text,
            )
            for charge in grant.charges
        ]
    except Exception as error:
        log.exception("task %s: its charges cannot be read: %s", grant.task_id, type(error).__name__)
        return replace(end, uncertain=grant.uncertain + len(grant.charges), held=None)
    return replace(end, charges=charges)
