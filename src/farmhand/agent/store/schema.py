"""The schema of the ledger's file: one SQL text per version, each one transaction, forward only."""

# ruff: noqa: S608  (what is put into SQL here are our own words)
from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

from farmhand.core.errors import FarmhandError

log = logging.getLogger("jada-agent")
STATES = ("queued", "awaiting_key", "running", "succeeded", "failed", "cancelled")
#: Sums that `tally` keeps per batch: column → what one row of `task` adds; `{}` is the prefix of its columns.
SUMS = {state: f"({{}}state = '{state}')" for state in STATES} | {
    "cost_pico": "coalesce({}cost_pico, 0)",
    "unpriced": "({}cost_pico IS NULL)",
    "uncertain": "{}uncertain",
}


def _counts(*names: str) -> str:
    return ",\n    ".join(f"{name} INTEGER NOT NULL DEFAULT 0" for name in names)


def _tally(*changes: tuple[str, str]) -> str:
    """Return the SQL that updates a batch's sums, from pairs of a sign and the prefix of the row's columns."""
    return ", ".join(
        f"{name} = {name} " + " ".join(f"{sign} {value.format(row)}" for sign, row in changes)
        for name, value in SUMS.items()
    )


_USAGE = _counts(
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_creation_1h_input_tokens",
    "cache_read_input_tokens",
    "requests",
)
_LAST_DONE = "last_done = max(last_done, coalesce(NEW.done_no, 0))"
# - Large columns are last in `task`, so that the others are read without them.
# - `spec` is NULL once a task's content is pruned.
# - Triggers keep `tally`, so that counts and a batch's sums are read, never computed.
# - `meta.id` identifies this file for tools that merge ledgers: the numbers of a rebuilt host start at 1 again.
# - `task.pot` is the pot that the task names, `attempt.pot` the one that pays for the attempt: it may be a later one.
# - `pot_day` has what each pot was charged, by day since 1970 (UTC). It outlives the charges, which retention deletes.
# - `charge.terms` are the conditions besides tokens that decided the cost: see `farmhand.core.terms.Terms`.
# - `provider_batch` has the Message Batches at the provider. `id` is the provider's, NULL until its answer.
# - `reservation` has the worst-case cost of requests, from before they are sent until their cost is known.
#   `request` numbers those of an attempt; `pico` is NULL if the price is unknown.
# - `attempt.crashes` counts how often the agent ended while it ran the attempt. In a Message Batch it counts crashes
#   while the attempt's result was processed alone (`handling` is the task).
# - `provider_batch.crashes` counts crashes while the batch's results were processed (`collecting`) but no single one,
#   since one was last processed alone. The first such crash sets `suspected`.
_TO_1 = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('id', lower(hex(randomblob(16))));

CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counter VALUES ('done', 0);

CREATE TABLE task (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN {STATES!r}),
    batch TEXT NOT NULL,
    model TEXT NOT NULL,
    engine TEXT NOT NULL,
    pot TEXT NOT NULL DEFAULT '',
    priority INTEGER NOT NULL DEFAULT 0,
    work_class TEXT NOT NULL DEFAULT '',
    labels BLOB NOT NULL,
    key_fingerprint TEXT,
    created_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    done_no INTEGER UNIQUE,
    attempts INTEGER NOT NULL DEFAULT 0,
    retries INTEGER NOT NULL DEFAULT 0,
    uncertain INTEGER NOT NULL DEFAULT 0,
    {_USAGE},
    cost_pico INTEGER DEFAULT 0,
    price_version TEXT,
    stop_reason TEXT NOT NULL DEFAULT '',
    error_code TEXT,
    spec BLOB,
    text TEXT NOT NULL DEFAULT '',
    structured BLOB,
    error BLOB,
    CHECK ((done_no IS NULL) = (state IN ('queued','awaiting_key','running')))
);
CREATE INDEX task_line ON task (engine, priority DESC, seq) WHERE state = 'queued';
CREATE INDEX task_batch_line ON task (batch, engine, priority DESC, seq) WHERE state = 'queued';
CREATE INDEX task_awaiting ON task (batch, pot, seq) WHERE state = 'awaiting_key';
CREATE INDEX task_running ON task (batch) WHERE state = 'running';
CREATE INDEX task_key ON task (state, key_fingerprint, pot, done_no) WHERE done_no IS NULL;
CREATE INDEX task_batch ON task (batch, seq);
CREATE INDEX task_batch_done ON task (batch, done_no) WHERE done_no IS NOT NULL;
CREATE INDEX task_kept ON task (finished_at) WHERE done_no IS NOT NULL AND spec IS NOT NULL;
CREATE INDEX task_pruned ON task (finished_at) WHERE spec IS NULL;

CREATE TABLE provider_batch (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT UNIQUE,
    key_fingerprint TEXT NOT NULL,
    pot TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL CHECK (state IN ('creating','open','ended')),
    cancelled INTEGER NOT NULL DEFAULT 0,
    requests INTEGER NOT NULL,
    created_at REAL NOT NULL,
    crashes INTEGER NOT NULL DEFAULT 0,
    suspected INTEGER NOT NULL DEFAULT 0,
    collecting INTEGER NOT NULL DEFAULT 0,
    handling INTEGER
);

