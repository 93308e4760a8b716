"""Rows of the ledger as the API's types. Times are Unix seconds; amounts in the file are pico-dollars."""

from __future__ import annotations

import sqlite3
import time
from decimal import Decimal
from typing import Any

import msgspec

from farmhand.core.money import usd
from farmhand.core.task import Result, TaskError, Usage

USAGE = tuple(Usage.__struct_fields__)
#: The error of a result whose content retention has deleted.
PRUNED = TaskError(
    code="pruned", message="the task has run, and its content is pruned", hint="see retention_days and retention_mb"
)


class IndexedResult(Result, kw_only=True):
    """A result of a batch with its position in the order of finishing."""

    done_no: int


class WaitReason(msgspec.Struct, kw_only=True):
    """Why `tasks` tasks wait: a stable reason, until when (Unix seconds, None if unknown), and one line for people."""

    reason: str
    tasks: int
    until: float | None = None
    detail: str = ""


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


class TaskTotals(msgspec.Struct, kw_only=True):
    """Sums over tasks. `unpriced` counts tasks with an unknown cost."""

    tasks: int
    usage: Usage
    cost_usd: Decimal
    unpriced: int


def _decode(blob: bytes | None, kind: Any) -> Any:
    return None if blob is None else msgspec.json.decode(blob, type=kind)


def in_usd(row: sqlite3.Row) -> dict[str, Any]:
    """Return a row's columns by name, with each `_pico` column as a `_usd` value in US$; None stays None."""
    found = dict(row)
    for name in [name for name in found if name.endswith("_pico")]:
        pico = found.pop(name)
        found[name.replace("_pico", "_usd")] = None if pico is None else usd(pico)
    return found


def result_fields(row: sqlite3.Row) -> dict[str, Any]:
    """Return the fields of `Result` for a row of the table `task`, as of now."""
    started, finished, now = row["started_at"], row["finished_at"], time.time()
    same = ("id", "state", "text", "model", "engine", "attempts", "retries", "uncertain", "stop_reason", "batch")
    return {name: row[name] for name in same} | {
        "structured": _decode(row["structured"], Any),
        "usage": Usage(**{name: row[name] for name in USAGE}),
        "cost_usd": None if row["cost_pico"] is None else usd(row["cost_pico"]),
        # The clock may have been set back in the meantime.
        "queued_s": round(max(0.0, (started or finished or now) - row["created_at"]), 3),
        "run_s": round(max(0.0, (finished or now) - started), 3) if started else 0.0,
        "error": PRUNED if row["spec"] is None else _decode(row["error"], TaskError),
        "labels": _decode(row["labels"], dict[str, str]),
    }


def as_record(row: sqlite3.Row) -> dict[str, Any]:
    """Return a row as one line of `GET /v1/charges` or `GET /v1/finished`."""
    return in_usd(row) | {"labels": _decode(row["labels"], dict[str, str])}
