"""Queries of the ledger on a connection of their own. Each is bounded or reads precomputed sums.

Times are Unix seconds; amounts in the file are pico-dollars.
"""

# ruff: noqa: S608  (what is put into queries here are our own column names and marks)
from __future__ import annotations

import sqlite3
from collections.abc import Collection, Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from decimal import Decimal
from heapq import merge
from itertools import islice
from typing import Any

import msgspec

from farmhand.agent.store.damage import Alarm
from farmhand.agent.store.records import USAGE, in_usd, record, result_fields
from farmhand.agent.store.schema import STATES, SUMS
from farmhand.core.money import usd
from farmhand.core.task import Result, Task
from farmhand.core.typed import ready

_USAGE = ", ".join(USAGE)
#: A page of results ends once it holds this many characters of prompts and answers.
_PAGE_CHARS = 8 * 1024 * 1024
_BATCH = (
    f"SELECT name AS batch, max_pico, concurrency, created_at,"
    f" {', '.join(f'coalesce({name}, 0) AS {name}' for name in (*SUMS, 'last_done'))}"
    " FROM batch LEFT JOIN tally ON tally.batch = batch.name WHERE name = ?"
)
_CHARGES = (
    "SELECT no AS charge_id, task.id AS task, attempt, batch, (SELECT a.pot FROM attempt a"
    " WHERE a.task_seq = charge.task_seq AND a.number = charge.attempt) AS pot,"
    " work_class, charge.model, engine, labels,"
    " charge.created_at, request_id, charge.price_version, terms, economy, charge.cost_pico,"
    f" {', '.join(f'charge.{u}' for u in USAGE)}"
    " FROM charge JOIN task ON seq = task_seq WHERE no > ?"
)
#: `uncertain_pico`: the worst-case cost of a task's uncertain requests, NULL if it is unknown.
_FINISHED = (
    "SELECT done_no AS finish_seq, id, state, batch, work_class, model, engine, labels, created_at, started_at,"
    f" finished_at, attempts, retries, uncertain, price_version, error_code AS error, cost_pico, {_USAGE},"
    " coalesce((SELECT a.pot FROM attempt a WHERE a.task_seq = seq ORDER BY a.number DESC LIMIT 1), pot) AS pot,"
    " (SELECT CASE WHEN count(pico) = uncertain AND count(*) = uncertain THEN coalesce(sum(pico), 0) END"
    " FROM reservation WHERE task_seq = seq) AS uncertain_pico"
    " FROM task WHERE done_no > ? ORDER BY done_no LIMIT ?"
)


class IndexedResult(Result, kw_only=True):
    """A result of a batch with its position in the order of finishing."""

    finish_seq: int


class BatchView(msgspec.Struct, kw_only=True):
    """A batch as `GET /v1/batches/{batch}` shows it: its limits, task counts by state and sums."""

    batch: str
    max_usd: Decimal | None
    concurrency: int | None
    queued: int
    awaiting_key: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    cost_usd: Decimal
    unpriced: int
    uncertain: int
    last_done: int
    created_at: float

    @property
    def unfinished(self) -> int:
        """Return the number of tasks that have not ended."""
        return self.queued + self.awaiting_key + self.running


class NoSuchBatch(KeyError):
    """The batch was never created and has no tasks."""


@dataclass(slots=True, frozen=True)
class QueuedTask:
    """A queued task as the scheduler needs it. `crashes`: how often the agent ended while it ran."""

    seq: int
    id: str
    batch: str
    priority: int
    key_fingerprint: str | None
    engine: str
    pot: str
    crashes: int = 0


@dataclass(slots=True, frozen=True)
class KnownTask:
    """A task's sequence number, batch and state, whether its content is pruned, and its pot."""

    seq: int
    batch: str
    state: str
    pruned: bool
    pot: str


