"""The workstation's copy of all hosts' ledgers: one SQLite file, merged by cursor. It has rows only, no sums.

It keeps costs that hosts lose: a host deletes old rows (`jada_agent_history_days`), a rebuilt host loses all of them.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from farmhand.core.errors import FarmhandError, NotConfigured, WireMismatch
from farmhand.core.files import held_by_another, xdg
from farmhand.core.money import pico
from farmhand.core.task import Usage
from farmhand.cost.rows import BadLedger, FinishedTask, LedgerCharge, decode
from farmhand.cost.store_file import copied, create, opened, unwritable

#: Rows per transaction: enough for speed, few enough to need little memory.
CHUNK = 10_000
#: Less than what `farmhand mcp` waits for `farmhand cost`. Seconds.
_BUSY_S = 30.0
#: Time limit in seconds for merging one host's ledger. A year of busy days takes a fraction of it.
WITHIN_S = 300.0
#: Maximum pico-dollars of one host (US$ 500,000). More is implausible and would overflow SQLite's sums.
MOST_PICO = 5 * 10**17

SCHEMA_VERSION = 3
#: Token types by the API's names, as used in all tables and queries.
TOKENS = tuple(name for name in Usage.__struct_fields__ if name != "requests")
_COUNTS = ", ".join(f"{name} INTEGER NOT NULL" for name in TOKENS)
_TASK = ", ".join(f"{name} TEXT NOT NULL" for name in ("model", "engine", "batch", "work_class", "labels", "pot"))
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
#: What containers on AWS came to, beside the ledgers that they left: parts of ledgers and other objects that were read
#: for good, and runs of containers by stretches of time. `pico` is NULL where the time of runs is not known. A file of
#: this version from before gets these tables too.
_OF_CONTAINERS = """
CREATE TABLE IF NOT EXISTS object (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS container (
    source TEXT NOT NULL, number INTEGER NOT NULL, host TEXT NOT NULL, batch TEXT NOT NULL, began_at REAL NOT NULL,
    ended_at REAL NOT NULL, runs INTEGER NOT NULL, seconds INTEGER NOT NULL, pico INTEGER,
    PRIMARY KEY (source, number)
) WITHOUT ROWID;
"""
#: What is known of the gateway's turns beside their charges: whether one stayed on the operator's machine, what it
#: would have cost at list price (NULL: no price is known), and what may have been charged beside its cost.
_OF_GATEWAY = """
CREATE TABLE IF NOT EXISTS turn (
    ledger INTEGER NOT NULL, number INTEGER NOT NULL, created_at REAL NOT NULL, local INTEGER NOT NULL,
    list_pico INTEGER, held INTEGER NOT NULL, PRIMARY KEY (ledger, number)
) WITHOUT ROWID;
"""
#: The pots that were spent when a host was asked last: since when, if the API said so, and until when. Unix seconds.
_OF_POTS = """
CREATE TABLE IF NOT EXISTS closed_pot (
    ledger INTEGER NOT NULL, name TEXT NOT NULL, api_closed_at REAL, until REAL, PRIMARY KEY (ledger, name)
) WITHOUT ROWID;
"""
#: The engine of the gateway's rows, and the label that has their residency.
GATEWAY, RESIDENCY = "gateway", "residency"
_SHARED = ("number", "created_at", "model", "engine", "batch", "work_class", "label_text", "pot", "cost_pico")
_OF_TASK = ("started_at", "finished_at", "outcome", "error_text", "retries", "uncertain", "uncertain_pico")
#: By row type: its table, and its values in the order of the table's columns after `ledger`.
_KINDS = {
    LedgerCharge: ("charge", attrgetter(*_SHARED, "economy", "requests", *TOKENS)),
    FinishedTask: ("done", attrgetter(*_SHARED, *_OF_TASK)),
}


class LedgerPages(Protocol):
    """What has a ledger to be merged: an agent's client, or the gateway's file on this machine."""

    def status(self) -> dict[str, Any]:
        """Return `ledger`, with its `id`, and `budget_day`."""

    def charges(self, after: int = 0, limit: int = 10000) -> Iterator[bytes]:
        """Yield up to `limit` charges after number `after`, one JSON object each."""

    def finished(self, after: int = 0, limit: int = 10000) -> Iterator[bytes]:
        """Yield up to `limit` finished tasks after number `after`."""


class ContainerRuns(NamedTuple):
    """Runs of containers without a gap: Unix seconds, how many, billed seconds, pico-dollars (None: not known)."""

    began_at: float
    ended_at: float
    runs: int
    seconds: int
    pico: int | None


class StoreDamaged(FarmhandError):
    """An error of the store's file: it is not a store, or it is damaged."""

    code = "cost_store"


class StoreUnwritable(StoreDamaged):
    """The store's file is there and cannot be written; it may still be read."""


def default_path() -> Path:
    """Return `$XDG_STATE_HOME/farmhand/cost.db`, or the same below ~/.local/state if the variable is not set."""
    return Path(xdg("XDG_STATE_HOME"), "farmhand", "cost.db")


class CostStore:
    """The store in the file at `path`, which is created if missing (0600, its directory 0700).

    A file of an older version is rebuilt; `begun_again` is then the path of its copy. With `in_memory` the file is only
    read, and nothing that is merged is kept. Raises NotConfigured, StoreDamaged or StoreUnwritable.
    """

    def __init__(self, path: Path, *, in_memory: bool = False) -> None:
        if path.name == ":memory:":
            # SQLite would keep it in memory, and the empty file created first would remain.
            raise NotConfigured(f"the cost store {path} is no file", hint="give a file's name")
        self.path = path
        self.begun_again: Path | None = None
        self._kept = not in_memory
        try:
            self.db = copied(path) if in_memory else opened(path, _BUSY_S)
        except (OSError, sqlite3.OperationalError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            if unwritable(path, error) and not in_memory:
                raise StoreUnwritable(f"the cost store {path} cannot be written: {reason}") from None
            raise NotConfigured(f"the cost store {path} cannot be opened: {reason}", hint="see --cost-store") from None
        with self._whole():
            self._use_wal()
            self.db.execute("PRAGMA synchronous = NORMAL")
            if 0 < self._version() < SCHEMA_VERSION and self._kept:
                self._keep_copy()
        with self.transaction() as db:
            version = self._version()
            if version > SCHEMA_VERSION:
                message = f"the cost store {path} has version {version}, this farmhand knows {SCHEMA_VERSION}"
                raise StoreDamaged(message, hint="upgrade farmhand")
            if version < SCHEMA_VERSION:
                for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                    db.execute(f'DROP TABLE "{name}"')
                for statement in _TABLES.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            for statement in (_OF_CONTAINERS + _OF_GATEWAY + _OF_POTS).split(";"):
                db.execute(statement)

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
            create(copy, os.O_EXCL)
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
            if held_by_another(error):
                hint = "try again once that has ended"
                raise StoreDamaged(f"another process holds the cost store {self.path}", hint=hint) from None
            hint = "make room, or move the file away: it is merged again from the hosts"
            kind = StoreUnwritable if unwritable(self.path, error) else StoreDamaged
            raise kind(f"the cost store {self.path} cannot be used: {error}", hint=hint) from None

    @contextmanager
    def transaction(self, kind: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """Run a transaction. A deferred one that only reads has one snapshot, even while other processes merge."""
        with self._whole():
            self.db.execute(f"BEGIN {kind}")
            yield self.db
            self.db.execute("COMMIT")

    def ledger(self, uuid: str, host: str) -> tuple[int, int, int]:
        """Return (id, last charge, last finished task) of the ledger `uuid`, which is now on `host`."""
        query = "INSERT INTO ledger (uuid, host) VALUES (?, ?) ON CONFLICT (uuid) DO UPDATE SET host = excluded.host"
        with self.transaction() as db:
            db.execute(query, (uuid, host))
            number, charge_no, done_no = db.execute(
                "SELECT id, charge_no, done_no FROM ledger WHERE uuid = ?", (uuid,)
            ).fetchone()
        return number, charge_no, done_no

    def merged(self, ledger: int, at: float, budget: str | None) -> None:
        """Record that the ledger was completely merged `at` (Unix seconds), with its day budget then (JSON)."""
        with self.transaction() as db:
            db.execute("UPDATE ledger SET merged_at = ?, budget = ? WHERE id = ?", (at, budget, ledger))

    def close_pots(self, ledger: int, found: list[dict[str, Any]]) -> None:
        """Record which pots of a host's status are spent, in place of what was known of the ledger."""
        rows = [
            (ledger, str(pot["name"]), pot.get("api_closed_at"), pot.get("until"))
            for pot in found
            if pot.get("state") == "spent"
        ]
        with self.transaction() as db:
            db.execute("DELETE FROM closed_pot WHERE ledger = ?", (ledger,))
            db.executemany("INSERT OR REPLACE INTO closed_pot VALUES (?, ?, ?, ?)", rows)

    def closed_pots(self, at: float) -> dict[str, float | None]:
        """Return the pots that are spent `at`, by what each host's ledger of now said last, and when the API did."""
        query = (
            "SELECT name, max(api_closed_at) FROM closed_pot JOIN ledger AS l ON l.id = ledger"
            " WHERE (until IS NULL OR until > ?) AND NOT EXISTS"
            " (SELECT 1 FROM ledger AS newer WHERE newer.host = l.host AND newer.merged_at > l.merged_at) GROUP BY name"
        )
        return dict(self.rows(query, (at,)))

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
                    _add_up(db, ledger, sum(row.cost_pico or 0 for row in chunk.values()))
                new = [(ledger, *values(row)) for row in chunk.values()]
                if new:
                    db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(new[0]))})", new)  # noqa: S608
                if kind is LedgerCharge:
                    turns = [_turn(ledger, row) for row in chunk.values() if row.engine == GATEWAY]
                    db.executemany("INSERT OR IGNORE INTO turn VALUES (?, ?, ?, ?, ?, ?)", turns)
                db.execute(f"UPDATE ledger SET {table}_no = max({table}_no, ?) WHERE id = ?", (last, ledger))  # noqa: S608
        return came

    def was_read(self, prefix: str) -> set[str]:
        """Return the keys below `prefix` that were read for good."""
        rows = self.rows("SELECT key FROM object WHERE substr(key, 1, ?) = ?", (len(prefix), prefix))
        return {key for (key,) in rows}

    def read_for_good(self, key: str) -> None:
        """Note that the object at `key` was merged and cannot change."""
        with self.transaction() as db:
            db.execute("INSERT OR IGNORE INTO object VALUES (?)", (key,))

    def ran(self, source: str, host: str, batch: str, runs: Iterable[ContainerRuns], *, settled: bool) -> None:
        """Record what the object at `source` says of containers, in place of what it or another told before."""
        with self.transaction() as db:
            db.execute("DELETE FROM container WHERE source = ?", (source,))
            new = [(source, number, host, batch, *each) for number, each in enumerate(runs)]
            db.executemany("INSERT INTO container VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", new)
            if settled:
                db.execute("INSERT OR IGNORE INTO object VALUES (?)", (source,))

    def asked(self, host: str, at: float) -> None:
        """Record that all ledgers of a host were completely merged `at` (Unix seconds)."""
        with self.transaction() as db:
            db.execute("UPDATE ledger SET merged_at = ? WHERE host = ?", (at, host))

    def rows(self, query: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a read-only query."""
        with self._whole():
            return self.db.execute(query, tuple(values)).fetchall()


def _add_up(db: sqlite3.Connection, ledger: int, more: int) -> None:
    query = "SELECT sum(pico) FROM ledger WHERE host = (SELECT host FROM ledger WHERE id = ?)"
    if db.execute(query, (ledger,)).fetchone()[0] + more > MOST_PICO:
        raise BadLedger(f"its charges come to more than US$ {MOST_PICO // 10**12}, which nobody believes")
    db.execute("UPDATE ledger SET pico = pico + ? WHERE id = ?", (more, ledger))


def _turn(ledger: int, row: LedgerCharge) -> tuple[Any, ...]:
    listed = None if row.list_usd is None else pico(row.list_usd)
    local = row.labels.get(RESIDENCY) == "local"
    return ledger, row.number, row.created_at, local, listed, pico(row.held_usd or Decimal(0))


def pull(store: CostStore, host: str, agent: LedgerPages) -> int:
    """Merge the new rows of the ledger of the agent on `host`, in constant memory. Return the number of lines.

    If interrupted, merged rows stay and the next call continues after them. Raises WireError, BadLedger, and
    WireMismatch if the agent is too old to have a ledger that can be merged.
    """
    status = agent.status()
    ledger = status.get("ledger")
    uuid = ledger.get("id") if isinstance(ledger, dict) else None
    if not isinstance(uuid, str) or not uuid:
        raise WireMismatch(f"{host}: the agent is too old for farmhand cost", hint="upgrade the farm host: farmhand up")
    number, charge_no, done_no = store.ledger(uuid, host)
    try:
        came = store.merge(number, LedgerCharge, _new(LedgerCharge, agent.charges, charge_no))
        came += store.merge(number, FinishedTask, _new(FinishedTask, agent.finished, done_no))
    except BadLedger as error:
        raise BadLedger(f"{host}: {error.message}", hint=error.hint) from None
    store.close_pots(number, status.get("pots") or [])
    budget = status.get("budget_day")
    store.merged(number, time.time(), json.dumps(budget) if isinstance(budget, dict) else None)
    return came


def _new(
    kind: type[LedgerCharge | FinishedTask], ask: Callable[[int, int], Iterator[bytes]], after: int
) -> Iterator[LedgerCharge | FinishedTask]:
    """Yield the rows after `after`, page by page, until a page is not full."""
    end, came = time.monotonic() + WITHIN_S, CHUNK
    while came >= CHUNK:
        came, first = 0, after
        for line in ask(first, CHUNK):
            row = decode(kind, line)
            if row.number < after or row.number == first:
                raise BadLedger(f"number {row.number} of the ledger comes behind {after}")
            after, came = row.number, came + 1
            yield row
            if time.monotonic() > end:
                hint = "the same command goes on from there"
                raise BadLedger(f"its ledger has not ended after {WITHIN_S:g} s", hint=hint)
