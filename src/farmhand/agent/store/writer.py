"""The ledger's one writer: transitions that are asked for at the same moment share one transaction and one fsync."""

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


@dataclass(slots=True)
class _Request:
    """One step that somebody waits for, and what came of it."""

    step: Step[Any]
    future: asyncio.Future[Any]
    value: Any = None
    error: BaseException | None = None


class Writer:
    """A thread that owns the writing connection `db`. Steps are done in the order they are asked for.

    `alarm` sees every error.
    """

    def __init__(self, db: sqlite3.Connection, alarm: Alarm) -> None:
        self._db = db
        self._alarm = alarm
        #: None is the last that is put in.
        self._asked: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    def do(self, step: Step[T]) -> asyncio.Future[T]:
        """Have `step` done; the future has its value once it is committed.

        What `step` raises takes back that step alone. LedgerStuck: nothing of the whole group has changed. The step is
        done even if the caller stops waiting.
        """
        if self._closed:
            raise RuntimeError("the ledger is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._asked.put(_Request(step, future))
        return future

    def close(self) -> None:
        """Do what was asked for, then end the thread and close the connection."""
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
        """Do one step; one that fails is taken back by itself, unless the transaction has gone with it."""
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
        if request.future.done():  # its caller waits no more
            continue
        if request.error is not None:
            request.future.set_exception(request.error)
        else:
            request.future.set_result(request.value)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in _PASSING
