"""The money of the MCP servers: one SQLite file for all of them. A job's most is reserved before anything is sent.

When a job ends, its real cost takes the place of what was reserved. What is not known stays spent.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import anyio

from farmhand.core.errors import FarmhandError, Refused
from farmhand.core.files import held_by_another
from farmhand.core.money import pico_of
from farmhand.core.readable import money
from farmhand.core.settings import Settings

_SCHEMA = """
CREATE TABLE IF NOT EXISTS job (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, session TEXT NOT NULL,
    day INTEGER NOT NULL, created REAL NOT NULL,
    label TEXT NOT NULL, tasks INTEGER NOT NULL,
    reserved INTEGER NOT NULL,              -- pico-dollars that it may cost
    cost INTEGER,                           -- pico-dollars; NULL: not known, so `reserved` counts
    state TEXT NOT NULL DEFAULT 'open'      -- open, stopping (called off), done, cancelled
);
CREATE INDEX IF NOT EXISTS job_day ON job (day);
CREATE INDEX IF NOT EXISTS job_session ON job (session);
CREATE TABLE IF NOT EXISTS allowed (scope TEXT PRIMARY KEY, pico INTEGER NOT NULL) WITHOUT ROWID;
"""
#: How long a job is remembered. Seconds.
KEEP_S = 30 * 86_400.0
#: No limit, in pico-dollars: more than SQLite's integers are asked to hold here.
_ENDLESS = 2**62
#: How long another process may hold the book, and how often it is tried again. Seconds.
_PATIENCE_S, _TRY_S = 30.0, 0.05
#: Tells a session what its call waits for.
Tell = Callable[[str], Awaitable[None]]
_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")
_COLUMNS = "id, kind, session, day, created, label, tasks, reserved, cost, state"


class JobEntry(NamedTuple):
    """A job in the book; `kind` is `task` or `batch`. Amounts are in pico-dollars."""

    id: str
    kind: str
    session: str
    day: int
    created: float
    label: str
    tasks: int
    reserved: int
    cost: int | None
    state: str


class Room(NamedTuple):
    """A limit, what of it is spent, and what is held for jobs whose cost is not known yet. Pico-dollars."""

    name: str
    limit: int
    spent: int
    held: int

    @property
    def left(self) -> int:
        """Return what may still be spent."""
        return max(0, self.limit - self.spent - self.held)

    def said(self) -> str:
        """Return it in words."""
        most = "no limit" if self.limit >= _ENDLESS else f"of {money(self.limit)}"
        held = f", {money(self.held)} held for jobs that have not ended" if self.held else ""
        return f"{self.name}: {money(self.spent)} spent {most}{held}"


class SessionMoneySpent(Refused):
    """Nothing more may be spent now. `room` is the limit that says so, `setting` what sets it."""

    code = "mcp_budget"

    def __init__(self, room: Room, setting: str, config: str) -> None:
        what = f"the farm's budget for this {room.name} does not allow it: {room.said()}; nothing was sent"
        more = f"ask the operator to raise {setting} in {config} (it counts at once)"
        held = (
            ", or wait for a job (farm_result) or end one (farm_cancel): that frees what it holds" if room.held else ""
        )
        super().__init__(what, hint=f"a smaller max_tokens needs less; else {more}{held}")
        self.room, self.setting = room, setting


class BookHeld(FarmhandError):
    """Another process holds the book at this moment."""

    code = "book_held"


async def in_turn(tell: Tell, work: Callable[_Given, _Found], *args: _Given.args, **more: _Given.kwargs) -> _Found:
    """Return what `work` of a book returns, once no other process holds it; `tell` is told while one does.

    Other calls are answered meanwhile, and one that is called off has changed nothing. Raise FarmhandError.
    """
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return work(*args, **more)
        except BookHeld as held:
            if time.monotonic() > until:
                raise
            await tell(f"waiting: {held.message}")
        await anyio.sleep(_TRY_S)


class Book:
    """The record of the jobs of all servers. Each method raises BookHeld at once if another process holds it."""

    def __init__(self, directory: Path, session: str) -> None:
        self.path = directory / "book.sqlite"
        self.session = session

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Yield the database in a transaction that nobody else can write in. Raise FarmhandError."""
        try:
            self.path.touch(0o600, exist_ok=True)
            with closing(sqlite3.connect(self.path, isolation_level=None, timeout=0)) as db:
                db.execute("BEGIN IMMEDIATE")
                try:
                    for statement in _SCHEMA.split(";\n"):
                        db.execute(statement)
                    yield db
                    db.execute("COMMIT")
                except BaseException:
                    if db.in_transaction:  # SQLite has rolled back itself where the disk is full
                        db.execute("ROLLBACK")
                    raise
        except (OSError, sqlite3.Error) as error:
            if isinstance(error, sqlite3.Error) and held_by_another(error):
                hint = "nothing is sent before that ends; fuser says which process it is"
                raise BookHeld(
                    f"another process holds the book of the session's money, {self.path}", hint=hint
                ) from None
            hint = "without it nothing is sent: see to that file"
            raise FarmhandError(f"the book of the session's money, {self.path}: {error}", hint=hint) from None

    def reserve(self, job_id: str, kind: str, wanted: int, least: int, conf: Settings, label: str, tasks: int) -> int:
        """Hold up to `wanted` for a new job, and at least `least`. Return how much. Raise SessionMoneySpent."""
        now = time.time()
        with self._open() as db:
            rooms = self._rooms(db, conf, now)
            room = min(rooms, key=lambda one: one.left)
            if room.left < max(1, least):
                setting = "mcp_max_usd" if room is rooms[0] else "mcp_session_max_usd"
                raise SessionMoneySpent(room, setting, conf.config_file)
            amount = min(wanted, room.left)
            row = (job_id, kind, self.session, int(now // 86_400), now, label, tasks, amount)
            db.execute("INSERT INTO job VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, 'open')", row)
        return amount

    def settle(self, job_id: str, cost: int | None, state: str = "done") -> None:
        """Record how a job has ended; the cost None leaves what was reserved for it."""
        with self._open() as db:
            db.execute("UPDATE job SET cost = ?, state = ? WHERE id = ?", (cost, state, job_id))

    def allow(self, scope: str, amount: int) -> None:
        """Add to the limit of `session` or `day`, for this session or this day."""
        name = self._scope(scope, time.time())
        query = "INSERT INTO allowed VALUES (?, ?) ON CONFLICT DO UPDATE SET pico = pico + excluded.pico"
        with self._open() as db:
            db.execute(query, (name, amount))

    def rooms(self, conf: Settings) -> tuple[Room, Room]:
        """Return the day's and the session's."""
        with self._open() as db:
            return self._rooms(db, conf, time.time())

    def _scope(self, scope: str, now: float) -> str:
        return f"session {self.session}" if scope == "session" else f"day {int(now // 86_400)}"

    def _rooms(self, db: sqlite3.Connection, conf: Settings, now: float) -> tuple[Room, Room]:
        day = self._room(db, "day", conf.mcp_max_usd, "day = ?", int(now // 86_400), now)
        return day, self._room(db, "session", conf.mcp_session_max_usd, "session = ?", self.session, now)

    def _room(self, db: sqlite3.Connection, name: str, usd: float, where: str, value: object, now: float) -> Room:
        sums = f"SELECT coalesce(sum(cost), 0), coalesce(sum(reserved) FILTER (WHERE cost IS NULL), 0) FROM job WHERE {where}"  # noqa: S608, E501  (names from here)
        spent, held = db.execute(sums, (value,)).fetchone()
        more = db.execute("SELECT pico FROM allowed WHERE scope = ?", (self._scope(name, now),)).fetchone()
        limit = pico_of(usd) + (more[0] if more else 0) if usd else _ENDLESS
        return Room(name, limit, spent, held)

    def find(self, job_id: str) -> JobEntry | None:
        """Return a job by its id."""
        with self._open() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM job WHERE id = ?", (job_id,)).fetchone()  # noqa: S608
        return JobEntry(*row) if row else None

    def last(self, most: int) -> list[JobEntry]:
        """Return the newest jobs, those that have not ended first."""
        query = f"SELECT {_COLUMNS} FROM job ORDER BY state = 'open' DESC, created DESC LIMIT ?"  # noqa: S608
        with self._open() as db:
            return [JobEntry(*row) for row in db.execute(query, (most,))]

    def unsettled(self) -> list[JobEntry]:
        """Return the jobs that have not ended as far as the book knows."""
        query = f"SELECT {_COLUMNS} FROM job WHERE state = 'open'"  # noqa: S608
        with self._open() as db:
            return [JobEntry(*row) for row in db.execute(query)]

    def forget(self) -> list[str]:
        """Delete the old jobs and return their ids."""
        before = time.time() - KEEP_S
        with self._open() as db:
            old = [job_id for (job_id,) in db.execute("SELECT id FROM job WHERE created < ?", (before,))]
            db.execute("DELETE FROM job WHERE created < ?", (before,))
        return old
