"""The journal of a batch: one SQLite file beside the output, the only authority on its state. It contains no key.

It has a row per line of the input, the tasks of the lines that have not succeeded, and all results. Only one process
can have it open. A lease is recorded before its task is sent, a result before it is written to the output.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from farmhand.batch.bent import HELD, BentLines, Shape
from farmhand.batch.journal_schema import COMMON, INPUT, SCHEMA, TABLES
from farmhand.batch.tally import DOUBTFUL, keep_tally
from farmhand.core.errors import FarmhandError, UsageError
from farmhand.core.ids import again_id

VERSION = 2
#: The most pico-dollars that a row can have (SQLite's integers): US$ 9.2 million of a worker.
_MOST_COST = 2**63 - 1
#: A portion ends with the task that exceeds this size.
MAX_PORTION_BYTES = 4 * 1024 * 1024
#: The states of a line; the last three by the names of a result's states.
WAITING, LEASED, SUCCEEDED, FAILED, CANCELLED = range(5)
FINAL = {"succeeded": SUCCEEDED, "failed": FAILED, "cancelled": CANCELLED}
_ANOTHER = "choose another --out"


class Lease(NamedTuple):
    """The state of a line: its own id, the id of its current or next lease, and the worker that holds it."""

    n: int
    task_id: str
    id: str
    state: int
    worker: int | None
    stopping: int
    revoked: bool = False

    @property
    def held(self) -> bool:
        """Return whether the lease is neither finished nor revoked."""
        return self.state == LEASED and not self.revoked


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
            try:
                version = self._check_version()
                self.fresh, self.other_version = version == 0, version not in (0, VERSION)
                if self.other_version and not any_version:
                    hint = f"finish it with that, or {_ANOTHER}; --restart runs and pays for all of it again"
                    raise UsageError(f"{path} was written by another version of farmhand", hint=hint)
                if not self.other_version:
                    self._lock()
                self.bent = BentLines(self._db)
            except BaseException:
                self.close()
                raise
        except (OSError, sqlite3.DatabaseError) as error:
            raise _unusable(path, error) from None

    def _check_version(self) -> int:
        """Return the version, 0 for an empty file. Change nothing, since it may be an unrelated database."""
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        version = int(self._one("PRAGMA user_version"))
        found = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
        known = TABLES if version == VERSION else COMMON
        if not (found >= known if version else not found):
            raise sqlite3.DatabaseError
        return version

    def _lock(self) -> None:
        # A transaction lost in a power cut can be recovered: the workers still have its tasks and results.
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "cache_size = -8192", "temp_store = MEMORY"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("COMMIT")

    def _do(self, query: str, *values: Any) -> sqlite3.Cursor:
        return self._db.execute(query, values)

    def _one(self, query: str, *values: Any) -> Any:
        """Return the first value of the first row, or None if there is no row."""
        row = self._do(query, *values).fetchone()
        return row[0] if row else None

    def begin_new(self, about: dict[str, str]) -> None:
        """Create the tables. Call it in a transaction, so that nothing is created without a commit."""
        # Not executescript, which would commit.
        for statement in SCHEMA.split(";\n"):
            self._db.execute(statement)
        self._db.execute(INPUT)
        for name, value in about.items():
            self.note(name, value)
        self._db.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        """Close the journal."""
        self._db.close()

    def abandon(self) -> None:
        """Close the journal, and delete it if it is new."""
        if self.fresh:
            self.remove()
        else:
            self.close()

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
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:  # a full disk ends the transaction by itself
                self._db.execute("ROLLBACK")
            if not isinstance(error, sqlite3.OperationalError):
                raise
            hint = "make room and give the same command: it goes on from here"
            raise FarmhandError(f"{self.path}: {error}", hint=hint, code="output") from None

    def about(self, name: str) -> str:
        """Return a fact about the batch, or "" if there is none."""
        return str(self._one("SELECT value FROM meta WHERE name = ?", name) or "")

    def note(self, name: str, value: str) -> None:
        """Store a fact about the batch."""
        self._do("INSERT OR REPLACE INTO meta VALUES (?, ?)", name, value)

    def add(self, n: int, task_id: str, body: bytes, columns: bytes | None = None) -> int | None:
        """Add a line, its task's fields, and the columns to keep. If its id is taken, return the line that has it."""
        try:
            self._do("INSERT INTO line (n, id, lease) VALUES (?, ?, ?)", n, task_id, task_id)
        except sqlite3.IntegrityError:
            return int(self._one("SELECT n FROM line WHERE id = ?", task_id))
        self._do("INSERT INTO task VALUES (?, ?)", n, body)
        if columns is not None:
            self._do("INSERT INTO input VALUES (?, ?)", n, columns)
        return None

    def columns_of(self, n: int) -> bytes | None:
        """Return the kept columns of line `n` as a JSON object, or None if it has none."""
        columns: bytes | None = self._one("SELECT columns FROM input WHERE n = ?", n)
        return columns

    def all_columns(self) -> Iterator[bytes]:
        """Yield the kept columns of all lines, as JSON objects."""
        return (columns for (columns,) in self._do("SELECT columns FROM input"))

    def bodies(self, states: Iterable[int]) -> Iterator[bytes]:
        """Yield the tasks' fields, as `add` was given them, of the lines in these states."""
        marks = ", ".join(str(int(state)) for state in states)
        for (body,) in self._do(f"SELECT body FROM line JOIN task USING (n) WHERE state IN ({marks}) ORDER BY n"):  # noqa: S608  (numbers)
            yield body

    def body(self, n: int) -> bytes:
        """Return the fields of the task of line `n`, as `add` was given them."""
        return bytes(self._one("SELECT body FROM task WHERE n = ?", n))

    def id_of(self, n: int) -> str | None:
        """Return the id of line `n`, or None if there is no such line."""
        task_id: str | None = self._one("SELECT id FROM line WHERE n = ?", n)
        return task_id

    def count(self) -> None:
        """Count the lines, for `waiting`, `leases` and `holders`. Call it in a transaction, once all are added."""
        self._db.execute(INPUT)
        self.bent.begin()
        keep_tally(self._db)

    def waiting(self) -> int:
        """Return how many lines wait."""
        return int(self._one("SELECT lines FROM tally WHERE holder = 0"))

    def totals(self) -> dict[str, int]:
        """Return the totals of all runs so far, by the fields of BatchTotals."""
        states = dict(self._do("SELECT state, count(*) FROM line GROUP BY state"))
        names = ("cost_pico", "uncertain", "duplicates", "duplicates_pico")
        rows = self._do("SELECT cost, uncertain, duplicates, duplicates_cost FROM worker").fetchall()
        # Added up here: SQLite's sum() fails beyond 64 bits, and its total() is a float.
        sums = dict(zip(names, map(sum, zip(*rows, strict=True)), strict=True)) if rows else dict.fromkeys(names, 0)
        unpriced = self._one("SELECT count(*) FROM line WHERE state IN (2, 3) AND cost IS NULL")
        counts = {name: states.get(state, 0) for name, state in FINAL.items()}
        return {"total": sum(states.values()), "unpriced": unpriced, **counts, **sums}

    def worker(self, place: str, name: str) -> tuple[int, int, int]:
        """Return (number, cursor, cost) of a worker, which is added if it is new."""
        self._do("INSERT OR IGNORE INTO worker (place, name) VALUES (?, ?)", place, name)
        found = self._do("SELECT no, cursor, cost FROM worker WHERE place = ? AND name = ?", place, name)
        no, cursor, cost = found.fetchone()
        return no, cursor, cost

    def out(self) -> bool:
        """Return whether a worker has leases."""
        return self._one("SELECT 1 FROM tally WHERE holder != 0 AND lines > 0") is not None

    def holders(self) -> dict[tuple[str, str], int]:
        """Return the workers that hold leases of this batch: (place, name) → number."""
        query = "SELECT place, name, no FROM worker JOIN tally ON holder = no WHERE lines > 0"
        return {(place, name): no for place, name, no in self._do(query)}

    def advance(self, worker: int, cursor: int, cost: int, uncertain: int, twice: int, twice_cost: int) -> None:
        """Record that results up to `cursor` were processed, and what they cost; `twice` repeated another's work."""
        query = (
            "UPDATE worker SET cursor = max(cursor, ?), uncertain = uncertain + ?, duplicates = duplicates + ?,"  # noqa: S608  (ours)
            f" cost = min(cost + ?, {_MOST_COST}),"
            f" duplicates_cost = min(duplicates_cost + ?, {_MOST_COST}) WHERE no = ?"
        )
        self._do(query, cursor, uncertain, twice, min(cost, _MOST_COST), min(twice_cost, _MOST_COST), worker)

    def lease(self, worker: int, lost: Iterable[int], limit: int, shape: Shape | None = None) -> list[bytes]:
        """Lease up to `limit` tasks to `worker` and return them as on the wire.

        First come those that it may have lost, then those of the workers `lost`, then those that wait, which `shape`
        may put into the form of a lower price.
        """
        batch = self.about("batch").encode()
        tasks: list[bytes] = []
        size = 0
        queries = [(DOUBTFUL, no) for no in (worker, *(no for no in lost if no != worker))] + [("l.state = ?", 0)]
        for where, value in queries:
            for row in self._do(f"{_LEASE} WHERE {where} ORDER BY l.n LIMIT ?", value, limit - len(tasks)).fetchall():
                if size > MAX_PORTION_BYTES:
                    return tasks
                body, one = self.body(row[0]), Lease(*row)
                given = self._give(one, worker)
                body = self.bent.body(one.n, one.id, given, body, shape, waited=one.state == WAITING)
                tasks.append(b'{"id":"%b","batch":"%b",%b' % (given.encode(), batch, body))
                size += len(body) + 200
        return tasks

    def _give(self, lease: Lease, worker: int) -> str:
        """Lease one line to `worker` and return its id there, a new one if the current id was already used there."""
        if lease.worker not in (None, worker):
            self.revoke(lease, sent=False)
        spent = self._one("SELECT 1 FROM revoked WHERE worker = ? AND lease = ?", worker, lease.id)
        acked = -1 if spent or lease.worker != worker else 0
        query = "UPDATE line SET state = 1, cost = NULL, worker = ?, acked = ?, stopping = 0 WHERE n = ?"
        self._do(query, worker, acked, lease.n)
        return self._renew(lease) if spent else lease.id

    def _renew(self, lease: Lease) -> str:
        """Give the line a new id on the wire, because a worker runs each id only once."""
        number = int(self._one("SELECT generation FROM line WHERE n = ?", lease.n)) + 1
        while self._one("SELECT 1 FROM line WHERE lease = ?", new := again_id(lease.task_id, number)):
            number += 1
        self._do("UPDATE line SET lease = ?, generation = ? WHERE n = ?", new, number, lease.n)
        return new

    def leases(self, worker: int) -> tuple[int, int]:
        """Return how many leases the worker has, and how many of them it may have lost or never received."""
        row: tuple[int, int] | None = self._do("SELECT lines, doubtful FROM tally WHERE holder = ?", worker).fetchone()
        return row or (0, 0)

    def ack(self, worker: int, ids: Iterable[str]) -> None:
        """Record that the worker has these leases."""
        query = "UPDATE line SET acked = 1 WHERE worker = ? AND lease = ? AND state = 1"
        self._db.executemany(query, ((worker, one) for one in ids))

    def doubt(self, worker: int | None = None) -> None:
        """Mark the leases of the worker (None: all workers) as possibly lost."""
        self._do("UPDATE line SET acked = 0 WHERE state = 1 AND acked != 0 AND worker = ifnull(?, worker)", worker)

    def stopping(self, worker: int) -> None:
        """Record that the worker's tasks may be cancelled by us from now on."""
        self._do("UPDATE line SET stopping = 1 WHERE state = 1 AND worker = ?", worker)

    def revoke(self, lease: Lease, *, sent: bool) -> None:
        """Revoke the lease; `sent`: its worker has already been notified."""
        query = "INSERT INTO revoked (worker, lease, n, sent) VALUES (?, ?, ?, ?)"
        query += " ON CONFLICT DO UPDATE SET sent = max(sent, excluded.sent)"
        self._do(query, lease.worker, lease.id, lease.n, sent)

    def to_cancel(self, worker: int, limit: int) -> list[str]:
        """Return revoked leases that the worker may still be running."""
        rows = self._do("SELECT lease FROM revoked WHERE worker = ? AND sent = 0 LIMIT ?", worker, limit)
        return [lease_id for (lease_id,) in rows]

    def cancelled(self, worker: int, ids: Iterable[str]) -> None:
        """Record that the worker has cancelled these leases."""
        self._db.executemany("UPDATE revoked SET sent = 1 WHERE worker = ? AND lease = ?", ((worker, x) for x in ids))

    def settle(self, worker: int, lease_id: str) -> None:
        """Record that the worker's result for a revoked lease has been counted."""
        self._do("UPDATE revoked SET sent = 1, settled = 1 WHERE worker = ? AND lease = ?", worker, lease_id)

    def take_back(self, lease: Lease) -> None:
        """Revoke a lease that its worker has already dropped, and put the line back to wait."""
        self.revoke(lease, sent=True)
        self.put_back(lease)

    def put_back(self, lease: Lease) -> None:
        """Put the line back to wait, without a worker and under an unused id."""
        self._renew(lease)
        self._do("UPDATE line SET state = 0, worker = NULL, acked = 0, stopping = 0 WHERE n = ?", lease.n)

    def not_taken(self, worker: int, *, nor_doubtful: bool) -> None:
        """Put back first leases that did not reach the worker; with `nor_doubtful` also those it may have lost."""
        query = f"UPDATE line AS l SET state = 0, worker = NULL, acked = 0 WHERE {DOUBTFUL} AND l.acked <= ?"  # noqa: S608  (ours)
        self._do(query, worker, 0 if nor_doubtful else -1)

    def find(self, worker: int, lease_id: str) -> Lease | None:
        """Return the line of a lease that the worker holds, or held until the line was finished.

        Else return the line of a revoked lease of the worker whose result is not counted yet.
        """
        if row := self._do(f"{_LEASE} WHERE l.lease = ? AND l.worker = ?", lease_id, worker).fetchone():
            return Lease(*row)
        query = f"{_LEASE} JOIN revoked r ON l.n = r.n WHERE r.worker = ? AND r.lease = ? AND r.settled = 0"
        row = self._do(query, worker, lease_id).fetchone()
        return Lease(*row)._replace(revoked=True) if row else None

    def finish(self, n: int, state: int, worker: int, cost: int | None, line: bytes) -> None:
        """Record the result of a line."""
        self._do("UPDATE line SET state = ?, worker = ?, cost = ?, stopping = 0 WHERE n = ?", state, worker, cost, n)
        self._do("INSERT INTO result (n, line) VALUES (?, ?)", n, line)
        if state == SUCCEEDED:
            self._do("DELETE FROM task WHERE n = ?", n)

    def results(self, after: int, *, ordered: bool) -> Iterator[tuple[int, bytes]]:
        """Yield (position, line of the output) for all results after position `after`.

        With `ordered`, the position is the line's number, and the results end before the first unfinished line.
        """
        query = "SELECT seq, line FROM result WHERE seq > ? ORDER BY seq"
        if ordered:
            query = "SELECT n, line FROM result WHERE n > ?"
            for state in (WAITING, LEASED, HELD):
                query += f" AND n < coalesce((SELECT min(n) FROM line WHERE state = {state}), 9e18)"  # noqa: S608  (ours)
            query += " ORDER BY n"
        return self._do(query, after)

    def failures(self) -> Iterator[tuple[int, bytes]]:
        """Yield (number, line of the output) for all failed and cancelled lines, in order."""
        return self._do("SELECT n, r.line FROM line JOIN result r USING (n) WHERE state IN (3, 4) ORDER BY n")

    def ended_with(self, part: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (number, line of the output) for all succeeded lines whose result contains `part`, in order."""
        query = "SELECT n, r.line FROM line JOIN result r USING (n) WHERE state = 2 AND instr(r.line, ?) ORDER BY n"
        return self._do(query, part)

    def retry_failed(self) -> None:
        """Delete the results of failed and cancelled lines, so that they wait again under new ids."""
        for row in self._do(f"{_LEASE} WHERE l.state IN (3, 4)").fetchall():
            self.put_back(Lease(*row))
            self._do("DELETE FROM result WHERE n = ?", row[0])
            self.bent.undone(row[0])
        self._do("DELETE FROM meta WHERE name = 'finished_at'")


def _unusable(path: Path, error: OSError | sqlite3.DatabaseError) -> UsageError:
    if isinstance(error, OSError):
        return UsageError(f"{path}: {error.strerror}", hint=_ANOTHER)
    if not isinstance(error, sqlite3.OperationalError):
        return UsageError(f"{path} is not a journal of farmhand batch", hint=_ANOTHER)
    if "locked" in str(error) or "busy" in str(error):
        return UsageError(f"another farmhand batch is at work on {path}", hint=f"wait for it, or {_ANOTHER}")
    return UsageError(f"{path}: {error}", hint=_ANOTHER)