CREATE TABLE attempt (
    task_seq INTEGER NOT NULL REFERENCES task (seq) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    key_fingerprint TEXT NOT NULL,
    pot TEXT NOT NULL DEFAULT '',
    started_at REAL NOT NULL,
    finished_at REAL,
    outcome TEXT NOT NULL DEFAULT 'running',
    provider_batch INTEGER REFERENCES provider_batch (no),
    crashes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (task_seq, number)
) WITHOUT ROWID;
CREATE INDEX attempt_at_provider ON attempt (provider_batch) WHERE outcome = 'running' AND provider_batch IS NOT NULL;
CREATE INDEX attempt_crashed ON attempt (task_seq) WHERE crashes > 0;

CREATE TABLE charge (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    task_seq INTEGER NOT NULL REFERENCES task (seq) ON DELETE CASCADE,
    attempt INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    model TEXT NOT NULL,
    {_USAGE},
    cost_pico INTEGER,
    price_version TEXT NOT NULL,
    created_at REAL NOT NULL,
    economy INTEGER NOT NULL DEFAULT 0,
    terms TEXT NOT NULL DEFAULT ''
);
CREATE INDEX charge_task ON charge (task_seq);
CREATE INDEX charge_created ON charge (created_at);

CREATE TABLE pot_day (
    pot TEXT NOT NULL, day INTEGER NOT NULL, pico INTEGER NOT NULL, PRIMARY KEY (pot, day)
) WITHOUT ROWID;

CREATE TABLE reservation (
    task_seq INTEGER NOT NULL REFERENCES task (seq) ON DELETE CASCADE,
    attempt INTEGER NOT NULL,
    request INTEGER NOT NULL,
    pico INTEGER,
    created_at REAL NOT NULL,
    PRIMARY KEY (task_seq, attempt, request)
) WITHOUT ROWID;
CREATE INDEX reservation_created ON reservation (created_at);

CREATE TABLE batch (
    name TEXT PRIMARY KEY,
    max_pico INTEGER,
    concurrency INTEGER,
    created_at REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE tally (
    batch TEXT PRIMARY KEY,
    {_counts(*SUMS, "last_done")}
) WITHOUT ROWID;
CREATE TRIGGER task_comes AFTER INSERT ON task BEGIN
    INSERT INTO tally (batch) VALUES (NEW.batch) ON CONFLICT DO NOTHING;
    UPDATE tally SET {_tally(("+", "NEW."))}, {_LAST_DONE} WHERE batch = NEW.batch;
END;
CREATE TRIGGER task_changes AFTER UPDATE OF state, cost_pico, uncertain, done_no ON task BEGIN
    UPDATE tally SET {_tally(("+", "NEW."), ("-", "OLD."))}, {_LAST_DONE} WHERE batch = NEW.batch;
END;
CREATE TRIGGER task_goes AFTER DELETE ON task BEGIN
    UPDATE tally SET {_tally(("-", "OLD."))} WHERE batch = OLD.batch;
END;
"""

#: The step at index N migrates from version N to N + 1.
STEPS: tuple[str, ...] = (_TO_1,)
_INCREMENTAL = 2


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Migrate the file behind `db`, called `path` in messages. Raise FarmhandError if its version is newer."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(STEPS):
        raise FarmhandError(
            f"{path}: the ledger has schema version {version}, this agent knows {len(STEPS)}",
            hint="run the agent version that wrote it, or a newer one",
            code="ledger_version",
        )
    if version == 0 and (version := _recognised(db)):
        db.execute(f"PRAGMA user_version = {version}")
    new = version == 0
    if new:
        # This works only before the first table; an existing file is rewritten once, below.
        db.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA foreign_keys = OFF")
    for number, step in enumerate(STEPS[version:], version + 1):
        try:
            db.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {number}; COMMIT;")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        if not new:
            log.info("the ledger's schema is now version %d", number)
    if db.execute("PRAGMA auto_vacuum").fetchone()[0] != _INCREMENTAL:
        _rewrite(db)
    db.execute("PRAGMA foreign_keys = ON")


def _recognised(db: sqlite3.Connection) -> int:
    """Return the version of a file that does not state it, such as a dump of a damaged one; 0 for an empty file."""
    objects = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
    have, found = {row[0] for row in db.execute(objects)}, 0
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        for version, step in enumerate(STEPS if have else (), 1):
            model.executescript(step)
            if {row[0] for row in model.execute(objects)} <= have:
                found = version
    return found


def _rewrite(db: sqlite3.Connection) -> None:
    """Rewrite the file so that freed space can be returned gradually. A failure is retried at the next start."""
    try:
        db.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
        db.execute("VACUUM")
    except sqlite3.Error as error:
        log.warning("the ledger could not be rewritten, freed space stays in its file: %s", error)
