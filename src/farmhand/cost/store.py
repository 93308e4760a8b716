"""The workstation's copy of all hosts' ledgers: one SQLite file, merged by cursor.

It is in the state directory and keeps costs that hosts lose: a host deletes old rows (`jada_agent_history_days`), and a
rebuilt host loses all of them. It stores rows only, no sums.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from farmhand.core.errors import FarmhandError, NotConfigured
from farmhand.core.files import xdg
from farmhand.core.task import Usage
from farmhand.cost.rows import BadLedger, FinishedTask, LedgerCharge

#: Rows per transaction: enough for speed, few enough to need little memory.
CHUNK = 10_000
_BUSY_S = 60.0
#: SQLite's name for a database without a file.
_IN_MEMORY = ":memory:"
#: Maximum pico-dollars of one host (US$ 500,000). More is implausible and would overflow SQLite's sums.
MOST_PICO = 5 * 10**17

SCHEMA_VERSION = 2
#: Token types by the API's names, as used in all tables and queries.
TOKENS = tuple(name for name in Usage.__struct_fields__ if name != "requests")
_COUNTS = ", ".join(f"{name} INTEGER NOT NULL" for name in TOKENS)
_TASK = ", ".join(f"{name} TEXT NOT NULL" for name in ("model", "engine", "batch", "work_class", "labels"))
#: `ledger.pico` is the sum of the ledger's charges. `labels` is JSON text, equal for equal labels, "" for none.
_TABLES = f"""
CREATE TABLE ledger (
    id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, host TEXT NOT NULL, merged_at REAL, budget TEXT,
    charge_no INTEGER NOT NULL DEFAULT 0, done_no INTEGER NOT NULL DEFAULT 0, pico INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE charge (
    ledger INTEGER NOT NULL REFERENCES ledger (id), number INTEGER NOT NULL,
    created_at REAL NOT NULL, {_TASK}, pico INTEGER, economy INTEGER NOT NULL, requests INTEGER NOT NULL, {_COUNTS},
    PRIMARY KEY (ledger, number)
) WITHOUT ROWID;
CREATE TABLE done (
    ledger INTEGER NOT NULL REFERENCES ledger (id), number INTEGER NOT NULL,
    created_at REAL NOT NULL, {_TASK}, pico INTEGER, started_at REAL, finished_at REAL NOT NULL, state TEXT NOT NULL,
    error TEXT NOT NULL, retries INTEGER NOT NULL, uncertain INTEGER NOT NULL, uncertain_pico INTEGER,
    PRIMARY KEY (ledger, number)
) WITHOUT ROWID;
CREATE TABLE session_file (path TEXT PRIMARY KEY, inode INTEGER NOT NULL, offset INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE session_message (key TEXT PRIMARY KEY, at REAL NOT NULL, model TEXT NOT NULL, {_COUNTS}) WITHOUT ROWID;
CREATE TABLE session_uncounted (
    path TEXT NOT NULL, offset INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (path, offset)
) WITHOUT ROWID;
"""
_SHARED = ("number", "created_at", "model", "engine", "batch", "work_class", "label_text", "cost_pico")
#: By row type: its table, and its values in the order of the table's columns after `ledger`.
_KINDS = {
    LedgerCharge: ("charge", attrgetter(*_SHARED, "economy", "requests", *TOKENS)),
    FinishedTask: (
        "done",
        attrgetter(
            *_SHARED, "started_at", "finished_at", "outcome", "error_text", "retries", "uncertain", "uncertain_pico"
        ),
    ),
}


class StoreDamaged(FarmhandError):
    """An error of the store's file: it is not a store, or it is damaged."""

    code = "cost_store"


def default_path() -> Path:
    """Return `$XDG_STATE_HOME/farmhand/cost.db`, or the same below ~/.local/state if the variable is not set."""
    return Path(xdg("XDG_STATE_HOME"), "farmhand", "cost.db")


class CostStore:
    """The store in the file at `path`, which is created if missing (0600, its directory 0700).

    A file of an older version is rebuilt; `begun_again` is then the path of its copy. Raises NotConfigured or
    StoreDamaged.
    """

    def __init__(self, path: Path) -> None:
        if path.name == _IN_MEMORY:
            # SQLite would keep it in memory, and the empty file created first would remain.
            raise NotConfigured(f"the cost store {path} is no file", hint="give a file's name")
        self.path = path
        self.begun_again: Path | None = None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                _create(path, os.O_EXCL)
            self.db = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_S)
        except (OSError, sqlite3.OperationalError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise NotConfigured(f"the cost store {path} cannot be opened: {reason}", hint="see --cost-store") from None
        with self._whole():
            self._use_wal()
            self.db.execute("PRAGMA synchronous = NORMAL")
            if 0 < self._version() < SCHEMA_VERSION:
                self._keep_copy()
        with self.transaction() as db:
            version = self._version()
            if version > SCHEMA_VERSION:
                message = f"the cost store {self.path} has version {version}, this farmhand knows {SCHEMA_VERSION}"
                raise StoreDamaged(message, hint="upgrade farmhand")
            if version < SCHEMA_VERSION:
                for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                    db.execute(f'DROP TABLE "{name}"')
                for statement in _TABLES.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _use_wal(self) -> None:
        """Switch to WAL. SQLite does not wait for another process that does the same at this moment, so this does."""
        until = time.monotonic() + _BUSY_S
        while True:
            try:
                self.db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                time.sleep(0.01)

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    def _version(self) -> int:
        version: int = self.db.execute("PRAGMA user_version").fetchone()[0]
        return version

    def _keep_copy(self) -> None:
        """Copy a file of an older version: hosts and session logs may no longer have its data."""
        copy = self.path.with_name(f"{self.path.name}.v{self._version()}")
        with suppress(FileExistsError):
            _create(copy, os.O_EXCL)
            self.db.execute("VACUUM INTO ?", (str(copy),))
        self.begun_again = copy

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Roll back on any error, and report an SQLite error as one line."""
        try:
            yield
        except BaseException as error:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            if not isinstance(error, sqlite3.DatabaseError):
                raise
            hint = "make room, or move the file away: it is merged again from the hosts"
            raise StoreDamaged(f"the cost store {self.path} cannot be used: {error}", hint=hint) from None

    @contextmanager
    def transaction(self, kind: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """Run a transaction. A deferred one that only reads has one snapshot, even while other processes merge."""
        with self._whole():
            self.db.execute(f"BEGIN {kind}")
            yield self.db
            self.db.execute("COMMIT")

    def ledger(self, uuid: str, host: str) -> tuple[int, int, int]:
        """Return (id, last charge, last finished task) of the ledger `uuid`, which is now on `host`."""
        with self._whole():
            self.db.execute(
                "INSERT INTO ledger (uuid, host) VALUES (?, ?) ON CONFLICT (uuid) DO UPDATE SET host = excluded.host",
                (uuid, host),
            )
        number, charge_no, done_no = self.rows("SELECT id, charge_no, done_no FROM ledger WHERE uuid = ?", (uuid,))[0]
        return number, charge_no, done_no

    def merged(self, ledger: int, at: float, budget: str | None) -> None:
        """Record that the ledger was completely merged `at` (Unix seconds), with its day budget then (JSON)."""
        with self._whole():
            self.db.execute("UPDATE ledger SET merged_at = ?, budget = ? WHERE id = ?", (at, budget, ledger))

    def merge(self, ledger: int, kind: type[LedgerCharge] | type[FinishedTask], rows: Iterable[Any]) -> int:
        """Insert rows of a ledger, ignoring those already stored. Return the number of rows received, old and new.

        Raises BadLedger if the total cost of the host's charges is implausible.
        """
        source, came = iter(rows), 0
        table, values = _KINDS[kind]
        while found := list(islice(source, CHUNK)):
            came += len(found)
            chunk = {row.number: row for row in found}
            last = max(chunk)
            with self.transaction() as db:
                known = f"SELECT number FROM {table} WHERE ledger = ? AND number BETWEEN ? AND ?"  # noqa: S608
                for (number,) in db.execute(known, (ledger, min(chunk), last)):
                    chunk.pop(number, None)
                if kind is LedgerCharge:
                    self._add_up(db, ledger, sum(row.cost_pico or 0 for row in chunk.values()))
                new = [(ledger, *values(row)) for row in chunk.values()]
                if new:
                    db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(new[0]))})", new)  # noqa: S608
                db.execute(f"UPDATE ledger SET {table}_no = max({table}_no, ?) WHERE id = ?", (last, ledger))  # noqa: S608
        return came

    def _add_up(self, db: sqlite3.Connection, ledger: int, more: int) -> None:
        query = "SELECT sum(pico) FROM ledger WHERE host = (SELECT host FROM ledger WHERE id = ?)"
        if db.execute(query, (ledger,)).fetchone()[0] + more > MOST_PICO:
            raise BadLedger(f"its charges come to more than US$ {MOST_PICO // 10**12}, which nobody believes")
        db.execute("UPDATE ledger SET pico = pico + ? WHERE id = ?", (more, ledger))

    def rows(self, query: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a read-only query."""
        with self._whole():
            return self.db.execute(query, tuple(values)).fetchall()


def _create(path: Path, flag: int = 0) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | flag, 0o600))
