"""The ledger's one writer: transitions that are asked for at the same moment share one transaction and one fsync."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from farmhand.core.errors import FarmhandError

log = logging.getLogger("jada-agent")
T = TypeVar("T")
#: A step is one transition, done on the open transaction.
Step = Callable[[sqlite3.Connection], T]
#: Steps of one transaction at most; more wait for the next.
_GROUP = 1000
#: Failures of a file system, which may pass; their extended codes have more above the lowest byte.
_PASSING = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
    }
)


class LedgerStuck(FarmhandError):
    """The ledger cannot be written for now, as on a full disk; nothing has changed in it."""

    code = "ledger_stuck"

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="make room in the farm host's /var/lib/jada-agent")


class _Request:
    """One step that somebody waits for, and what came of it."""

    __slots__ = ("error", "future", "step", "value")

    def __init__(self, step: Step[Any], future: asyncio.Future[Any]) -> None:
        self.step = step
        self.future = future
        self.value: Any = None
        self.error: BaseException | None = None

    def tell(self) -> None:
        if self.future.done():  # who asked has gone
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.value)


class Writer:
    """A thread that owns the writing connection `db`. Steps are done in the order they are asked for."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._asked: deque[_Request] = deque()
        self._some = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    def do(self, step: Step[T]) -> asyncio.Future[T]:
        """Have `step` done; the future has its value once it is committed.

        What `step` raises takes back that step alone. LedgerStuck: nothing of the whole group has changed. That who
        asked stops waiting does not stop the step.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._some:
            if self._closing:
                raise RuntimeError("the ledger is closed")
            self._asked.append(_Request(step, future))
            self._some.notify()
        return future

    def close(self) -> None:
        """Do what was asked for, then end the thread and close the connection."""
        with self._some:
            self._closing = True
            self._some.notify()
        self._thread.join()
        self._db.close()

    def _work(self) -> None:
        while True:
            with self._some:
                while not self._asked and not self._closing:
                    self._some.wait()
                group = [self._asked.popleft() for _ in range(min(len(self._asked), _GROUP))]
            if not group:
                return
            self._commit(group)
            try:
                group[0].future.get_loop().call_soon_threadsafe(_tell, group)
            except RuntimeError:
                log.debug("nobody waits for the ledger any more")

    def _commit(self, group: list[_Request]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for ask in group:
                self._one(ask)
            self._db.execute("COMMIT")
        except BaseException as error:
            # SQLite may have rolled back by itself, as it does on a full disk.
            with suppress(sqlite3.Error, LedgerStuck):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            for ask in group:
                ask.error = LedgerStuck(f"the ledger cannot be written: {error}") if _passes(error) else error

    def _one(self, ask: _Request) -> None:
        """Do one step; one that fails is taken back by itself, unless the transaction has gone with it."""
        self._db.execute("SAVEPOINT step")
        try:
            ask.value = ask.step(self._db)
        except BaseException as error:
            if _passes(error) or isinstance(error, LedgerStuck) or not self._db.in_transaction:
                raise
            self._db.execute("ROLLBACK TO step")
            ask.error = error
        self._db.execute("RELEASE step")


def _tell(group: list[_Request]) -> None:
    for ask in group:
        ask.tell()


def _passes(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in _PASSING
