"""The durable record of tasks, attempts, charges and cost: one SQLite file, one transaction per transition.

It stores the key's fingerprint, never the key. Times are Unix seconds.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from farmhand.agent.store import commands, damage, identity, pot_days
from farmhand.agent.store.commands import AttemptEnd, TaskEnd
from farmhand.agent.store.damage import Alarm, LedgerDamaged, LedgerStuck
from farmhand.agent.store.queries import Queries
from farmhand.agent.store.schema import migrate
from farmhand.core.task import Result, State

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger("jada-agent")
#: Seconds between retries while the ledger cannot be written.
STUCK_S = 2.0
#: Maximum steps per transaction; more wait for the next.
_GROUP = 1000
#: File system errors that may be transient. Extended error codes use the bits above the lowest byte.
_PASSING = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
    }
)


async def insist(step: Callable[[], Awaitable[T]], *, unless: Callable[[], bool] = lambda: False) -> T:
    """Retry `step` until the ledger can be written, so that paid work is not lost.

    Raise LedgerStuck if it cannot be written and `unless` returns true, LedgerDamaged if it never can be.
    """
    while True:
        try:
            return await step()
        except LedgerStuck as error:
            if isinstance(error, LedgerDamaged) or unless():
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


@dataclass(slots=True)
class _Step:
    """A transition that runs on the open transaction, with its future and its outcome."""

    run: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    value: Any = None
    error: BaseException | None = None


class Ledger(Queries):
    """The ledger in the file at `path`, created if missing. Only one process may use it at a time.

    Reads run at once, on a connection of their own. Transitions run in a thread that owns the writing connection:
    awaiting one returns after its commit, and every later read sees the change. Those that are requested at the same
    moment share one transaction and one fsync. `now` is the clock, in Unix seconds.

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
        self._writing = alarm.connect()
        try:
            damage.check(self._writing, alarm, beat)
            migrate(self._writing, path)
            if not there:
                log.warning("the ledger %s is new: there was none", path)
            self._writing.execute("PRAGMA synchronous = FULL")
        except BaseException as error:
            self._writing.close()
            raise alarm.seen(error) or error from None
        super().__init__(alarm)
        self._asked: deque[_Step] = deque()
        self._writer = ThreadPoolExecutor(1, "ledger")

    def close(self) -> None:
        """Commit all requested steps and close the file. The ledger cannot be used afterwards."""
        self._writer.shutdown()
        self._writing.close()
        super().close()

    def write(self, run: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Request a step. The future has its value once it is committed. Steps run in the order of the requests.

        An exception in the step undoes only that step. LedgerStuck means that nothing of the whole group has changed.
        The step runs even if the caller stops waiting. Raise LedgerDamaged once damage was found.
        """
        if self.alarm.damage is not None:
            raise self.alarm.damage
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._asked.append(_Step(run, future))
        self._writer.submit(self._commit)
        return future

    def _commit(self) -> None:
        """Commit all steps that are requested by now, if an earlier call has not."""
        group = [self._asked.popleft() for _ in range(min(len(self._asked), _GROUP))]
        if not group:
            return
        try:
            self._writing.execute("BEGIN IMMEDIATE")
            for step in group:
                self._run(step)
            self._writing.execute("COMMIT")
        except BaseException as error:
            error = self._lost(error) or error
            # SQLite may have rolled back by itself, as it does on a full disk.
            with suppress(sqlite3.Error):
                if self._writing.in_transaction:
                    self._writing.execute("ROLLBACK")
            for step in group:
                step.error = error
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            group[0].future.get_loop().call_soon_threadsafe(_answer, group)

    def _run(self, step: _Step) -> None:
        """Run one step. Undo it alone if it fails, unless the whole transaction is lost."""
        self._writing.execute("SAVEPOINT step")
        try:
            step.value = step.run(self._writing)
        except BaseException as error:
            if self._lost(error) or not self._writing.in_transaction:
                raise
            self._writing.execute("ROLLBACK TO step")
            step.error = error
        self._writing.execute("RELEASE step")

    def _lost(self, error: BaseException) -> LedgerStuck | None:
        """Return the error for a whole group if `error` means that the file cannot be written, now or ever."""
        passing = isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in _PASSING
        return self.alarm.seen(error) or (LedgerStuck(f"the ledger cannot be written: {error}") if passing else None)

    submit = _transition(commands.submit)
    check = _transition(identity.check)
    start = _transition(commands.start)
    reserve = _transition(commands.reserve)
    charge = _transition(commands.charge)
    resume = _transition(commands.resume)
    park = _transition(commands.park)
    close_pot = _transition(pot_days.close)
    put_batch = _transition(commands.put_batch)
    recount = _transition(commands.recount)
    _recover = _transition(commands.recover)
    _cancel_waiting = _transition(commands.cancel_waiting)
    _note_key = _transition(commands.note_key)

    async def recover(self, attempts: int = 2**31) -> int:
        """Recover after a start; see `commands.recover`. Return how many tasks await a key."""
        for task_id in await self._recover(attempts):
            log.error("task %s failed: the agent ended %d times while it ran", task_id, attempts)
        return self.counts()["awaiting_key"]

    async def end(self, seq: int, attempt: AttemptEnd | None, then: Result | State) -> bool:
        """Record, in one transaction, the end of the attempt, if one ran, and the task's result or next state.

        Return False if the task was final already. It then keeps its result, but the attempt's charges are added.
        """
        now = self.now()

        def step(db: sqlite3.Connection) -> tuple[bool, TaskEnd | None]:
            recorded = attempt is not None and commands.end_attempt(db, now, seq, attempt)
            if isinstance(then, Result):
                return recorded, commands.finish(db, now, seq, then)
            commands.requeue(db, seq, then)
            return recorded, None

        recorded, ended = await self.write(step)
        if recorded and attempt is not None:
            self.watcher.attempt(attempt)
        if ended is not None:
            self.watcher.task(ended)
        return ended is not None or not isinstance(then, Result)

    async def cancel_batch(self, batch: str) -> list[str]:
        """Cancel some waiting tasks of the batch and return their ids; see `commands.cancel_waiting`."""
        ids = await self._cancel_waiting(batch)
        self.watcher.cancelled(len(ids))
        return ids

    async def note_key(self, fingerprint: str) -> None:
        """Record the first time that this key was received. If the ledger cannot be written, the next call does it."""
        if fingerprint not in self._noted:
            with suppress(LedgerStuck):
                await self._note_key(fingerprint)
                self._noted.add(fingerprint)

    async def apart(self, read: Callable[[Queries], T]) -> T:
        """Run `read` in a thread with its own connection, since reading many rows must not block the event loop."""

        def reading() -> T:
            with closing(Queries(self.alarm)) as queries:
                return read(queries)

        return await asyncio.to_thread(reading)


def _answer(group: list[_Step]) -> None:
    for step in group:
        if step.future.done():  # its caller no longer waits
            continue
        if step.error is not None:
            step.future.set_exception(step.error)
        else:
            step.future.set_result(step.value)
