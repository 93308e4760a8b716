"""The durable record of tasks, attempts, usage and cost: one SQLite file, every transition one transaction.

It keeps the key's fingerprint and never the key. Times are Unix seconds.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import msgspec

from farmhand.agent.records import SCHEMA_VERSION, TABLES, as_result
from farmhand.errors import FarmhandError
from farmhand.task import FINAL_STATES, Result, State, Task, Usage, resolve_model

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


class IdConflict(FarmhandError):
    """A known task id came again with other content."""

    exit_code = 2
    code = "id_conflict"


class LedgerStuck(FarmhandError):
    """The ledger cannot be written for now, as on a full disk; nothing has changed in it."""

    code = "ledger_stuck"

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="make room in the farm host's /var/lib/jada-agent")


class Totals(msgspec.Struct, kw_only=True):
    """Sums over finished tasks; `unpriced` counts those whose cost is not known."""

    tasks: int
    usage: Usage
    cost_usd: Decimal
    unpriced: int


def digest(task: Task) -> bytes:
    """Tells whether two tasks with one id are the same task: SHA-256 of the canonical JSON."""
    return hashlib.sha256(msgspec.json.encode(task, order="deterministic")).digest()


class Ledger:
    """The ledger in the file at `path`, made when missing. One process uses it at a time."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        version: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._db.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise FarmhandError(
                f"{path}: the ledger has schema version {version}, this agent knows {SCHEMA_VERSION}",
                hint="run the agent version that wrote it, or a newer one",
                code="ledger_version",
            )

    def close(self) -> None:
        """Close the file; the ledger is of no use after."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except BaseException as error:
            # SQLite may have rolled back by itself, as it does on a full disk.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in _PASSING:
                raise LedgerStuck(f"the ledger cannot be written: {error}") from None
            raise

    def submit(self, tasks: Iterable[Task], state: State, key_fingerprint: str | None) -> dict[str, State]:
        """Record new tasks in `state`; a known id keeps the state it has. All or none. Returns the state by id.

        Raises IdConflict when a known id comes with other content.
        """
        states: dict[str, State] = {}
        with self._transaction() as db:
            for task in tasks:
                known = db.execute("SELECT digest, state FROM task WHERE id = ?", (task.id,)).fetchone()
                if known is not None:
                    if known["digest"] != digest(task):
                        raise IdConflict(f"task id {task.id!r} is known with other content", hint="use a new id")
                    states[task.id] = known["state"]
                    continue
                db.execute(
                    "INSERT INTO task"
                    " (id, spec, digest, state, batch, model, engine, labels, key_fingerprint, created_at)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        task.id,
                        msgspec.json.encode(task),
                        digest(task),
                        state,
                        task.batch,
                        resolve_model(task.model),
                        task.resolved_engine,
                        msgspec.json.encode(task.labels),
                        key_fingerprint,
                        time.time(),
                    ),
                )
                states[task.id] = state
        return states

    def task(self, task_id: str) -> Task:
        """The task as it was submitted. KeyError where it is not known."""
        row = self._db.execute("SELECT spec FROM task WHERE id = ?", (task_id,)).fetchone()
        if row is None:
            raise KeyError(task_id)
        return msgspec.json.decode(row["spec"], type=Task)

    def waiting(self) -> list[tuple[str, str]]:
        """(id, engine) of every task that has yet to run, oldest first."""
        rows = self._db.execute("SELECT id, engine FROM task WHERE state IN ('queued', 'awaiting_key') ORDER BY seq")
        return [(row["id"], row["engine"]) for row in rows]

    def recover(self) -> int:
        """After a start: nothing runs and no key is there, so every unfinished task awaits one. How many that are."""
        with self._transaction() as db:
            db.execute(
                "UPDATE attempt SET outcome = 'interrupted', finished_at = ? WHERE outcome = 'running'", (time.time(),)
            )
            return db.execute(
                "UPDATE task SET state = 'awaiting_key', key_fingerprint = NULL"
                " WHERE state IN ('queued', 'running', 'awaiting_key')"
            ).rowcount

    def set_key(self, key_fingerprint: str, *, replace: bool) -> list[str]:
        """Tasks that await a key are queued with this one; with `replace` the queued ones change to it too.

        Returns the ids of those that had awaited one, oldest first.
        """
        with self._transaction() as db:
            resumed = [row["id"] for row in db.execute("SELECT id FROM task WHERE state = 'awaiting_key' ORDER BY seq")]
            db.execute(
                "UPDATE task SET state = 'queued', key_fingerprint = ?"
                " WHERE state = 'awaiting_key' OR (? AND state = 'queued')",
                (key_fingerprint, replace),
            )
        return resumed

    def start(self, task_id: str, key_fingerprint: str) -> int:
        """The task runs; returns the number of this attempt, 1 for the first."""
        now = time.time()
        with self._transaction() as db:
            row = db.execute("SELECT seq, attempts FROM task WHERE id = ?", (task_id,)).fetchone()
            number = int(row["attempts"]) + 1
            db.execute(
                "UPDATE task SET state = 'running', attempts = ?, key_fingerprint = ?,"
                " started_at = coalesce(started_at, ?) WHERE seq = ?",
                (number, key_fingerprint, now, row["seq"]),
            )
            db.execute(
                "INSERT INTO attempt (task_seq, number, key_fingerprint, started_at) VALUES (?, ?, ?, ?)",
                (row["seq"], number, key_fingerprint, now),
            )
        return number

    def end_attempt(
        self,
        task_id: str,
        number: int,
        outcome: str,
        usage: Usage,
        cost_usd: Decimal | None,
        prices: str,
        *,
        retries: int = 0,
    ) -> None:
        """One attempt has ended, well or not: its usage, cost and retries are added to the task's.

        A cost that is not known (`cost_usd` None) makes the task's unknown for good; so does an attempt that a crash
        kept from ending.
        """
        with self._transaction() as db:
            row = db.execute("SELECT seq, usage, cost_usd FROM task WHERE id = ?", (task_id,)).fetchone()
            total = msgspec.json.decode(row["usage"], type=Usage)
            total.add(usage)
            first = number == 1
            known = Decimal(0) if first else Decimal(row["cost_usd"]) if row["cost_usd"] is not None else None
            cost = None if known is None or cost_usd is None else known + cost_usd
            db.execute(
                "UPDATE attempt SET outcome = ?, finished_at = ?, usage = ? WHERE task_seq = ? AND number = ?",
                (outcome, time.time(), msgspec.json.encode(usage), row["seq"], number),
            )
            db.execute(
                "UPDATE task SET usage = ?, cost_usd = ?, price_version = ?, retries = retries + ? WHERE seq = ?",
                (msgspec.json.encode(total), None if cost is None else str(cost), prices, retries, row["seq"]),
            )

    def requeue(self, task_id: str, state: State) -> None:
        """The task did not end and waits again."""
        with self._transaction() as db:
            db.execute("UPDATE task SET state = ? WHERE id = ? AND state = 'running'", (state, task_id))

    def finish(self, task_id: str, result: Result) -> bool:
        """Record the final state with what belongs to it; False, and nothing changes, where there is one already."""
        assert result.state in FINAL_STATES  # noqa: S101  (the caller's contract)
        with self._transaction() as db:
            changed = db.execute(
                "UPDATE task SET state = ?, finished_at = ?, text = ?, structured = ?, stop_reason = ?, error = ?"
                " WHERE id = ? AND state NOT IN ('succeeded', 'failed', 'cancelled')",
                (
                    result.state,
                    time.time(),
                    result.text,
                    None if result.structured is None else msgspec.json.encode(result.structured),
                    result.stop_reason,
                    None if result.error is None else msgspec.json.encode(result.error),
                    task_id,
                ),
            ).rowcount
        return changed == 1

    def result(self, task_id: str) -> Result:
        """The task as it stands. KeyError where it is not known."""
        row = self._db.execute("SELECT * FROM task WHERE id = ?", (task_id,)).fetchone()
        if row is None:
            raise KeyError(task_id)
        return as_result(row)

    def results(self, *, batch: str | None, state: str | None, after: str | None, limit: int) -> list[Result]:
        """Up to `limit` tasks in the order they came, from behind `after` on. KeyError for an unknown `after`."""
        where, values = ["seq > ?"], [0 if after is None else self._seq(after)]
        for column, value in (("batch", batch), ("state", state)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)  # type: ignore[arg-type]  # SQLite takes both
        query = f"SELECT * FROM task WHERE {' AND '.join(where)} ORDER BY seq LIMIT ?"  # noqa: S608  (column names from the line above)
        return [as_result(row) for row in self._db.execute(query, (*values, limit))]

    def _seq(self, task_id: str) -> int:
        row = self._db.execute("SELECT seq FROM task WHERE id = ?", (task_id,)).fetchone()
        if row is None:
            raise KeyError(task_id)
        return int(row["seq"])

    def counts(self) -> dict[str, int]:
        """How many tasks are in each state."""
        return {row[0]: row[1] for row in self._db.execute("SELECT state, count(*) FROM task GROUP BY state")}

    def totals(self, since: float) -> Totals:
        """What the tasks that were created at `since` or later used and cost."""
        usage, cost, tasks, unpriced = Usage(), Decimal(0), 0, 0
        query = "SELECT usage, cost_usd, attempts FROM task WHERE created_at >= ?"
        for row in self._db.execute(query, (since,)):
            tasks += 1
            usage.add(msgspec.json.decode(row["usage"], type=Usage))
            if row["cost_usd"] is not None:
                cost += Decimal(row["cost_usd"])
            elif row["attempts"]:
                unpriced += 1
        return Totals(tasks=tasks, usage=usage, cost_usd=cost, unpriced=unpriced)
