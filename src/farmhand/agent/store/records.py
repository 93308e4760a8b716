"""What rows of the ledger are for those who asked: fields of answers, with amounts in US$."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

import msgspec

from farmhand.core.money import usd
from farmhand.core.task import TaskError, Usage
from farmhand.core.typed import ready

USAGE = tuple(Usage.__struct_fields__)
#: The error of a result whose content retention has deleted.
PRUNED = TaskError(
    code="pruned", message="the task has run, and its content is pruned", hint="see retention_days and retention_mb"
)


def decoded(blob: bytes | None, kind: Any) -> Any:
    """Return what a column of JSON holds; None for NULL."""
    return None if blob is None else msgspec.json.decode(blob, type=ready(kind))


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
        "structured": decoded(row["structured"], Any),
        "usage": Usage(**{name: row[name] for name in USAGE}),
        "cost_usd": None if row["cost_pico"] is None else usd(row["cost_pico"]),
        # The clock may have been set back in the meantime.
        "queued_s": round(max(0.0, (started or finished or now) - row["created_at"]), 3),
        "run_s": round(max(0.0, (finished or now) - started), 3) if started else 0.0,
        "error": PRUNED if row["spec"] is None else decoded(row["error"], TaskError),
        "labels": decoded(row["labels"], dict[str, str]),
    }


def record(row: sqlite3.Row) -> dict[str, Any]:
    """Return a row as one line of `GET /v1/charges` or `GET /v1/finished`."""
    found = in_usd(row) | {"labels": decoded(row["labels"], dict[str, str])}
    if not found["pot"]:
        del found["pot"]
    return found
