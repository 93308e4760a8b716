"""What the ledger is asked: queries on a connection of their own, each of them bounded or read off kept sums."""

# ruff: noqa: S608  (what is put into queries here are our own column names and marks)
from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from typing import Any

import msgspec

from farmhand.agent.store.rows import (
    FINISHED_COLUMNS,
    USAGE,
    BatchView,
    IndexedResult,
    TaskTotals,
    as_batch,
    as_charge,
    as_finished,
    as_indexed_result,
    as_result,
)
from farmhand.core.money import usd
from farmhand.core.task import Result, Task, Usage

_STATES = ("queued", "awaiting_key", "running", "succeeded", "failed", "cancelled")
#: A page of results ends once it holds this many characters of answers.
_PAGE_CHARS = 8 * 1024 * 1024


#: What a task's uncertain requests may have cost at the most; NULL where that is not known.
_BOUND = (
    "(SELECT CASE WHEN count(pico) = uncertain AND count(*) = uncertain THEN total(pico) END"
    " FROM reservation WHERE task_seq = seq) AS uncertain_pico"
)


class NoSuchBatch(KeyError):
    """A batch that nobody has made and that has no tasks."""


@dataclass(slots=True, frozen=True)
class QueuedTask:
    """A queued task, as the scheduler needs to know it. `crashes`: how often the agent has ended while it ran."""

    seq: int
    id: str
    batch: str
    priority: int
    key_fingerprint: str | None
    crashes: int = 0


@dataclass(slots=True, frozen=True)
class KnownTask:
    """Where a task stands: its sequence number, its batch, its state, whether its content is pruned."""

    seq: int
    batch: str
    state: str
    pruned: bool


@dataclass(slots=True)
class Page:
    """Results in order; `cut`: it ended early, since they are long."""

    results: list[Result]
    cut: bool


