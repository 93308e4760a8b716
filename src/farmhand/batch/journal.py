"""The journal of a batch: one SQLite file beside the output, the only authority on its state. It contains no key.

It has a row per line of the input, the tasks of the lines that have not succeeded, and all results; the output is
written from it. Only one process can have it open. A lease is recorded before its task is sent, a result before it is
written to the output.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from farmhand.core.errors import FarmhandError, UsageError

VERSION = 2
#: The most pico-dollars recorded for a worker, so that no worker's figures overflow the total.
_MOST_COST = 2**60
#: A portion ends with the task that exceeds this size.
MAX_PORTION_BYTES = 4 * 1024 * 1024
WAITING, LEASED, SUCCEEDED, FAILED, CANCELLED = range(5)
FINAL = {"succeeded": SUCCEEDED, "failed": FAILED, "cancelled": CANCELLED}
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE worker (
    no INTEGER PRIMARY KEY, place TEXT NOT NULL, name TEXT NOT NULL,
    cursor INTEGER NOT NULL DEFAULT 0,      -- how far its results are taken
    cost INTEGER NOT NULL DEFAULT 0,        -- pico-dollars, of all it did for this batch
    uncertain INTEGER NOT NULL DEFAULT 0,   -- requests that may have cost something besides
    duplicates INTEGER NOT NULL DEFAULT 0,  -- results that another worker had first
    duplicates_cost INTEGER NOT NULL DEFAULT 0,
    UNIQUE (place, name)
);
CREATE TABLE line (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
    state INTEGER NOT NULL DEFAULT 0,
    lease TEXT NOT NULL UNIQUE,             -- the id under which workers know it, once each
    generation INTEGER NOT NULL DEFAULT 1,  -- how many such ids it has had
    worker INTEGER REFERENCES worker (no),
    acked INTEGER NOT NULL DEFAULT 0,       -- leased: 1 once the worker has said so, -1 before it ever did
    stopping INTEGER NOT NULL DEFAULT 0,    -- leased: whether we asked to cancel it, to lease it again some day
    cost INTEGER                            -- pico-dollars; NULL: unknown, or not done
);
CREATE INDEX line_state ON line (state, n);
CREATE TABLE task (n INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE revoked (                      -- leases that are another worker's, or nobody's, by now
    worker INTEGER NOT NULL, lease TEXT NOT NULL, n INTEGER NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0,        -- whether the worker has been told to cancel it
    settled INTEGER NOT NULL DEFAULT 0,     -- whether its result there is counted
    PRIMARY KEY (worker, lease)
) WITHOUT ROWID;
CREATE TABLE result (seq INTEGER PRIMARY KEY, n INTEGER NOT NULL UNIQUE, line BLOB NOT NULL);
"""
_TABLES = frozenset(re.findall(r"CREATE TABLE (\w+)", _SCHEMA))
#: The tables that other versions have as well.
_COMMON = frozenset({"meta", "line"})


class Lease(NamedTuple):
    """The state of a line: its own id, the id of its current or next lease, and the worker that holds it."""

    n: int
    task_id: str
    id: str
    state: int
    worker: int | None
    stopping: int


_LEASE = "SELECT l.n, l.id, l.lease, l.state, l.worker, l.stopping FROM line l"


