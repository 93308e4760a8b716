"""What the ledger's file holds: its tables, and what a row of them says."""

from __future__ import annotations

import sqlite3
import time
from decimal import Decimal
from typing import Any

import msgspec

from farmhand.task import Result, TaskError, Usage

#: The file's own version. An agent refuses a file of another one.
SCHEMA_VERSION = 1
TABLES = """
CREATE TABLE task (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    spec BLOB NOT NULL,
    digest BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued','awaiting_key','running','succeeded','failed','cancelled')),
    batch TEXT NOT NULL,
    model TEXT NOT NULL,
    engine TEXT NOT NULL,
    labels BLOB NOT NULL,
    key_fingerprint TEXT,
    created_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    retries INTEGER NOT NULL DEFAULT 0,
    usage BLOB NOT NULL DEFAULT '{}',
    cost_usd TEXT,
    price_version TEXT,
    text TEXT NOT NULL DEFAULT '',
    structured BLOB,
    stop_reason TEXT NOT NULL DEFAULT '',
    error BLOB
);
CREATE INDEX task_state ON task (state, seq);
CREATE INDEX task_batch ON task (batch, seq);
CREATE TABLE attempt (
    task_seq INTEGER NOT NULL REFERENCES task (seq) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    key_fingerprint TEXT NOT NULL,
    started_at REAL NOT NULL,
    finished_at REAL,
    outcome TEXT NOT NULL DEFAULT 'running',
    usage BLOB,
    PRIMARY KEY (task_seq, number)
) WITHOUT ROWID;
"""


def _decode(blob: bytes | None, kind: Any) -> Any:
    return None if blob is None else msgspec.json.decode(blob, type=kind)


def as_result(row: sqlite3.Row) -> Result:
    """The task of a row of the table `task` as it stands now. Times are Unix seconds."""
    started, finished, now = row["started_at"], row["finished_at"], time.time()
    cost = row["cost_usd"]
    return Result(
        id=row["id"],
        state=row["state"],
        text=row["text"],
        structured=_decode(row["structured"], Any),
        model=row["model"],
        engine=row["engine"],
        usage=msgspec.json.decode(row["usage"], type=Usage),
        cost_usd=None if cost is None else Decimal(cost),
        attempts=row["attempts"],
        retries=row["retries"],
        # The clock may have been set back meanwhile.
        queued_s=round(max(0.0, (started or finished or now) - row["created_at"]), 3),
        run_s=round(max(0.0, (finished or now) - started), 3) if started else 0.0,
        stop_reason=row["stop_reason"],
        error=_decode(row["error"], TaskError),
        batch=row["batch"],
        labels=_decode(row["labels"], dict[str, str]),
    )
