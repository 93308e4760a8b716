"""The durable record of tasks, attempts, charges and cost: one SQLite file, every transition one transaction.

It keeps the key's fingerprint and never the key. Times are Unix seconds.
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
#: How often a ledger that cannot be written is tried again, in seconds.
STUCK_S = 2.0


@dataclass(slots=True, kw_only=True, frozen=True)
class TaskEnd:
    """A task that is final since this moment: its state, its error's code, when it came and when it started."""

    state: State
    error: str
    engine: str
    created_at: float
    started_at: float | None
    finished_at: float


async def insist(step: Callable[[], Awaitable[T]], *, unless: Callable[[], bool] = lambda: False) -> T:
    """Do `step` on the ledger as soon as that can be written: what was paid for is not thrown away.

    LedgerStuck where it cannot be and `unless` says that nothing is worth waiting for, LedgerDamaged where it never can
    be.
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
    """Is told, on the loop, of what was committed: here nobody listens."""

    def attempt(self, end: AttemptEnd) -> None:
        """An attempt has ended."""

    def task(self, end: TaskEnd) -> None:
        """A task has ended that had run, or was cancelled by itself."""

    def cancelled(self, tasks: int) -> None:
        """So many tasks of a batch were cancelled at once."""


def _transition(
    command: Callable[Concatenate[sqlite3.Connection, float, P], T],
) -> Callable[Concatenate[Ledger, P], asyncio.Future[T]]:
    """A method of the ledger: `command`, with the time of the call, done by the writer."""

    def method(ledger: Ledger, /, *args: P.args, **named: P.kwargs) -> asyncio.Future[T]:
        now = ledger.now()
        return ledger.write(lambda db: command(db, now, *args, **named))

    method.__doc__ = command.__doc__
    return method


class Ledger(Queries):
    """The ledger in the file at `path`, made when missing. One process uses it at a time.

    Reads are done at once, on a connection of their own. A transition is done by the writer: what awaits it goes on
    after its commit, and what it changed is seen by every later read. `now` is the clock, in Unix seconds.

    LedgerDamaged where a page of the file is damaged: every page is looked at here, and `beat` called now and then
    meanwhile; later each when it is met.
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
        """Commit what was asked for and close the file; the ledger is of no use after."""
        self._writer.close()
        super().close()

    def write(self, step: Step[T]) -> asyncio.Future[T]:
        """Have `step` done by the writer; see `Writer.do`. LedgerDamaged once a page was found to be damaged."""
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
        """See `recovery.recover`; how many tasks await a key."""
        waiting, failed = await self._recover(attempts)
        for task_id in failed:
            log.error("task %s failed: the agent ended %d times while it ran", task_id, attempts)
        return waiting

    async def end(self, seq: int, attempt: AttemptEnd | None, then: Result | State) -> bool:
        """The attempt ended, if one ran, and the task is final (a Result) or goes on in a state: one transaction.

        False where the task was final already: then it keeps what it has, but for the attempt's charges.
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
        """Cancel some waiting tasks of the batch; see `commands.cancel_waiting`."""
        ids = await self._cancel_waiting(batch)
        self.watcher.cancelled(len(ids))
        return ids

    async def note_key(self, fingerprint: str) -> None:
        """Remember when this key was brought for the first time."""
        if fingerprint not in self._noted:
            await self._note_key(fingerprint)
            self._noted.add(fingerprint)

    async def apart(self, read: Callable[[Queries], T]) -> T:
        """`read` on a thread and a connection of its own: what reads many rows must not hold up the loop."""

        def reading() -> T:
            with closing(Queries(self.alarm)) as queries:
                return read(queries)

        return await asyncio.to_thread(reading)