class Journal:
    """An open journal. Methods that change something must be called in a `transaction`."""

    def __init__(self, path: Path, *, any_version: bool = False) -> None:
        """Open or create it. Raise UsageError if another client has it open or it is not a journal.

        With `any_version`, open another version's journal as well, so that it can be removed.
        """
        self.path = path
        try:
            with suppress(FileExistsError):
                path.touch(0o600, exist_ok=False)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.2)
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            # Check before anything is changed: it may be an unrelated database.
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            found = {
                row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
            }
            known = _TABLES if version == VERSION else _COMMON
            if not (found >= known if version else not found):
                raise sqlite3.DatabaseError
            other = version not in (0, VERSION) and not any_version
            if not other:
                self._db.execute("PRAGMA journal_mode = WAL")
                # A transaction lost in a power cut can be recovered: the workers still have its tasks and results.
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.execute("PRAGMA cache_size = -8192")
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute("COMMIT")
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}", hint="choose another --out") from None
        except sqlite3.OperationalError as error:
            raise _unusable(path, error) from None
        except sqlite3.DatabaseError:
            self.close()
            raise UsageError(f"{path} is not a journal of farmhand batch", hint="choose another --out") from None
        self.version = int(version)
        if other:
            self.close()
            hint = "finish it with that, or choose another --out; --restart runs and pays for all of it again"
            raise UsageError(f"{path} was written by another version of farmhand", hint=hint)
        self.fresh = version == 0

    def begin_new(self, about: dict[str, str]) -> None:
        """Create the tables. Call it in a transaction, so that nothing is created without a commit."""
        # Not executescript, which would commit.
        for statement in _SCHEMA.split(";\n"):
            self._db.execute(statement)
        for name, value in about.items():
            self.note(name, value)
        self._db.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        """Close the journal."""
        self._db.close()

    def remove(self) -> None:
        """Close and delete the journal."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block in a transaction. Raise FarmhandError if the disk is full."""
        try:
            self._db.execute("BEGIN")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:  # a full disk ends the transaction by itself
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            hint = "make room and give the same command: it goes on from here"
            raise FarmhandError(f"{self.path}: {error}", hint=hint, code="output") from None

    # --- about the batch ------------------------------------------------------------------------------------------

    def about(self, name: str) -> str:
        """Return a fact about the batch, or "" if there is none."""
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else ""

    def note(self, name: str, value: str) -> None:
        """Store a fact about the batch."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def add(self, n: int, task_id: str, body: bytes) -> int | None:
        """Add a line and its task's fields. If its id is taken, return the number of the line that has it."""
        try:
            self._db.execute("INSERT INTO line (n, id, lease) VALUES (?, ?, ?)", (n, task_id, task_id))
        except sqlite3.IntegrityError:
            return int(self._db.execute("SELECT n FROM line WHERE id = ?", (task_id,)).fetchone()[0])
        self._db.execute("INSERT INTO task VALUES (?, ?)", (n, body))
        return None

    def id_of(self, n: int) -> str | None:
        """Return the id of line `n`, or None if there is no such line."""
        row = self._db.execute("SELECT id FROM line WHERE n = ?", (n,)).fetchone()
        return str(row[0]) if row else None

    def counts(self) -> dict[int, int]:
        """Return how many lines are in each state."""
        found = dict(self._db.execute("SELECT state, count(*) FROM line GROUP BY state"))
        return {state: found.get(state, 0) for state in range(5)}

    def sums(self) -> tuple[int, int, int, int]:
        """Return, for all workers: pico-dollars, uncertain requests, duplicates, and the duplicates' pico-dollars."""
        query = "SELECT total(cost), total(uncertain), total(duplicates), total(duplicates_cost) FROM worker"
        cost, uncertain, duplicates, duplicates_cost = self._db.execute(query).fetchone()
        return int(cost), int(uncertain), int(duplicates), int(duplicates_cost)

    def unpriced(self) -> int:
        """Return how many finished lines have an unknown cost."""
        query = "SELECT count(*) FROM line WHERE state IN (2, 3) AND cost IS NULL"
        return int(self._db.execute(query).fetchone()[0])

    # --- workers --------------------------------------------------------------------------------------------------

    def worker(self, place: str, name: str) -> tuple[int, int, int]:
        """Return (number, cursor, cost) of a worker, which is added if it is new."""
        self._db.execute("INSERT OR IGNORE INTO worker (place, name) VALUES (?, ?)", (place, name))
        query = "SELECT no, cursor, cost FROM worker WHERE place = ? AND name = ?"
        no, cursor, cost = self._db.execute(query, (place, name)).fetchone()
        return int(no), int(cursor), int(cost)

    def holders(self) -> dict[tuple[str, str], int]:
        """Return the workers that hold leases of this batch: (place, name) → number."""
        query = "SELECT place, name, no FROM worker WHERE no IN (SELECT DISTINCT worker FROM line WHERE state = 1)"
        return {(place, name): no for place, name, no in self._db.execute(query)}

    def advance(self, worker: int, cursor: int, cost: int, uncertain: int) -> None:
        """Record that results up to `cursor` were processed, and add `cost` to the worker's cost."""
        self._db.execute(
            "UPDATE worker SET cursor = max(cursor, ?), cost = min(cost + ?, ?), uncertain = uncertain + ?"
            " WHERE no = ?",
            (cursor, min(cost, _MOST_COST), _MOST_COST, uncertain, worker),
        )

    def count_duplicate(self, worker: int, cost: int) -> None:
        """Record that the worker repeated, at `cost`, work that another had done before."""
        query = (
            "UPDATE worker SET duplicates = duplicates + 1, duplicates_cost = min(duplicates_cost + ?, ?) WHERE no = ?"
        )
        self._db.execute(query, (cost, _MOST_COST, worker))

    # --- leases ---------------------------------------------------------------------------------------------------

    def lease(self, worker: int, lost: Iterable[int], limit: int) -> list[bytes]:
        """Lease up to `limit` tasks to `worker` and return them as on the wire.

        First come those that it may have lost, then those of the workers `lost`, then those that wait.
        """
        others = ",".join(str(int(no)) for no in lost if no != worker) or "NULL"
        batch = self.about("batch").encode()
        tasks: list[bytes] = []
        size = 0
        for where in (
            f"l.state = 1 AND l.acked <= 0 AND l.worker = {int(worker)}",
            f"l.state = 1 AND l.acked <= 0 AND l.worker IN ({others})",
            "l.state = 0",
        ):
            query = f"{_LEASE} WHERE {where} ORDER BY l.n LIMIT ?"
            for row in self._db.execute(query, (limit - len(tasks),)).fetchall():
                if size > MAX_PORTION_BYTES:
                    return tasks
                (body,) = self._db.execute("SELECT body FROM task WHERE n = ?", (row[0],)).fetchone()
                given = self._give(Lease(*row), worker).encode()
                tasks.append(b'{"id":"%b","batch":"%b",%b' % (given, batch, body))
                size += len(body) + 200
        return tasks

    def _give(self, lease: Lease, worker: int) -> str:
        """Lease one line to `worker` and return its id there, a new one if the current id was already used there."""
        if lease.worker not in (None, worker):
            self.revoke(lease, sent=False)
        query = "SELECT 1 FROM revoked WHERE worker = ? AND lease = ?"
        spent = self._db.execute(query, (worker, lease.id)).fetchone()
        going = self._renew(lease) if spent else lease.id
        first = spent or lease.worker != worker
        query = "UPDATE line SET state = 1, cost = NULL, worker = ?, acked = ?, stopping = 0 WHERE n = ?"
        self._db.execute(query, (worker, -1 if first else 0, lease.n))
        return going

    def _renew(self, lease: Lease) -> str:
        """Give the line a new id on the wire, because a worker runs each id only once."""
        (number,) = self._db.execute("SELECT generation + 1 FROM line WHERE n = ?", (lease.n,)).fetchone()
        new = suffixed(lease.task_id, f".r{number}")
        while self._db.execute("SELECT 1 FROM line WHERE lease = ?", (new,)).fetchone():
            number += 1
            new = suffixed(lease.task_id, f".r{number}")
        self._db.execute("UPDATE line SET lease = ?, generation = ? WHERE n = ?", (new, number, lease.n))
        return new

    def leases(self, worker: int) -> tuple[int, int]:
        """Return how many leases the worker has, and how many of them it may have lost or never received."""
        query = "SELECT count(*), total(acked <= 0) FROM line WHERE state = 1 AND worker = ?"
        whole, doubtful = self._db.execute(query, (worker,)).fetchone()
        return int(whole), int(doubtful)

    def ack(self, worker: int, ids: Iterable[str]) -> None:
        """Record that the worker has these leases."""
        self._db.executemany(
            "UPDATE line SET acked = 1 WHERE lease = ? AND worker = ? AND state = 1", ((one, worker) for one in ids)
        )

    def doubt(self, worker: int | None = None) -> None:
        """Mark the leases of the worker (None: all workers) as possibly lost."""
        self._db.execute("UPDATE line SET acked = 0 WHERE state = 1 AND worker = ifnull(?, worker)", (worker,))

    def stopping(self, worker: int) -> None:
        """Record that the worker's tasks may be cancelled by us from now on."""
        self._db.execute("UPDATE line SET stopping = 1 WHERE state = 1 AND worker = ?", (worker,))

    def revoke(self, lease: Lease, *, sent: bool) -> None:
        """Revoke the lease; `sent`: its worker has already been notified."""
        query = "INSERT INTO revoked (worker, lease, n, sent) VALUES (?, ?, ?, ?)"
        query += " ON CONFLICT DO UPDATE SET sent = max(sent, excluded.sent)"
        self._db.execute(query, (lease.worker, lease.id, lease.n, sent))

    def to_cancel(self, worker: int, limit: int) -> list[str]:
        """Return revoked leases that the worker may still be running."""
        query = "SELECT lease FROM revoked WHERE worker = ? AND sent = 0 LIMIT ?"
        return [str(row[0]) for row in self._db.execute(query, (worker, limit))]

    def cancelled(self, worker: int, ids: Iterable[str]) -> None:
        """Record that the worker has cancelled these leases."""
        query = "UPDATE revoked SET sent = 1 WHERE worker = ? AND lease = ?"
        self._db.executemany(query, ((worker, one) for one in ids))

    def settle(self, worker: int, lease_id: str) -> None:
        """Record that the worker's result for a revoked lease has been counted."""
        query = "UPDATE revoked SET sent = 1, settled = 1 WHERE worker = ? AND lease = ?"
        self._db.execute(query, (worker, lease_id))

    def put_back(self, lease: Lease) -> None:
        """Put the line back to wait, without a worker and under an unused id."""
        self._renew(lease)
        self._db.execute("UPDATE line SET state = 0, worker = NULL, acked = 0, stopping = 0 WHERE n = ?", (lease.n,))

    def not_taken(self, worker: int, *, nor_doubtful: bool) -> None:
        """Put back first leases that did not reach the worker; with `nor_doubtful` also those it may have lost."""
        where = "acked <= 0" if nor_doubtful else "acked = -1"
        query = f"UPDATE line SET state = 0, worker = NULL, acked = 0 WHERE state = 1 AND worker = ? AND {where}"  # noqa: S608  (ours)
        self._db.execute(query, (worker,))

    def find(self, worker: int, lease_id: str) -> Lease | None:
        """Return the line of a lease that the worker holds, or held until the line was finished."""
        row = self._db.execute(f"{_LEASE} WHERE l.lease = ? AND l.worker = ?", (lease_id, worker)).fetchone()
        return Lease(*row) if row else None

    def find_revoked(self, worker: int, lease_id: str) -> Lease | None:
        """Return the line of a revoked lease of the worker whose result is not counted yet, or None."""
        query = f"{_LEASE} JOIN revoked r ON l.n = r.n WHERE r.worker = ? AND r.lease = ? AND r.settled = 0"
        row = self._db.execute(query, (worker, lease_id)).fetchone()
        return Lease(*row) if row else None

    # --- results --------------------------------------------------------------------------------------------------

    def finish(self, n: int, state: int, worker: int, cost: int | None, line: bytes) -> None:
        """Record the result of a line."""
        query = "UPDATE line SET state = ?, worker = ?, cost = ?, stopping = 0 WHERE n = ?"
        self._db.execute(query, (state, worker, cost, n))
        self._db.execute("INSERT INTO result (n, line) VALUES (?, ?)", (n, line))
        if state == SUCCEEDED:
            self._db.execute("DELETE FROM task WHERE n = ?", (n,))

    def results(self, after: int, *, ordered: bool) -> Iterator[tuple[int, bytes]]:
        """Yield (position, line of the output) for all results after position `after`.

        With `ordered`, the position is the line's number, and the results end before the first unfinished line.
        """
        query = "SELECT seq, line FROM result WHERE seq > ? ORDER BY seq"
        if ordered:
            query = (
                "SELECT n, line FROM result WHERE n > ?"
                " AND n < coalesce((SELECT min(n) FROM line WHERE state = 0), 9e18)"
                " AND n < coalesce((SELECT min(n) FROM line WHERE state = 1), 9e18) ORDER BY n"
            )
        yield from self._db.execute(query, (after,))

    def retry_failed(self) -> None:
        """Delete the results of failed and cancelled lines, so that they wait again under new ids."""
        rows = self._db.execute(f"{_LEASE} WHERE l.state IN (3, 4)").fetchall()
        for row in rows:
            self.put_back(Lease(*row))
            self._db.execute("DELETE FROM result WHERE n = ?", (row[0],))


def suffixed(task_id: str, suffix: str) -> str:
    """Return `task_id` with `suffix`, within the 64 characters of an id."""
    whole = task_id + suffix
    if len(whole) <= 64:
        return whole
    digest = hashlib.sha256(task_id.encode()).hexdigest()[:12]
    return f"{task_id[: 64 - 13 - len(suffix)]}-{digest}{suffix}"


def _unusable(path: Path, error: sqlite3.OperationalError) -> FarmhandError:
    if "locked" in str(error) or "busy" in str(error):
        return UsageError(f"another farmhand batch is at work on {path}", hint="wait for it, or choose another --out")
    return UsageError(f"{path}: {error}", hint="choose another --out")
