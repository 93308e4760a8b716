"""The ledger's only writer: transitions requested at the same moment share one transaction and one fsync."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from farmhand.agent.store.damage import Alarm, LedgerStuck

log = logging.getLogger("jada-agent")
T = TypeVar("T")
#: A step is one transition, run on the open transaction.
Step = Callable[[sqlite3.Connection], T]
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


@dataclass(slots=True)
class _Request:
    """A step with its future and its outcome."""

    step: Step[Any]
    future: asyncio.Future[Any]
    value: Any = None
    error: BaseException | None = None


class Writer:
    """A thread that owns the writing connection `db`. Steps run in the order in which they are requested.

    `alarm` sees every error.
    """

    def __init__(self, db: sqlite3.Connection, alarm: Alarm) -> None:
        self._db = db
        self._alarm = alarm
        #: None marks the end of the queue.
        self._asked: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    def do(self, step: Step[T]) -> asyncio.Future[T]:
        """Request `step`. The future has its value once it is committed.

        An exception in `step` undoes only that step. LedgerStuck means that nothing of the whole group has changed. The
        step runs even if the caller stops waiting.
        """
        if self._closed:
            raise RuntimeError("the ledger is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._asked.put(_Request(step, future))
        return future

    def close(self) -> None:
        """Run all requested steps, then end the thread and close the connection."""
        self._closed = True
        self._asked.put(None)
        self._thread.join()
        self._db.close()

    def _work(self) -> None:
        ended = False
        while not ended:
            asked = [self._asked.get()]
            with suppress(queue.Empty):
                while len(asked) < _GROUP:
                    asked.append(self._asked.get_nowait())
            group = [request for request in asked if request is not None]
            ended = len(group) < len(asked)
            if group:
                self._commit(group)
                try:
                    group[0].future.get_loop().call_soon_threadsafe(_answer, group)
                except RuntimeError:
                    log.debug("nobody waits for the ledger any more")

    def _commit(self, group: list[_Request]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for request in group:
                self._one(request)
            self._db.execute("COMMIT")
        except BaseException as error:
            if (damage := self._alarm.seen(error)) is not None:
                error = damage
            elif _may_pass(error):
                error = LedgerStuck(f"the ledger cannot be written: {error}")
            # SQLite may have rolled back by itself, as it does on a full disk.
            with suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            for request in group:
                request.error = error

    def _one(self, request: _Request) -> None:
        """Run one step. Undo it alone if it fails, unless the whole transaction is lost."""
        self._db.execute("SAVEPOINT step")
        try:
            request.value = request.step(self._db)
        except BaseException as error:
            if _may_pass(error) or self._alarm.seen(error) is not None or not self._db.in_transaction:
                raise
            self._db.execute("ROLLBACK TO step")
            request.error = error
        self._db.execute("RELEASE step")


def _answer(group: list[_Request]) -> None:
    for request in group:
        if request.future.done():  # its caller no longer waits
            continue
        if request.error is not None:
            request.future.set_exception(request.error)
        else:
            request.future.set_result(request.value)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in _PASSING
