"""Which task runs when: takes tasks in, starts them as slots are free, tries again, and tells whoever listens."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from farmhand.agent.config import Config
from farmhand.agent.engines import Answer, Engine, EngineError
from farmhand.agent.ledger import Ledger, LedgerStuck
from farmhand.cost.money import usd
from farmhand.cost.prices import price_table
from farmhand.errors import FarmhandError
from farmhand.meter import ApiError, Grant, Key, Meter, RetryPolicy
from farmhand.task import DEFAULT_TIMEOUT_S, FINAL_STATES, Result, State, Task, TaskError, resolve_model

log = logging.getLogger("jada-agent")
_PING_S = 10.0
#: How often a ledger that cannot be written is tried again.
_STUCK_S = 2.0
#: How long the attempts of one task wait for each other; the meter's own retries wait longer.
_BETWEEN_ATTEMPTS = RetryPolicy(base_s=0.5, cap_s=10.0)
Event = dict[str, Any]
T = TypeVar("T")


class Draining(FarmhandError):
    """The agent is stopping and takes no tasks."""

    code = "draining"


@dataclass(slots=True)
class _Live:
    """A task that somebody watches or that runs: the text so far and who listens."""

    text: list[str] = field(default_factory=list)
    listeners: set[asyncio.Queue[Event]] = field(default_factory=set)
    job: asyncio.Task[None] | None = None
    cancelled: bool = False

    def tell(self, event: Event) -> None:
        for listener in self.listeners:
            listener.put_nowait(event)


class Scheduler:
    """Owns the keys in memory, the waiting lines and the running attempts. All methods belong to one event loop."""

    def __init__(self, config: Config, ledger: Ledger, meter: Meter, engines: dict[str, Engine]) -> None:
        self._config = config
        self._ledger = ledger
        self._meter = meter
        self._engines = engines
        self._slots = {"api": config.slots_api, "cli": config.slots_cli}
        self._busy = dict.fromkeys(self._slots, 0)
        self._lines: dict[str, deque[str]] = {engine: deque() for engine in self._slots}
        self._live: dict[str, _Live] = {}
        self._keys: dict[str, Key] = {}
        self._key: Key | None = None
        self._key_of: dict[str, str | None] = {}
        self.draining = False
        if ledger.recover():
            for task_id, engine in ledger.waiting():
                self._key_of[task_id] = None
                self._lines[engine].append(task_id)
            log.info("%d unfinished tasks await a key", len(self._key_of))

    # --- what clients ask for -------------------------------------------------------------------------------------

    def submit(self, tasks: list[Task], key: Key | None) -> dict[str, State]:
        """Take `tasks`, all or none; each runs on `key`, or the newest key there is. Returns the state by id."""
        if self.draining:
            raise Draining("the agent is stopping and takes no tasks", hint="send it again in a moment")
        if key is not None:
            self._hold(key)
        holder = key or self._key
        states = self._ledger.submit(
            tasks, "queued" if holder else "awaiting_key", holder.fingerprint if holder else None
        )
        for task in tasks:
            if states[task.id] in {"queued", "awaiting_key"} and task.id not in self._key_of:
                self._key_of[task.id] = holder.fingerprint if holder else None
                self._lines[task.resolved_engine].append(task.id)
        if key is not None:
            self._resume(key, replace=False)
        self._pump()
        return {task_id: "queued" if key and state == "awaiting_key" else state for task_id, state in states.items()}

    def set_key(self, key: Key) -> int:
        """Every waiting task, and every later one without a key of its own, runs on `key`. How many had awaited one."""
        self._hold(key)
        resumed = self._resume(key, replace=True)
        self._forget_keys()
        self._pump()
        return resumed

    def _resume(self, key: Key, *, replace: bool) -> int:
        """Tasks that await a key go on with `key`; with `replace` all that wait do. How many had awaited one."""
        resumed = self._ledger.set_key(key.fingerprint, replace=replace)
        for task_id in resumed:
            if task_id in self._live:
                self._live[task_id].tell({"type": "state", "state": "queued"})
        for task_id in self._key_of if replace else resumed:
            self._key_of[task_id] = key.fingerprint
        return len(resumed)

    async def cancel(self, task_id: str) -> Result:
        """End the task, whatever it does. Returns what it is then; KeyError for an unknown id."""
        result = self._ledger.result(task_id)
        if result.state in FINAL_STATES:
            return result
        live = self._live.get(task_id)
        if live is not None and live.job is not None:
            live.cancelled = True
            live.job.cancel()
            await asyncio.wait({live.job})
        else:
            self._drop(task_id)
        error = TaskError(code="cancelled", message="the task was cancelled")
        self._finish(task_id, Result(id=task_id, state="cancelled", error=error), live)
        return self._ledger.result(task_id)

    async def events(self, task_id: str) -> AsyncIterator[Event]:
        """The text so far, then what happens to the task as it happens, last its result. KeyError for an unknown id."""
        result = self._ledger.result(task_id)
        if result.state not in FINAL_STATES:
            live = self._live.setdefault(task_id, _Live())
            queue: asyncio.Queue[Event] = asyncio.Queue()
            live.listeners.add(queue)
            try:
                yield {"type": "state", "state": result.state}
                if live.text:
                    yield {"type": "text", "text": "".join(live.text)}
                async for event in self._follow(queue):
                    yield event
            finally:
                live.listeners.discard(queue)
                if not live.listeners and live.job is None:
                    self._live.pop(task_id, None)
        yield {"type": "result", "result": self._ledger.result(task_id)}

    @staticmethod
    async def _follow(queue: asyncio.Queue[Event]) -> AsyncIterator[Event]:
        while True:
            try:
                async with asyncio.timeout(_PING_S):
                    event = await queue.get()
            except TimeoutError:
                event = {"type": "ping"}
            if event["type"] == "end":
                return
            yield event

    def status(self) -> dict[str, Any]:
        """The numbers behind `GET /v1/status`."""
        counts = self._ledger.counts()
        return {
            "queued": counts.get("queued", 0),
            "awaiting_key": counts.get("awaiting_key", 0),
            "running": counts.get("running", 0),
            "finished": {state: counts.get(state, 0) for state in sorted(FINAL_STATES)},
            "slots": {name: {"total": total, "free": total - self._busy[name]} for name, total in self._slots.items()},
            "key": self._key.fingerprint if self._key else None,
            "draining": self.draining,
        }

    async def drain(self) -> None:
        """Take nothing new, let what runs end within `drain_s`; the rest goes back to the queue."""
        self.draining = True
        jobs = {live.job for live in self._live.values() if live.job is not None}
        if jobs:
            log.info("draining: %d tasks still run", len(jobs))
            _, late = await asyncio.wait(jobs, timeout=self._config.drain_s)
            for job in late:
                job.cancel()
            if late:
                await asyncio.wait(late)
        for live in self._live.values():
            live.tell({"type": "end"})

    # --- keys -----------------------------------------------------------------------------------------------------

    def _hold(self, key: Key) -> None:
        self._key = key
        self._keys[key.fingerprint] = key

    def _forget_keys(self) -> None:
        """A key that no task waits for, and that is not the newest, is dropped from memory."""
        if len(self._keys) > 1:
            wanted = set(self._key_of.values())
            self._keys = {fp: key for fp, key in self._keys.items() if key is self._key or fp in wanted}

    # --- running --------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Start waiting tasks while there are free slots and keys."""
        for engine, line in self._lines.items():
            while line and self._key is not None and not self.draining and self._busy[engine] < self._slots[engine]:
                task_id = line.popleft()
                key = self._keys.get(self._key_of.get(task_id) or "", self._key)
                self._busy[engine] += 1
                live = self._live.setdefault(task_id, _Live())
                live.job = asyncio.create_task(self._job(task_id, engine, key, live), name=f"task {task_id}")
                live.job.add_done_callback(partial(self._release, task_id, engine, live))

    async def _job(self, task_id: str, engine: str, key: Key, live: _Live) -> None:
        try:
            await self._attempts(self._ledger.task(task_id), engine, key, live)
        except asyncio.CancelledError:
            if not live.cancelled:
                self._ledger.requeue(task_id, "queued")
        except LedgerStuck as error:
            # Stopping, or cancelled: as after a crash, the task is unfinished in the ledger.
            log.error("task %s: %s", task_id, error)
        except Exception as error:
            # Whatever goes wrong in here is this one task's failure; the agent and the other tasks live on.
            log.exception("task %s: %s", task_id, type(error).__name__)
            problem = TaskError(
                code="agent_error", message=f"the agent failed: {type(error).__name__}", hint="see its journal"
            )
            failed = Result(id=task_id, state="failed", error=problem)
            await self._write(partial(self._finish, task_id, failed, live), live)

    async def _write(self, step: Callable[[], T], live: _Live) -> T:
        """Do `step` on the ledger. While that cannot be written, wait: what was paid for is not thrown away."""
        while True:
            try:
                return step()
            except LedgerStuck as error:
                if self.draining or live.cancelled:
                    raise
                log.error("%s; trying again", error)
            await asyncio.sleep(_STUCK_S)

    def _release(self, task_id: str, engine: str, live: _Live, _job: asyncio.Task[None]) -> None:
        """Free the slot; a callback, since a job that is cancelled before its first step never enters its own body."""
        self._busy[engine] -= 1
        live.job = None
        self._key_of.pop(task_id, None)
        if not live.listeners:
            self._live.pop(task_id, None)
        self._forget_keys()
        self._pump()

    async def _attempts(self, task: Task, engine: str, key: Key, live: _Live) -> None:
        """Attempt after attempt, within the task's time, until one brings a result."""
        limit = min(task.timeout_s or DEFAULT_TIMEOUT_S, self._config.task_timeout_max_s)
        deadline = time.monotonic() + limit
        for turn in range(1, self._config.attempts + 1):
            number = await self._write(partial(self._ledger.start, task.id, key.fingerprint), live)
            live.text.clear()
            live.tell({"type": "state", "state": "running"})
            result, again = await self._attempt(task, engine, key, live, number, deadline, limit)
            if not again or turn == self._config.attempts:
                await self._write(partial(self._finish, task.id, result, live), live)
                return
            assert result.error is not None  # noqa: S101  (only errors are tried again)
            live.tell({"type": "restart", "reason": result.error.message})
            await asyncio.sleep(_BETWEEN_ATTEMPTS.delay_s(number, None))

    async def _attempt(
        self, task: Task, engine: str, key: Key, live: _Live, number: int, deadline: float, limit: float
    ) -> tuple[Result, bool]:
        """One attempt: its result, and whether another one may do better."""
        grant = Grant(task_id=task.id, key=key, model=resolve_model(task.model), max_tokens=task.max_tokens)
        outcome = "interrupted"

        def on_text(text: str) -> None:
            live.text.append(text)
            live.tell({"type": "text", "text": text})

        try:
            left = deadline - time.monotonic()
            async with asyncio.timeout(left):
                answer = await self._engines[engine].run(task, grant, on_text, left)
            outcome = "succeeded"
            return _success(task, answer), False
        except TimeoutError:
            outcome = "timeout"
            problem = grant.problem
            why = f" (the API's last answer: {problem.message})" if problem is not None else ""
            error = TaskError(
                code="timeout",
                message=f"the task ran longer than {limit:g} s{why}",
                hint="raise --timeout, or make the task smaller",
            )
            return Result(id=task.id, state="failed", error=error), False
        except (EngineError, ApiError) as error:
            outcome = error.code
            failure = TaskError(code=error.code, message=error.message, hint=error.hint)
            return Result(id=task.id, state="failed", error=failure), error.retryable
        finally:
            prices = price_table()
            costs = [prices.cost(grant.model, charge.usage) for charge in grant.charges]
            cost = None if None in costs else usd(sum(c for c in costs if c is not None))
            used = (task.id, number, outcome, grant.usage, cost, prices.version)
            await self._write(partial(self._ledger.end_attempt, *used, retries=grant.retries), live)

    def _finish(self, task_id: str, result: Result, live: _Live | None) -> None:
        self._ledger.finish(task_id, result)
        if live is not None:
            live.tell({"type": "end"})

    def _drop(self, task_id: str) -> None:
        self._key_of.pop(task_id, None)
        for line in self._lines.values():
            if task_id in line:
                line.remove(task_id)


def _success(task: Task, answer: Answer) -> Result:
    return Result(
        id=task.id, state="succeeded", text=answer.text, structured=answer.structured, stop_reason=answer.stop_reason
    )
