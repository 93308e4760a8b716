"""The tasks of the ledger as `GET /v1/history` has them: what was submitted and what came of it, in bounded pages."""

from __future__ import annotations

import sqlite3
from typing import Any, Literal

import msgspec

from farmhand.agent.store.queries import Queries
from farmhand.agent.store.records import result_fields
from farmhand.core.task import Result
from farmhand.wire.schema import LATEST

#: The most bytes of a task's content on a page, and how much of prompt and answer is left of a longer one.
LONGEST = 16 * 1024
_CUT = 4096
#: The most tasks for one beginning of an id, and the most unfinished tasks.
_SAME = 10
_UNFINISHED = 1000
_FINISHED = "SELECT * FROM task WHERE done_no > ? ORDER BY done_no LIMIT ?"
#: The newest, found in the index of the unfinished ones.
_OPEN = (
    "SELECT * FROM task WHERE seq IN"
    " (SELECT seq FROM task INDEXED BY task_key WHERE done_no IS NULL ORDER BY seq DESC LIMIT ?) ORDER BY seq DESC"
)
_KEPT = "SELECT min(finished_at) FROM task WHERE done_no IS NOT NULL AND spec IS NOT NULL"


class LedgerTask(Result, kw_only=True):
    """A task with its times (Unix seconds) and as it was submitted: see farmhand.wire.schema.PastTask."""

    created_at: float
    started_at: float | None
    finished_at: float | None
    spec: dict[str, Any] | None
    content: Literal["kept", "long", "gone"]


class HistoryPage(msgspec.Struct, kw_only=True):
    """A page: see farmhand.wire.schema.HistoryAnswer."""

    tasks: list[LedgerTask]
    unfinished: list[LedgerTask] = []
    next: int = 0
    more: bool = False
    kept_since: float


def by_id(reads: Queries, start: str) -> HistoryPage:
    """Return the task with the id `start`, or else some whose ids begin with it, whole."""
    rows = reads.rows("SELECT * FROM task WHERE id = ?", start)
    if not rows:  # ids are ASCII
        rows, _ = reads.page(
            "SELECT * FROM task WHERE id > ? AND id < ? ORDER BY id LIMIT ?", start, f"{start}~", _SAME
        )
    return HistoryPage(tasks=[_task(row, cut=False) for row in rows], kept_since=_kept_since(reads))


def page(reads: Queries, after: int, newest: int, limit: int) -> HistoryPage:
    """Return finished tasks after number `after`, only of the last `newest`, and with the last of them the unfinished.

    The unfinished ones are read first: a task that ends meanwhile is then in both.
    """
    unfinished, _ = reads.page(_OPEN, _UNFINISHED)
    last = int(reads.rows("SELECT value FROM counter WHERE name = 'done'")[0][0])
    after = max(after, last - newest)
    rows, cut = reads.page(_FINISHED, after, limit)
    more = cut or len(rows) == limit
    return HistoryPage(
        tasks=[_task(row, cut=True) for row in rows],
        unfinished=[] if more else [_task(row, cut=True) for row in unfinished],
        next=rows[-1]["done_no"] if rows else after,
        more=more,
        kept_since=_kept_since(reads),
    )


def _kept_since(reads: Queries) -> float:
    """Return the time such that the content of all tasks which ended before it is gone."""
    oldest = reads.rows(_KEPT)[0][0]
    return float(LATEST if oldest is None else oldest)


def _task(row: sqlite3.Row, *, cut: bool) -> LedgerTask:
    gone = row["spec"] is None
    times = {name: row[name] for name in ("created_at", "started_at", "finished_at")}
    task = LedgerTask(
        **result_fields(row) | times,
        spec=None if gone else msgspec.json.decode(row["spec"]),
        content="gone" if gone else "kept",
    )
    if cut and sum(len(row[name] or "") for name in ("spec", "text", "structured")) > LONGEST and task.spec is not None:
        few = {name: value for name, value in task.spec.items() if name not in ("system", "schema", "repo")}
        task.spec = few | {"prompt": few["prompt"][:_CUT]}
        task.content, task.text, task.structured = "long", task.text[:_CUT], None
    return task
