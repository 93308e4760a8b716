"""A running task: attempts within its timeout until one succeeds, the task fails, or it is queued again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from farmhand.agent.context import LARGE_BYTES, RunContext
from farmhand.agent.engines import COLLECT_S, Engine, EngineError, failure
from farmhand.agent.events import RunningTask
from farmhand.agent.pots import Pot
from farmhand.agent.store.commands import CANCELLED, AttemptEnd, ChargeRow, NoLongerQueued
from farmhand.agent.store.damage import LedgerDamaged, LedgerStuck
from farmhand.agent.store.ledger import insist
from farmhand.agent.store.queries import QueuedTask
from farmhand.core.prices import PriceTable
from farmhand.core.task import DEFAULT_TIMEOUT_S, Result, State, Task, resolve_model
from farmhand.meter.errors import ApiError
from farmhand.meter.grants import Grant, Key
from farmhand.meter.meter import RetryPolicy

if TYPE_CHECKING:
    from farmhand.telemetry.spans import OwnSpan

log = logging.getLogger("jada-agent")
#: Delays between the attempts of one task. They are shorter than the meter's own retry delays.
_BETWEEN_ATTEMPTS = RetryPolicy(base_s=0.5, cap_s=20.0)
_OPEN = AttemptEnd(outcome="running")
#: The outcome of an attempt whose key was refused or whose pot is spent. It is none of the task's attempts.
PARKED = "parked"


class Attempt:
    """A task that holds a slot. Any error raised here fails only this task."""

    def __init__(
        self, context: RunContext, engine: Engine, claim: QueuedTask, pot: Pot, key: Key, live: RunningTask
    ) -> None:
        self._context = context
        self._ledger = context.ledger
        self._engine = engine
        self._claim = claim
        self._pot = pot
        self._key = key
        self._live = live
        self._grant: Grant | None = None
        #: The end of the attempt and the task's result, both possibly not in the ledger yet.
        self._ended = _OPEN
        self._result: Result | None = None
        self._span: OwnSpan | None = None

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
        finally:
            if self._span is not None:
                said, outcome = self._result, self._ended.outcome
                self._span.end("" if outcome == "succeeded" else outcome, finish=said.stop_reason if said else "")

    async def _guarded(self) -> None:
        try:
            await self._attempts()
        except asyncio.CancelledError:
            if self._live.cancelled:
                self._close("cancelled")
                await self._end(Result(id=self._claim.id, state="cancelled", error=CANCELLED))
                return
            # The agent is stopping. A task that already has its result, and only waits for disk space to record it,
            # must not run again.
            self._close("interrupted")
            await self._end(self._result or "queued")
        except (NoLongerQueued, LedgerStuck):
            raise
        except Exception as error:
            log.exception("task %s: %s", self._claim.id, type(error).__name__)
            self._close("agent_error")
            await self._end(self._failed("agent_error", f"the agent failed: {type(error).__name__}"))

    async def _attempts(self) -> None:
        # Record the start before reading the task: if the task crashes the agent, the ledger shows which task it was.
        await self._begin()
        large = self._ledger.spec_bytes(self._claim.seq) > LARGE_BYTES
        async with self._context.large if large else contextlib.nullcontext():
            await self._tries(self._ledger.spec(self._claim.seq))

    async def _tries(self, task: Task) -> None:
        config = self._context.config
        limit = min(task.timeout_s or DEFAULT_TIMEOUT_S, config.task_timeout_max_s)
        deadline = time.monotonic() + limit
        if self._context.tracing is not None:
            self._span = self._context.tracing.task(task, self._claim.crashes)
        # Attempts that ended because the agent ended count too.
        turn, tries = 1 + self._claim.crashes, 1
        while True:
            result, problem = await self._attempt(task, self._open(task), deadline, limit)
            if self._ended.outcome == PARKED:
                _, key = self._context.pots.key(self._claim.pot, self._key.fingerprint)
                return await self._put_back("awaiting_key" if key is None else "queued")
            # Nobody watches a batch, and its tasks are not at fault while the API is unavailable. So they keep retrying
            # until their timeout. Such an attempt does not count, unless it may have been charged for.
            waits = bool(task.batch) and isinstance(problem, ApiError) and problem.is_transient
            counts = not waits or bool(self._ended.charges or self._ended.uncertain)
            if waits and self._context.mode == "running":
                return await self._put_back("queued")
            if problem is None or not (waits or problem.retryable) or (counts and turn >= config.attempts):
                await self._end(result)
                return None
            if not await self._end("running"):
                return None
            self._ended = _OPEN
            self._live.publish({"type": "restart", "reason": problem.message})
            delay = _BETWEEN_ATTEMPTS.delay_s(tries, None)
            if self._live.grant is not None:
                self._live.grant.again_at = time.time() + delay
            await asyncio.sleep(delay)
            turn += counts
            tries += 1
            await self._begin()

    async def _begin(self) -> None:
        """Record the start of an attempt in the ledger before doing any work for it."""
        await insist(
            lambda: self._ledger.start(self._claim.seq, self._key.fingerprint, self._pot.name), unless=self._stopping
        )
        self._live.text.clear()
        self._live.publish({"type": "state", "state": "running"})

    def _stopping(self) -> bool:
        return self._context.stopping

    def _open(self, task: Task) -> Grant:
        """Return the grant that allows the attempt to make requests."""
        before = self._live.grant
        if self._span is not None:
            self._span.again()
        grant = self._live.grant = self._grant = Grant(
            task_id=task.id,
            key=self._key,
            model=resolve_model(task.model),
            max_tokens=task.max_tokens,
            budgets=self._context.budgets.of(task, self._pot.budget),
            on_hold=self._hold,
            trace=self._span,
        )
        if self._engine.makes_requests:
            grant.on_charge = self._note
        if before is not None:
            # Keep the last problem visible until the API answers.
            grant.problem, grant.again_at = before.problem, before.again_at
        return grant

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

    async def _attempt(
        self, task: Task, grant: Grant, deadline: float, limit: float
    ) -> tuple[Result, EngineError | ApiError | None]:
        """Run one attempt. Return the result, and the engine's error if there is one."""
        try:
            left = deadline - time.monotonic()
            if left <= 0:  # the changes of the attempt before are not given up for this one
                raise TimeoutError
            async with asyncio.timeout(left + COLLECT_S if task.repo else left):
                result = await self._engine.run(task, grant, self._live.add_text, left)
        except TimeoutError:
            self._close("timeout")
            message, hint = f"the task ran longer than {limit:g} s", "raise --timeout, or make the task smaller"
            if grant.problem is not None:
                message += f" (the API's last answer: {grant.problem.message})"
                hint = grant.problem.hint or hint
            return self._failed("timeout", message, hint), None
        except (EngineError, ApiError) as error:
            outcome = error.code
            if isinstance(error, ApiError) and self._pot.stops(self._key, error):
                outcome = PARKED
            self._close(outcome)
            return failure(self._claim.id, error), error
        self._close("succeeded")
        return result, None

    def _close(self, outcome: str) -> None:
        """Mark the attempt as ended, unless it is. The ledger ignores the end of one that never began."""
        if self._ended is not _OPEN:
            return
        grant, self._grant = self._grant, None
        if grant is None:
            self._ended = AttemptEnd(outcome=outcome, price_version=self._context.prices.version)
        else:
            self._ended = attempt_end(grant, self._context.prices, outcome)
        if self._ended.charges:
            self._pot.keys.prove(self._key)

    async def _put_back(self, state: State) -> None:
        """Return the task to `state`, in which it waits."""
        if await self._end(state):
            self._live.text.clear()
            self._live.publish(self._context.registry.state_event(state, self._claim.pot))

    async def _end(self, then: Result | State) -> bool:
        """Record the end of the attempt, then notify the clients that wait for a result.

        Return False if the ledger refused it, which fails the task. If it refuses only the charges, they become
        uncertain and the result is kept.
        """
        if isinstance(then, Result):
            self._result = then
        refused = 0
        while True:
            try:
                await insist(partial(self._ledger.end, self._claim.seq, self._ended, then), unless=self._stopping)
                break
            except LedgerStuck:
                raise
            except Exception as error:
                refused += 1
                if refused > 2:
                    raise
                name = type(error).__name__
                log.exception("task %s: its end could not be recorded as it is: %s", self._claim.id, name)
                self._ended = uncounted(self._ended)
                if refused == 2:
                    self._ended = replace(self._ended, outcome="agent_error")
                    then = self._failed("agent_error", f"the end of an attempt could not be recorded: {name}")
        if isinstance(then, Result):
            self._context.registry.done(self._claim.batch, self._claim.id)
        return refused < 2

    def _failed(self, code: str, message: str, hint: str = "see its journal") -> Result:
        return failure(self._claim.id, EngineError(code, message, hint=hint))


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