class Queries:
    """Queries on a connection in autocommit mode: each sees all that is committed when it starts.

    Raise LedgerDamaged if a query reads a damaged page.
    """

    def __init__(self, alarm: Alarm) -> None:
        self.alarm = alarm
        self._db = alarm.connect()
        self._db.execute("PRAGMA query_only = ON")

    def _each(self, query: str, *values: Any) -> Generator[sqlite3.Row, None, None]:
        """Yield rows as they are read. Close or exhaust the generator: an open one pins an old state of the file."""
        try:
            yield from self._db.execute(query, values)
        except sqlite3.Error as error:
            raise self.alarm.seen(error) or error from None

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """Return all rows of a query whose result is bounded."""
        return list(self._each(query, *values))

    def _row(self, query: str, *values: Any) -> Any:
        """Return the row of a query that has at most one, or None."""
        return next(iter(self.rows(query, *values)), None)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def ledger_id(self) -> str:
        """Return the file's random id. Numbers of charges and finished tasks are unique within it."""
        return str(self._row("SELECT value FROM meta WHERE name = 'id'")[0])

    def key_dates(self) -> dict[str, float]:
        """Return when each key, by fingerprint, was first received here (Unix seconds)."""
        query = "SELECT substr(name, 5), value FROM meta WHERE name >= 'key:' AND name < 'key;'"
        return {row[0]: float(row[1]) for row in self.rows(query)}

    # --- tasks ----------------------------------------------------------------------------------------------------

    def known(self, task_id: str) -> KnownTask:
        """Return the task's number, batch and state. Raise KeyError if it is unknown."""
        row = self._row("SELECT seq, batch, state, spec IS NULL, pot FROM task WHERE id = ?", task_id)
        if row is None:
            raise KeyError(task_id)
        return KnownTask(*row)

    def spec(self, seq: int) -> Task:
        """Return the task as it was submitted. Raise KeyError if its content is gone."""
        row = self._row("SELECT spec FROM task WHERE seq = ?", seq)
        if row is None or row[0] is None:
            raise KeyError(seq)
        return msgspec.json.decode(row[0], type=ready(Task))

    def spec_bytes(self, seq: int) -> int:
        """Return the size of the task as it was submitted; 0 if its content is gone."""
        row = self._row("SELECT length(spec) FROM task WHERE seq = ?", seq)
        return int(row[0] or 0) if row is not None else 0

    def result(self, task_id: str) -> Result:
        """Return the task's current result. Raise KeyError if it is unknown."""
        row = self._row("SELECT * FROM task WHERE id = ?", task_id)
        if row is None:
            raise KeyError(task_id)
        return Result(**result_fields(row))

    def results(
        self, *, batch: str | None, state: str | None, after: str | None, limit: int
    ) -> tuple[list[Result], bool]:
        """Return up to `limit` tasks after `after` in order of arrival, and whether there may be more.

        Raise KeyError for an unknown `after`.
        """
        wanted = {"seq > ?": 0 if after is None else self.known(after).seq, "batch = ?": batch, "state = ?": state}
        given = {term: value for term, value in wanted.items() if value is not None}
        query = f"SELECT * FROM task WHERE {' AND '.join(given)} ORDER BY seq LIMIT ?"
        rows, cut = self.page(query, *given.values(), limit)
        return [Result(**result_fields(row)) for row in rows], cut or len(rows) == limit

    def page(self, query: str, *values: Any) -> tuple[list[sqlite3.Row], bool]:
        """Return rows until they hold enough text for one page, at least one, and whether that ended the page."""
        rows: list[sqlite3.Row] = []
        held = 0
        with closing(self._each(query, *values)) as found:
            for row in found:
                rows.append(row)
                held += sum(len(row[name] or b"") for name in ("text", "structured", "spec"))
                if held >= _PAGE_CHARS:
                    return rows, True
        return rows, False

    # --- the ready queue ----------------------------------------------------------------------------------------------

    def line(self, engine: str, limit: int, without: Collection[str] = ()) -> list[QueuedTask]:
        """Return the engine's first `limit` queued tasks: highest priority first, then in order of arrival.

        Tasks of the batches in `without` are left out; that takes time in proportion to the batches with queued tasks.
        """
        if not without:
            return [QueuedTask(*row) for row in self._queued("engine = ?", engine, limit)]
        names = [row[0] for row in self.rows("SELECT batch FROM tally WHERE queued > 0")]
        lines = [self._queued("engine = ? AND batch = ?", engine, name, limit) for name in names if name not in without]
        with ExitStack() as stack:
            # Read each batch's rows only as far as needed.
            opened = [stack.enter_context(closing(line)) for line in lines]
            first = merge(*opened, key=lambda row: (-row["priority"], row["seq"]))
            return [QueuedTask(*row) for row in islice(first, limit)]

    def _queued(self, where: str, *values: Any) -> Generator[sqlite3.Row, None, None]:
        return self._each(
            "SELECT seq, id, batch, priority, key_fingerprint, engine, pot FROM task"
            f" WHERE state = 'queued' AND {where} ORDER BY priority DESC, seq LIMIT ?",
            *values,
        )

    def ahead(self, seq: int, most: int) -> int:
        """Return how many queued tasks of its engine come before a queued task; `most` if it is that many or more."""
        task = self._row("SELECT engine, priority FROM task WHERE seq = ?", seq)
        queued = "SELECT 1 FROM task WHERE state = 'queued' AND engine = ?1 AND priority"
        before = f"{queued} > ?2 UNION ALL {queued} = ?2 AND seq < ?3 LIMIT ?4"
        return int(self._row(f"SELECT count(*) FROM ({before})", *task, seq, most)[0])

    def suspects(self) -> list[QueuedTask]:
        """Return the queued tasks that ran when the agent crashed, those with the fewest crashes first."""
        rows = self.rows(
            "SELECT seq, id, batch, priority, t.key_fingerprint, engine, t.pot, sum(crashes)"
            " FROM attempt a JOIN task t ON seq = task_seq"
            " WHERE crashes > 0 AND state = 'queued' AND engine != 'economy' GROUP BY seq"
            " ORDER BY sum(crashes), priority DESC, seq"
        )
        return [QueuedTask(*row) for row in rows]

    def suspected(self) -> set[int]:
        """Return the sequence numbers of all unfinished tasks that ran when the agent crashed."""
        query = (
            "SELECT seq FROM attempt JOIN task ON seq = task_seq"
            " WHERE crashes > 0 AND done_no IS NULL AND engine != 'economy'"
        )
        return {row[0] for row in self.rows(query)}

    def waits_for(self, key_fingerprint: str) -> bool:
        """Return whether a queued task came with this key."""
        query = "SELECT 1 FROM task WHERE done_no IS NULL AND state = 'queued' AND key_fingerprint = ? LIMIT 1"
        return self._row(query, key_fingerprint) is not None

    def by_key(self) -> dict[tuple[str, str, str], int]:
        """Return (state, fingerprint, pot) → number of unfinished tasks, with "" for tasks without a key."""
        # Without this hint the planner looks up each unfinished task by its done_no.
        query = (
            "SELECT state, coalesce(key_fingerprint, ''), pot, count(*) FROM task INDEXED BY task_key"
            " WHERE done_no IS NULL GROUP BY state, key_fingerprint, pot"
        )
        return {(row[0], row[1], row[2]): row[3] for row in self.rows(query)}

    def awaiting(self, batch: str | None) -> dict[str, int]:
        """Return pot → number of tasks that await a key: those of `batch`, or all."""
        query = (
            "SELECT pot, count(*) FROM task WHERE state = 'awaiting_key' AND (?1 IS NULL OR batch = ?1) GROUP BY pot"
        )
        return dict(self.rows(query, batch))  # type: ignore[arg-type]  # rows of two columns

    def closed_pot(self, pot: str) -> str:
        """Return what `pot_days.close` recorded last; "" for nothing."""
        row = self._row("SELECT value FROM meta WHERE name = ?", f"pot:{pot}")
        return "" if row is None else str(row[0])

    # --- batches --------------------------------------------------------------------------------------------------

    def batch(self, name: str) -> BatchView:
        """Return the batch's limits, counts and sums. Raise NoSuchBatch."""
        row = self._row(_BATCH, name)
        if row is None:
            raise NoSuchBatch(name)
        return BatchView(**in_usd(row))

    def open_batches(self, limit: int) -> list[dict[str, Any]]:
        """Return up to `limit` batches with unfinished tasks: how many tasks they have, their ends and their cost."""
        left, done = "queued + awaiting_key + running", "succeeded + failed + cancelled"
        rows = self.rows(
            f"SELECT batch AS name, {left} + {done} AS tasks, {done} AS done, failed, cost_pico"
            f" FROM tally WHERE batch <> '' AND {left} > 0 ORDER BY batch LIMIT ?",
            limit,
        )
        return [in_usd(row) for row in rows]

    def charged(self, since: float, after: int) -> tuple[int, int]:
        """Return the pico-dollars of the charges since a moment with numbers above `after`, and the last number."""
        # The first time the index by time has fewest rows, later the number has.
        first = "" if after else "+"
        query = f"SELECT coalesce(sum(cost_pico), 0), coalesce(max(no), 0) FROM charge WHERE {first}no > ?"
        spent, last = self._row(f"{query} AND created_at >= ?", after, since)
        return int(spent), int(last)

    def batch_budget(self, name: str) -> int | None:
        """Return the batch's budget in pico-dollars, or None if it has none."""
        row = self._row("SELECT max_pico FROM batch WHERE name = ?", name)
        return None if row is None else row[0]

    def concurrency_limits(self) -> dict[str, int]:
        """Return batch → number of tasks at once, for the batches with a limit."""
        return {row[0]: row[1] for row in self.rows("SELECT name, concurrency FROM batch WHERE concurrency > 0")}

    def batch_results(self, batch: str, after: int, limit: int) -> list[IndexedResult]:
        """Return up to `limit` results of the batch after `done_no` `after`, in that order; fewer if they are long."""
        query = "SELECT * FROM task WHERE batch = ? AND done_no > ? ORDER BY done_no LIMIT ?"
        rows, _ = self.page(query, batch, after, limit)
        return [IndexedResult(finish_seq=row["done_no"], **result_fields(row)) for row in rows]

    # --- records and sums -----------------------------------------------------------------------------------------

    def charges(self, after: int, limit: int, task: str = "") -> list[dict[str, Any]]:
        """Return up to `limit` charges after `no` `after`, only of `task` if given, in that order, as the API shows."""
        query = f"{_CHARGES}{' AND task.id = ?' if task else ''} ORDER BY no LIMIT ?"
        found = [record(row) for row in self.rows(query, after, *([task] if task else []), limit)]
        return [each | {"economy": bool(each["economy"])} for each in found]

    def finished(self, after: int, limit: int) -> list[dict[str, Any]]:
        """Return up to `limit` finished tasks after `done_no` `after`, in that order, without their texts."""
        return [record(row) for row in self.rows(_FINISHED, after, limit)]

    def counts(self) -> dict[str, int]:
        """Return the number of tasks by state."""
        sums = ", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in STATES)
        return dict(self._row(f"SELECT {sums} FROM tally"))

    def uncertain(self) -> int:
        """Return the number of requests, over all tasks, that may have been charged for at an unknown cost."""
        return int(self._row("SELECT coalesce(sum(uncertain), 0) FROM tally")[0])

    def totals(self, since: float) -> dict[str, Any]:
        """Return usage and cost of tasks created at `since` or later. Reads every task: keep it off the event loop.

        `unpriced` counts tasks with an unknown cost.
        """
        sums = ", ".join(f"coalesce(sum({name}), 0)" for name in ("cost_pico", "cost_pico IS NULL", *USAGE))
        tasks, cost, unpriced, *used = self._row(f"SELECT count(*), {sums} FROM task WHERE created_at >= ?", since)
        usage = dict(zip(USAGE, used, strict=True))
        return {"tasks": tasks, "usage": usage, "cost_usd": usd(cost), "unpriced": unpriced}

    # Amounts that are reserved and not settled count as spent.

    def spent_by_task(self, task_id: str) -> int:
        """Return the pico-dollars that the task has cost or may have cost so far."""
        return self._spent(
            "SELECT sum(cost_pico) FROM charge WHERE task_seq = t.seq",
            "SELECT sum(pico) FROM reservation WHERE task_seq = t.seq",
            "FROM task t WHERE id = ?",
            task_id,
        )

    def spent_by_batch(self, name: str) -> int:
        """Return the pico-dollars that the batch has cost or may have cost so far."""
        held = "SELECT sum(pico) FROM reservation JOIN task ON seq = task_seq WHERE batch = t.batch"
        return self._spent("t.cost_pico", held, "FROM tally t WHERE batch = ?", name)

    def spent_between(self, since: float, until: float) -> int:
        """Return the pico-dollars of charges from `since` until before `until`, plus what was reserved in that time."""
        when = "WHERE created_at >= ?1 AND created_at < ?2"
        known, held = f"SELECT sum(cost_pico) FROM charge {when}", f"SELECT sum(pico) FROM reservation {when}"
        return self._spent(known, held, "", since, until)

    def spent_by_pot(self, pot: str, since: float) -> int:
        """Return the pico-dollars that the pot was, or may have been, charged since a midnight."""
        held = (
            "SELECT sum(pico) FROM reservation r JOIN attempt a ON a.task_seq = r.task_seq AND a.number = r.attempt"
            " WHERE a.pot = ?1 AND r.created_at >= ?2"
        )
        return self._spent("SELECT sum(pico) FROM pot_day WHERE pot = ?1 AND day >= ?2 / 86400", held, "", pot, since)

    def _spent(self, known: str, held: str, source: str, *values: Any) -> int:
        row = self._row(f"SELECT coalesce(({known}), 0) + coalesce(({held}), 0) {source}", *values)
        return 0 if row is None else int(row[0])

    def held(self, seq: int, attempt: int) -> tuple[int, float] | None:
        """Return the pico-dollars reserved for the attempt and since when (Unix seconds), or None if nothing is."""
        query = "SELECT total(pico), min(created_at) FROM reservation WHERE task_seq = ? AND attempt = ?"
        pico, since = self._row(query, seq, attempt)
        return None if since is None else (int(pico), float(since))

    def free_pages(self) -> int:
        """Return the number of unused pages in the file."""
        return int(self._row("PRAGMA freelist_count")[0])

    def bytes_used(self) -> int:
        """Return the size in bytes of the file's used pages."""
        return int(self._row("PRAGMA page_size")[0] * (self._row("PRAGMA page_count")[0] - self.free_pages()))
