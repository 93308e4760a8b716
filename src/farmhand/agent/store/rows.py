"""What a row of the ledger says, in the words of the wire. Times are Unix seconds, the file's money is pico-dollars."""

from __future__ import annotations

import sqlite3
import time
from decimal import Decimal
from typing import Any

import msgspec

from farmhand.core.money import usd
from farmhand.core.task import Result, TaskError, Usage

USAGE = tuple(Usage.__struct_fields__)
_LABELS = dict[str, str]
#: What stands in the place of a result whose content retention has taken.
PRUNED = TaskError(
    code="pruned", message="the task has run, and its content is pruned", hint="see retention_days and retention_mb"
)
#: The columns of `Finished`: everything of a task but what is large.
FINISHED_COLUMNS = ", ".join(
    (
        "seq, id, state, batch, labels, work_class, model, engine, created_at, started_at, finished_at, done_no",
        "attempts, retries, uncertain, cost_pico, price_version, error_code",
        *USAGE,
    )
)


class IndexedResult(Result, kw_only=True):
    """A result of a batch, with its place in the order of finishing."""

    done_no: int


class WaitReason(msgspec.Struct, kw_only=True):
    """Why `tasks` tasks wait: a stable reason, until when (Unix seconds; None: not known), one line for people."""

    reason: str
    tasks: int
    until: float | None = None
    detail: str = ""


class BatchView(msgspec.Struct, kw_only=True):
    """A batch as `GET /v1/batches/{batch}` shows it: its limits, its tasks by state, its sums."""

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
        """Tasks that have yet to end."""
        return self.queued + self.awaiting_key + self.running


class TaskTotals(msgspec.Struct, kw_only=True):
    """Sums over tasks; `unpriced` counts those whose cost is not known."""

    tasks: int
    usage: Usage
    cost_usd: Decimal
    unpriced: int


def _decode(blob: bytes | None, kind: Any) -> Any:
    return None if blob is None else msgspec.json.decode(blob, type=kind)


def money(cost_pico: int | None) -> Decimal | None:
    """A column of pico-dollars in US$; None stays None."""
    return None if cost_pico is None else usd(cost_pico)


def usage_of(row: sqlite3.Row) -> Usage:
    """The usage columns of a row."""
    return Usage(**{name: row[name] for name in USAGE})


def is_pruned(row: sqlite3.Row) -> bool:
    """Whether retention has taken the content of this row of `task`."""
    return row["spec"] is None


def _result(row: sqlite3.Row) -> dict[str, Any]:
    started, finished, now = row["started_at"], row["finished_at"], time.time()
    return {
        "id": row["id"],
        "state": row["state"],
        "text": row["text"],
        "structured": _decode(row["structured"], Any),
        "model": row["model"],
        "engine": row["engine"],
        "usage": usage_of(row),
        "cost_usd": money(row["cost_pico"]),
        "attempts": row["attempts"],
        "retries": row["retries"],
        "uncertain": row["uncertain"],
        # The clock may have been set back meanwhile.
        "queued_s": round(max(0.0, (started or finished or now) - row["created_at"]), 3),
        "run_s": round(max(0.0, (finished or now) - started), 3) if started else 0.0,
        "stop_reason": row["stop_reason"],
        "error": PRUNED if is_pruned(row) else _decode(row["error"], TaskError),
        "batch": row["batch"],
        "labels": _decode(row["labels"], _LABELS),
    }


def as_result(row: sqlite3.Row) -> Result:
    """The task of a row of the table `task` as it stands now."""
    return Result(**_result(row))


def as_indexed_result(row: sqlite3.Row) -> IndexedResult:
    """The same of a finished task, with its `done_no`."""
    return IndexedResult(done_no=row["done_no"], **_result(row))


def as_batch(row: sqlite3.Row) -> BatchView:
    """A row of `batch` joined with its row of `tally`."""
    counted: dict[str, Any] = {name: row[name] or 0 for name in BatchView.__struct_fields__ if name in row.keys()}  # noqa: SIM118  (a Row)
    return BatchView(
        **counted
        | {
            "batch": row["name"],
            "max_usd": money(row["max_pico"]),
            "concurrency": row["concurrency"],
            "cost_usd": usd(row["cost_pico"] or 0),
            "created_at": row["created_at"],
        }
    )


def as_finished(row: sqlite3.Row) -> dict[str, Any]:
    """One line of `GET /v1/finished`, from the columns FINISHED_COLUMNS: a finished task without its texts."""
    plain = (
        "done_no", "id", "state", "batch", "work_class", "model", "engine", "created_at", "started_at", "finished_at",
        "attempts", "retries", "uncertain", "price_version", *USAGE,
    )  # fmt: skip
    more = {"labels": _decode(row["labels"], _LABELS), "error": row["error_code"], "cost_usd": money(row["cost_pico"])}
    bound = row["uncertain_pico"]
    more["uncertain_usd"] = money(None if bound is None else int(bound))
    return {name: row[name] for name in plain} | more


def as_charge(row: sqlite3.Row) -> dict[str, Any]:
    """One line of `GET /v1/charges`: a row of `charge` joined with its task's."""
    plain = (
        "no", "task", "attempt", "batch", "work_class", "model", "engine", "created_at", "request_id", "price_version",
        "terms", *USAGE,
    )  # fmt: skip
    return {name: row[name] for name in plain} | {
        "labels": _decode(row["labels"], _LABELS),
        "economy": bool(row["economy"]),
        "cost_usd": money(row["cost_pico"]),
    }
