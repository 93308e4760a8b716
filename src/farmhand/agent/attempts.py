"""A running task: attempts within its timeout until one succeeds, the task fails, or it is queued again."""

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
#: Delays between the attempts of one task. They are shorter than the meter's own retry delays.
_BETWEEN_ATTEMPTS = RetryPolicy(base_s=0.5, cap_s=20.0)
End = Callable[[int, AttemptEnd | None, Result | State], Awaitable[bool]]


class Parked(Exception):
    """The API refused the key; the task waits for another one."""


class Attempt:
    """A task that holds a slot. Any error raised here fails only this task."""

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
        #: The end of the attempt and the task's result, both possibly not in the ledger yet.
        self._ended: AttemptEnd | None = None
        self._result: Result | None = None

    async def run(self) -> None:
        """Run the task. On return the ledger has its final state, or its return to the queue."""
        try:
            await self._guarded()
        except NoLongerQueued:
            log.debug("task %s had ended before it began", self._claim.id)
        except LedgerDamaged:
            log.debug("task %s ends with the agent", self._claim.id)
        except LedgerStuck as error:
            # The agent is stopping: the task stays unfinished in the ledger, as after a crash.
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
        """Handle cancellation: end the task if a client cancelled it, or queue it again if the agent is stopping."""
        if self._live.cancelled:
            self._close("cancelled")
            await self._finish(Result(id=self._claim.id, state="cancelled", error=CANCELLED))
            return
        self._close("interrupted")
        # A task that already has its result, and only waits for disk space to record it, must not run again.
        await self._record(self._result or "queued", self._ledger.end)

    async def _attempts(self) -> None:
        # Record the start before reading the task: if the task crashes the agent, the ledger shows which task it was.
        await self._begin()
        task = self._ledger.spec(self._claim.seq)
        config = self._context.config
        limit = min(task.timeout_s or DEFAULT_TIMEOUT_S, config.task_timeout_max_s)
        deadline = time.monotonic() + limit
        # Attempts that ended because the agent ended count too.
        turn, tries = 1 + self._claim.crashes, 1
        while True:
            self._open(task)
            try:
                result, problem = await self._attempt(task, deadline, limit)
            except Parked:
                usable = self._context.keys.of(self._key.fingerprint) is not None
                await self._put_back("queued" if usable else "awaiting_key")
                return
            # Nobody watches a batch, and its tasks are not at fault while the API is unavailable. So they keep retrying
            # until their timeout. Such an attempt does not count, unless it may have been charged for.
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
        """Return whether the attempt that just ended cannot have cost anything."""
        return self._ended is not None and not self._ended.charges and not self._ended.uncertain

    async def _begin(self) -> None:
        """Record the start of an attempt in the ledger before doing any work for it."""
        self._begun = True
        await insist(lambda: self._ledger.start(self._claim.seq, self._key.fingerprint), unless=self._stopping)
        self._live.text.clear()
        self._live.publish({"type": "state", "state": "running"})

    def _stopping(self) -> bool:
        return self._context.stopping

    def _open(self, task: Task) -> None:
        """Create the grant that allows the attempt to make requests."""
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
            # Keep the last problem visible until the API answers.
            self._grant.problem, self._grant.again_at = before.problem, before.again_at

    async def _hold(self, request: int, most_pico: int | None) -> None:
        """Reserve the worst-case cost of a request before it is sent, so that a crash of the agent cannot lose it."""
        try:
            await insist(lambda: self._ledger.reserve(self._claim.seq, request, most_pico), unless=self._stopping)
        except (NoLongerQueued, LedgerStuck) as error:
            if not self._engine.makes_requests:
                raise
            raise ApiError("api_error", "this task's agent is stopping", status=503) from error

    def _note(self) -> None:
        """Record the charges so far after one of several answers. If this fails, the attempt's end does it."""
        if self._grant is not None:
            so_far = attempt_end(self._grant, self._context.prices, "running")
            noted = self._ledger.charge(self._claim.seq, so_far)
            noted.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _attempt(self, task: Task, deadline: float, limit: float) -> tuple[Result, EngineError | ApiError | None]:
        """Run one attempt. Return the result, and the error if a retry may help. Raise Parked if the key is refused."""
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
        """Mark the open attempt, if any, as ended."""
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
        """Return the task to `state`, in which it waits."""
        if await self._end(state):
            self._live.text.clear()
            self._live.publish(self._context.registry.state_event(state))

    async def _finish(self, result: Result) -> None:
        """Record the result. Clients that wait for it are notified after the commit."""
        self._result = result
        await self._end(result)

    async def _end(self, then: Result | State) -> bool:
        """Record the end of the attempt. Return False if the ledger refused it, which ends the task."""

        async def patiently(seq: int, ended: AttemptEnd | None, then: Result | State) -> bool:
            return await insist(lambda: self._ledger.end(seq, ended, then), unless=self._stopping)

        recorded = await self._record(then, patiently)
        if not recorded or isinstance(then, Result):
            self._context.registry.done(self._claim.batch, self._claim.id)
        return recorded

    async def _record(self, then: Result | State, end: End) -> bool:
        """Record the end through `end`. Return False if the ledger refused the result, which fails the task.

        If the ledger refuses only the charges, they become uncertain and the result is kept.
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
    """Return the attempt without the charges that the ledger refused. Everything reserved for it stays reserved."""
    return replace(end, charges=(), uncertain=end.uncertain + len(end.charges), held=None)


def attempt_end(grant: Grant, prices: PriceTable, outcome: str) -> AttemptEnd:
    """Return the end of the attempt that used `grant`, with its answers priced on their terms.

    A cut answer is charged for the part that was received. If charges cannot be read, the whole reservation stays.
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
