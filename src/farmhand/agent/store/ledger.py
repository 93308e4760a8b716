"""The durable record of tasks, attempts, charges and cost: one SQLite file, one transaction per transition.

It stores the key's fingerprint, never the key. Times are Unix seconds.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from farmhand.agent.store import commands, damage, recovery
from farmhand.agent.store.commands import AttemptEnd
from farmhand.agent.store.damage import Alarm, LedgerDamaged, LedgerStuck
from farmhand.agent.store.queries import Queries
from farmhand.agent.store.schema import migrate
from farmhand.agent.store.writer import Step, Writer
from farmhand.core.task import Result, State

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger("jada-agent")
#: Seconds between retries while the ledger cannot be written.
STUCK_S = 2.0


@dataclass(slots=True, kw_only=True, frozen=True)
class TaskEnd:
    """A task that has just become final: its state, its error code, and its times."""

    state: State
    error: str
    engine: str
    created_at: float
    started_at: float | None
    finished_at: float


async def insist(step: Callable[[], Awaitable[T]], *, unless: Callable[[], bool] = lambda: False) -> T:
    """Retry `step` until the ledger can be written, so that paid work is not lost.

    Raise LedgerStuck if it cannot be written and `unless` returns true, LedgerDamaged if it never can be.
    """
    while True:
        try:
            return await step()
        except LedgerDamaged:
            raise
        except LedgerStuck as error:
            if unless():
                raise
            log.error("%s; trying again", error)
        await asyncio.sleep(STUCK_S)


class Watcher:
    """An observer of committed transitions, called on the event loop. This base class ignores them."""

    def attempt(self, end: AttemptEnd) -> None:
        """Handle the end of an attempt."""

    def task(self, end: TaskEnd) -> None:
        """Handle the end of a task that had run or was cancelled individually."""

    def cancelled(self, tasks: int) -> None:
        """Handle the cancellation of `tasks` tasks of a batch at once."""


def _transition(
    command: Callable[Concatenate[sqlite3.Connection, float, P], T],
) -> Callable[Concatenate[Ledger, P], asyncio.Future[T]]:
    """Return a method of Ledger that has the writer run `command` with the time of the call."""

    def method(ledger: Ledger, /, *args: P.args, **named: P.kwargs) -> asyncio.Future[T]:
        now = ledger.now()
        return ledger.write(lambda db: command(db, now, *args, **named))

    method.__doc__ = command.__doc__
    return method


class Ledger(Queries):
    """The ledger in the file at `path`, created if missing. Only one process may use it at a time.

    Reads run at once, on a connection of their own. Transitions run in the writer: awaiting one returns after its
    commit, and every later read sees the change. `now` is the clock, in Unix seconds.

    Raise LedgerDamaged if a page of the file is damaged. All pages are checked here, with calls of `beat` in between;
    later each is checked when it is read.
    """

    def __init__(
        self, path: Path, *, now: Callable[[], float] = time.time, beat: Callable[[], None] = lambda: None
    ) -> None:
        self.path = path
        self.now = now
        self.watcher = Watcher()
        self._noted: set[str] = set()
        there = damage.check_files(path)
        alarm = Alarm(path)
        writing = alarm.connect()
        try:
            damage.check(writing, alarm, beat)
            migrate(writing, path)
            if not there:
                log.warning("the ledger %s is new: there was none", path)
            writing.execute("PRAGMA synchronous = FULL")
        except BaseException as error:
            writing.close()
            raise alarm.seen(error) or error from None
        super().__init__(alarm)
        self._writer = Writer(writing, alarm)

    def close(self) -> None:
        """Commit all requested steps and close the file. The ledger cannot be used afterwards."""
        self._writer.close()
        super().close()

    def write(self, step: Step[T]) -> asyncio.Future[T]:
        """Have the writer run `step`; see `Writer.do`. Raise LedgerDamaged once damage was found."""
        if self.alarm.damage is not None:
            raise self.alarm.damage
        return self._writer.do(step)

    submit = _transition(commands.submit)
    start = _transition(commands.start)
    reserve = _transition(commands.reserve)
    charge = _transition(commands.charge)
    resume = _transition(commands.resume)
    park = _transition(commands.park)
    put_batch = _transition(commands.put_batch)
    recount = _transition(recovery.recount)
    _recover = _transition(recovery.recover)
    _cancel_waiting = _transition(commands.cancel_waiting)
    _note_key = _transition(commands.note_key)

    async def recover(self, attempts: int = 2**31) -> int:
        """Recover after a start; see `recovery.recover`. Return how many tasks await a key."""
        waiting, failed = await self._recover(attempts)
        for task_id in failed:
            log.error("task %s failed: the agent ended %d times while it ran", task_id, attempts)
        return waiting

    async def end(self, seq: int, attempt: AttemptEnd | None, then: Result | State) -> bool:
        """Record, in one transaction, the end of the attempt, if one ran, and the task's result or next state.

        Return False if the task was final already. It then keeps its result, but the attempt's charges are added.
        """
        now = self.now()

        def step(db: sqlite3.Connection) -> tuple[bool, bool, TaskEnd | None]:
            recorded = attempt is not None and commands.end_attempt(db, now, seq, attempt)
            if not isinstance(then, Result):
                commands.requeue(db, seq, then)
                return recorded, True, None
            if not commands.finish(db, now, seq, then):
                return recorded, False, None
            query = "SELECT engine, created_at, started_at FROM task WHERE seq = ?"
            times = dict(db.execute(query, (seq,)).fetchone())
            code = "" if then.error is None else then.error.code
            return recorded, True, TaskEnd(state=then.state, error=code, finished_at=now, **times)

        recorded, changed, ended = await self.write(step)
        if recorded and attempt is not None:
            self.watcher.attempt(attempt)
        if ended is not None:
            self.watcher.task(ended)
        return changed

    async def cancel_batch(self, batch: str) -> list[str]:
        """Cancel some waiting tasks of the batch and return their ids; see `commands.cancel_waiting`."""
        ids = await self._cancel_waiting(batch)
        self.watcher.cancelled(len(ids))
        return ids

    async def note_key(self, fingerprint: str) -> None:
        """Record the first time that this key was received."""
        if fingerprint not in self._noted:
            await self._note_key(fingerprint)
            self._noted.add(fingerprint)

    async def apart(self, read: Callable[[Queries], T]) -> T:
        """Run `read` in a thread with its own connection, since reading many rows must not block the event loop."""

        def reading() -> T:
            with closing(Queries(self.alarm)) as queries:
                return read(queries)

        return await asyncio.to_thread(reading)