class Queries:
    """Queries on `db`, a connection in autocommit: each sees all that is committed when it begins."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def _row(self, query: str, *values: Any) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._db.execute(query, values).fetchone()
        return row

    def ledger_id(self) -> str:
        """The file's own name, a random one: the numbers of charges and finished tasks are unique within it."""
        row = self._row("SELECT value FROM meta WHERE name = 'id'")
        assert row is not None  # noqa: S101  (the schema puts it there)
        return str(row[0])

    def key_dates(self) -> dict[str, float]:
        """When each key, by its fingerprint, was brought here for the first time (Unix seconds)."""
        query = "SELECT substr(name, 5), value FROM meta WHERE name >= 'key:' AND name < 'key;'"
        return {row[0]: float(row[1]) for row in self._db.execute(query)}

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """All rows of a query whose answer is bounded."""
        return self._db.execute(query, values).fetchall()

    # --- tasks ----------------------------------------------------------------------------------------------------

    def known(self, task_id: str) -> KnownTask:
        """Where the task stands. KeyError where it is not known."""
        row = self._row("SELECT seq, batch, state, spec IS NULL FROM task WHERE id = ?", task_id)
        if row is None:
            raise KeyError(task_id)
        return KnownTask(row[0], row[1], row[2], bool(row[3]))

    def find(self, task_id: str) -> KnownTask | None:
        """The same; None where it is not known."""
        try:
            return self.known(task_id)
        except KeyError:
            return None

    def spec(self, seq: int) -> Task:
        """The task as it was submitted. KeyError where it is not there."""
        row = self._row("SELECT spec FROM task WHERE seq = ?", seq)
        if row is None or row[0] is None:
            raise KeyError(seq)
        return msgspec.json.decode(row[0], type=Task)

    def task(self, task_id: str) -> Task:
        """The same by id."""
        return self.spec(self.known(task_id).seq)

    def result(self, task_id: str) -> Result:
        """The task as it stands. KeyError where it is not known."""
        row = self._row("SELECT * FROM task WHERE id = ?", task_id)
        if row is None:
            raise KeyError(task_id)
        return as_result(row)

    def results(self, *, batch: str | None, state: str | None, after: str | None, limit: int) -> Page:
        """Up to `limit` tasks in the order they came, from behind `after` on. KeyError for an unknown `after`."""
        where, values = ["seq > ?"], [0 if after is None else self.known(after).seq]
        for column, value in (("batch", batch), ("state", state)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)  # type: ignore[arg-type]  # SQLite takes both
        query = f"SELECT * FROM task WHERE {' AND '.join(where)} ORDER BY seq LIMIT ?"
        rows, cut = _bounded(self._db.execute(query, (*values, limit)))
        return Page([as_result(row) for row in rows], cut)

    # --- the waiting line -----------------------------------------------------------------------------------------

    def line(self, engine: str, limit: int) -> list[QueuedTask]:
        """The first `limit` queued tasks of the engine: highest priority first, then as they came."""
        return [QueuedTask(*row) for row in self._queued("engine = ?", engine, limit)]

    def line_without(self, engine: str, batches: Collection[str], limit: int) -> list[QueuedTask]:
        """The same without the tasks of `batches`; takes as long as there are batches with queued tasks."""
        names = [row[0] for row in self._db.execute("SELECT batch FROM tally WHERE queued > 0")]
        lines = [self._queued("engine = ? AND batch = ?", engine, name, limit) for name in names if name not in batches]
        try:
            # Each line is read no further than it is needed.
            first = merge(*lines, key=lambda row: (-row["priority"], row["seq"]))
            return [QueuedTask(*row) for row in islice(first, limit)]
        finally:
            # An open cursor would hold an old state of the file.
            for line in lines:
                line.close()

    def _queued(self, where: str, *values: Any) -> sqlite3.Cursor:
        return self._db.execute(
            "SELECT seq, id, batch, priority, key_fingerprint FROM task"
            f" WHERE state = 'queued' AND {where} ORDER BY priority DESC, seq LIMIT ?",
            values,
        )

    def suspects(self) -> list[tuple[QueuedTask, str]]:
        """The queued tasks that ran when the agent crashed, and their engines, those first that did the least often."""
        rows = self._db.execute(
            "SELECT seq, id, batch, priority, t.key_fingerprint, sum(crashes), engine"
            " FROM attempt a JOIN task t ON seq = task_seq"
            " WHERE crashes > 0 AND state = 'queued' AND engine != 'economy' GROUP BY seq"
            " ORDER BY sum(crashes), priority DESC, seq"
        )
        return [(QueuedTask(*row[:6]), row[6]) for row in rows]

    def suspected(self) -> set[int]:
        """The sequence numbers of all unfinished tasks that ran when the agent crashed."""
        query = (
            "SELECT seq FROM attempt JOIN task ON seq = task_seq"
            " WHERE crashes > 0 AND done_no IS NULL AND engine != 'economy'"
        )
        return {row[0] for row in self._db.execute(query)}

    def waits_for(self, key_fingerprint: str) -> bool:
        """Whether a queued task came with this key."""
        query = "SELECT 1 FROM task WHERE done_no IS NULL AND state = 'queued' AND key_fingerprint = ? LIMIT 1"
        return self._row(query, key_fingerprint) is not None

    def by_key(self) -> dict[tuple[str, str], int]:
        """(state, fingerprint) → how many tasks; unfinished ones only, "" for none."""
        # Left to itself the planner looks each unfinished task up by its done_no.
        query = (
            "SELECT state, key_fingerprint, count(*) FROM task INDEXED BY task_key"
            " WHERE done_no IS NULL GROUP BY state, key_fingerprint"
        )
        return {(row[0], row[1] or ""): row[2] for row in self._db.execute(query)}

    # --- batches --------------------------------------------------------------------------------------------------

    def batch(self, name: str) -> BatchView:
        """The batch's limits, counts and sums. Raises NoSuchBatch."""
        row = self._row("SELECT * FROM batch LEFT JOIN tally ON tally.batch = batch.name WHERE name = ?", name)
        if row is None:
            raise NoSuchBatch(name)
        return as_batch(row)

    def concurrency(self) -> dict[str, int]:
        """The batches that limit how many of their tasks run at once."""
        query = "SELECT name, concurrency FROM batch WHERE concurrency IS NOT NULL"
        return {row[0]: row[1] for row in self._db.execute(query)}

    def batch_results(self, batch: str, after: int, limit: int) -> list[IndexedResult]:
        """Results of the batch behind `done_no` `after`, in that order: up to `limit`, less where they are long."""
        query = "SELECT * FROM task WHERE batch = ? AND done_no > ? ORDER BY done_no LIMIT ?"
        rows, _ = _bounded(self._db.execute(query, (batch, after, limit)))
        return [as_indexed_result(row) for row in rows]

    # --- records and sums -----------------------------------------------------------------------------------------

    def charges(self, after: int, limit: int) -> list[dict[str, Any]]:
        """Charges behind `no` `after`, in that order, as the wire shows them."""
        query = (
            "SELECT charge.*, task.id AS task, task.batch, task.labels, task.work_class, task.engine"
            " FROM charge JOIN task ON task.seq = charge.task_seq WHERE charge.no > ? ORDER BY charge.no LIMIT ?"
        )
        return [as_charge(row) for row in self._db.execute(query, (after, limit))]

    def finished(self, after: int, limit: int) -> list[dict[str, Any]]:
        """Finished tasks behind `done_no` `after`, in that order, without their texts."""
        query = f"SELECT {FINISHED_COLUMNS}, {_BOUND} FROM task WHERE done_no > ? ORDER BY done_no LIMIT ?"
        return [as_finished(row) for row in self._db.execute(query, (after, limit))]

    def counts(self) -> dict[str, int]:
        """How many tasks are in each state."""
        row = self._row(f"SELECT {', '.join(f'coalesce(sum({name}), 0)' for name in _STATES)} FROM tally")
        assert row is not None  # noqa: S101  (an aggregate has a row)
        return dict(zip(_STATES, row, strict=True))

    def uncertain(self) -> int:
        """Requests of all tasks that may have been charged without our knowing how much."""
        row = self._row("SELECT coalesce(sum(uncertain), 0) FROM tally")
        return 0 if row is None else int(row[0])

    def last_done(self) -> int:
        """The highest `done_no` there has been."""
        row = self._row("SELECT value FROM counter WHERE name = 'done'")
        return 0 if row is None else int(row[0])

    def totals(self, since: float) -> TaskTotals:
        """What the tasks created at `since` or later used and cost. Reads every task: keep it off the loop."""
        sums = ", ".join(f"coalesce(sum({name}), 0)" for name in USAGE)
        row = self._row(
            f"SELECT count(*), coalesce(sum(cost_pico), 0), coalesce(sum(cost_pico IS NULL), 0), {sums}"
            " FROM task WHERE created_at >= ?",
            since,
        )
        assert row is not None  # noqa: S101  (an aggregate has a row)
        usage = Usage(**dict(zip(USAGE, row[3:], strict=True)))
        return TaskTotals(tasks=row[0], usage=usage, cost_usd=usd(row[1]), unpriced=row[2])

    def free_pages(self) -> int:
        """Pages of the file that hold nothing."""
        return int(self._db.execute("PRAGMA freelist_count").fetchone()[0])

    # What is reserved and not known yet counts as spent.

    def spent_by_task(self, task_id: str) -> int:
        """Pico-dollars that the task has cost so far, and may have."""
        return self._sum(
            "SELECT sum(cost_pico) FROM charge WHERE task_seq = t.seq",
            "SELECT sum(pico) FROM reservation WHERE task_seq = t.seq",
            "FROM task t WHERE id = ?",
            task_id,
        )

    def spent_by_batch(self, name: str) -> int:
        """Pico-dollars that the batch has cost so far, and may have."""
        held = "SELECT sum(pico) FROM reservation JOIN task ON seq = task_seq WHERE batch = t.batch"
        return self._sum("t.cost_pico", held, "FROM tally t WHERE batch = ?", name)

    def spent_between(self, since: float, until: float) -> int:
        """Pico-dollars of the charges from `since` on and before `until`, and of what was reserved then."""
        return self._sum(
            "SELECT sum(cost_pico) FROM charge WHERE created_at >= ?1 AND created_at < ?2",
            "SELECT sum(pico) FROM reservation WHERE created_at >= ?1 AND created_at < ?2",
            "",
            since,
            until,
        )

    def _sum(self, known: str, held: str, source: str, *values: Any) -> int:
        row = self._row(f"SELECT coalesce(({known}), 0) + coalesce(({held}), 0) {source}", *values)
        return 0 if row is None else int(row[0])

    def held(self, seq: int, attempt: int) -> tuple[int, float] | None:
        """Of what is reserved for the attempt: pico-dollars, and since when (Unix seconds). None: nothing."""
        query = "SELECT total(pico), min(created_at) FROM reservation WHERE task_seq = ? AND attempt = ?"
        row = self._row(query, seq, attempt)
        return None if row is None or row[1] is None else (int(row[0]), float(row[1]))

    def budgets(self) -> dict[str, int]:
        """The batches that have a budget, in pico-dollars."""
        return {
            row[0]: row[1] for row in self._db.execute("SELECT name, max_pico FROM batch WHERE max_pico IS NOT NULL")
        }

    def bytes_used(self) -> int:
        """Size of the file's pages that hold something."""
        size, count, free = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
        )
        return int(size * (count - free))


def _bounded(cursor: sqlite3.Cursor) -> tuple[list[sqlite3.Row], bool]:
    """The rows until they hold enough text for one answer, at least one; and whether it ended for that."""
    rows: list[sqlite3.Row] = []
    held = 0
    for row in cursor:
        rows.append(row)
        held += len(row["text"]) + len(row["structured"] or b"")
        if held >= _PAGE_CHARS:
            cursor.close()
            return rows, True
    return rows, False
