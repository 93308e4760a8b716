"""The durable record of tasks, attempts, charges and cost: one SQLite file, every transition one transaction.

It keeps the key's fingerprint and never the key. Times are Unix seconds.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from farmhand.agent.store import commands, damage, recovery
from farmhand.agent.store.commands import AttemptEnd, ChargeRow, IdConflict, NoLongerQueued
from farmhand.agent.store.damage import Alarm, LedgerDamaged
from farmhand.agent.store.queries import NoSuchBatch, Queries
from farmhand.agent.store.rows import TaskTotals
from farmhand.agent.store.schema import migrate
from farmhand.agent.store.writer import LedgerStuck, Step, Writer
from farmhand.core.task import Result, State, Task, TaskError

__all__ = [
    "AttemptEnd",
    "IdConflict",
    "Ledger",
    "LedgerDamaged",
    "LedgerStuck",
    "NoLongerQueued",
    "NoSuchBatch",
    "TaskEnd",
]
T = TypeVar("T")
log = logging.getLogger("jada-agent")
#: How often a ledger that cannot be written is tried again, in seconds.
STUCK_S = 2.0
CANCELLED = TaskError(code="cancelled", message="the task was cancelled")


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


class Ledger(Queries):
    """The ledger in the file at `path`, made when missing. One process uses it at a time.

    Reads are done at once, on a connection of their own. A transition is done by the writer: what awaits it goes on
    after its commit, and what it changed is seen by every later read. `wall` is the clock, in Unix seconds.

    LedgerDamaged where a page of the file is damaged: every page is looked at here, and `beat` called now and then
    meanwhile; later each when it is met.
    """

    def __init__(
        self, path: Path, *, wall: Callable[[], float] = time.time, beat: Callable[[], None] = lambda: None
    ) -> None:
        self.path = path
        self.watcher = Watcher()
        self.alarm = Alarm(path)
        self._wall = wall
        self._noted: set[str] = set()
        there = damage.check_files(path)
        writing = self.alarm.connect()
        try:
            damage.check(writing, self.alarm, beat)
            migrate(writing, path)
            if not there:
                log.warning("the ledger %s is new: there was none", path)
            writing.execute("PRAGMA synchronous = FULL")
        except BaseException as error:
            writing.close()
            if damage.is_damage(error):
                raise self.alarm.ring(error) from None
            raise
        self._reading = self.alarm.connect()
        self._reading.execute("PRAGMA query_only = ON")
        super().__init__(self._reading)
        self._writer = Writer(writing)

    def close(self) -> None:
        """Commit what was asked for and close the file; the ledger is of no use after."""
        self._writer.close()
        self._reading.close()

    def now(self) -> float:
        """The ledger's time, in Unix seconds."""
        return self._wall()

    def write(self, step: Step[T]) -> asyncio.Future[T]:
        """Have `step` done by the writer; see `Writer.do`. LedgerDamaged once a page was found to be damaged."""
        if self.alarm.damage is not None:
            raise self.alarm.damage
        return self._writer.do(step)

    async def submit(self, tasks: Iterable[Task], state: State, key_fingerprint: str | None) -> dict[str, State]:
        """See `commands.submit`."""
        return await self.write(
            partial(commands.submit, tasks=list(tasks), state=state, key_fingerprint=key_fingerprint, now=self._wall())
        )

    async def recover(self, attempts: int = 2**31) -> int:
        """See `recovery.recover`; how many tasks await a key."""
        waiting, failed = await self.write(partial(recovery.recover, attempts=attempts, now=self._wall()))
        for task_id in failed:
            log.error("task %s failed: the agent ended %d times while it ran", task_id, attempts)
        return waiting

    async def recount(self) -> None:
        """See `recovery.recount`."""
        await self.write(recovery.recount)

    async def start(self, seq: int, key_fingerprint: str) -> int:
        """See `commands.start`."""
        return await self.write(partial(commands.start, seq=seq, key_fingerprint=key_fingerprint, now=self._wall()))

    async def reserve(self, seq: int, request: int, most_pico: int | None) -> None:
        """See `commands.reserve`."""
        now = self._wall()
        await self.write(lambda db: commands.reserve(db, seq, request, most_pico, now))

    def charge(
        self, seq: int, charges: Sequence[ChargeRow], price_version: str, held: Mapping[int, int | None] | None = None
    ) -> asyncio.Future[None]:
        """See `commands.charge`."""
        now = self._wall()
        return self.write(lambda db: commands.charge(db, seq, charges, price_version, held, now))

    async def end(self, seq: int, attempt: AttemptEnd | None, then: Result | State) -> bool:
        """The attempt ended, if one ran, and the task is final (a Result) or goes on in a state: one transaction.

        False where the task was final already: then it keeps what it has, but for the attempt's charges.
        """
        now = self._wall()

        def step(db: sqlite3.Connection) -> tuple[bool, bool, TaskEnd | None]:
            recorded = attempt is not None and commands.end_attempt(db, seq, attempt, now)
            if not isinstance(then, Result):
                commands.requeue(db, seq, then)
                return recorded, True, None
            if not commands.finish(db, seq, then, now):
                return recorded, False, None
            query = "SELECT engine, created_at, started_at FROM task WHERE seq = ?"
            engine, created, started = db.execute(query, (seq,)).fetchone()
            code = "" if then.error is None else then.error.code
            ended = TaskEnd(
                state=then.state, error=code, engine=engine, created_at=created, started_at=started, finished_at=now
            )
            return recorded, True, ended

        recorded, changed, ended = await self.write(step)
        if recorded and attempt is not None:
            self.watcher.attempt(attempt)
        if ended is not None:
            self.watcher.task(ended)
        return changed

    async def cancel_batch(self, batch: str) -> list[str]:
        """Cancel some waiting tasks of the batch; see `commands.cancel_waiting`."""
        ids = await self.write(partial(commands.cancel_waiting, batch=batch, error=CANCELLED, now=self._wall()))
        self.watcher.cancelled(len(ids))
        return ids

    async def resume(self, key_fingerprint: str) -> int:
        """See `commands.resume`."""
        return await self.write(partial(commands.resume, key_fingerprint=key_fingerprint))

    async def park(self, held: Sequence[str], refused: Sequence[str], *, default: bool) -> int:
        """See `commands.park`."""
        return await self.write(partial(commands.park, held=held, refused=refused, default=default))

    async def note_key(self, fingerprint: str) -> None:
        """See `commands.note_key`."""
        if fingerprint not in self._noted:
            await self.write(partial(commands.note_key, fingerprint=fingerprint, now=self._wall()))
            self._noted.add(fingerprint)

    async def put_batch(self, name: str, max_pico: int | None, concurrency: int | None) -> None:
        """See `commands.put_batch`."""
        await self.write(
            partial(commands.put_batch, name=name, max_pico=max_pico, concurrency=concurrency, now=self._wall())
        )

    def apart(self, read: Callable[[Queries], T]) -> T:
        """`read` on a connection of its own, for another thread: what reads many rows must not hold up the loop."""
        db = self.alarm.connect()
        try:
            return read(Queries(db))
        finally:
            db.close()

    async def read_totals(self, since: float) -> TaskTotals:
        """`totals`, on a thread of its own."""
        return await asyncio.to_thread(self.apart, lambda reads: reads.totals(since))
