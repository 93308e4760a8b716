"""The versions of the ledger's file: one SQL text per step, each step one transaction, forward only."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path

from farmhand.core.errors import FarmhandError
from farmhand.core.money import pico

log = logging.getLogger("jada-agent")

_TO_1 = """
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

# What is large stands last in `task`: a row's other columns are read without it. `spec` is NULL once a task's content
# is pruned. `tally` is kept by triggers, so that counts and a batch's sums are read and never computed.
_TO_2 = """
ALTER TABLE task RENAME TO task_1;
ALTER TABLE attempt RENAME TO attempt_1;
DROP INDEX task_state;
DROP INDEX task_batch;

CREATE TABLE task (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued','awaiting_key','running','succeeded','failed','cancelled')),
    batch TEXT NOT NULL,
    model TEXT NOT NULL,
    engine TEXT NOT NULL,
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
    input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    cache_creation_input_tokens INTEGER NOT NULL DEFAULT 0,
    cache_creation_1h_input_tokens INTEGER NOT NULL DEFAULT 0,
    cache_read_input_tokens INTEGER NOT NULL DEFAULT 0,
    requests INTEGER NOT NULL DEFAULT 0,
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
CREATE INDEX task_awaiting ON task (batch, seq) WHERE state = 'awaiting_key';
CREATE INDEX task_running ON task (batch) WHERE state = 'running';
CREATE INDEX task_key ON task (state, key_fingerprint, done_no) WHERE done_no IS NULL;
CREATE INDEX task_batch ON task (batch, seq);
CREATE INDEX task_batch_done ON task (batch, done_no) WHERE done_no IS NOT NULL;
CREATE INDEX task_kept ON task (finished_at) WHERE done_no IS NOT NULL AND spec IS NOT NULL;
CREATE INDEX task_pruned ON task (finished_at) WHERE spec IS NULL;

CREATE TABLE attempt (
    task_seq INTEGER NOT NULL REFERENCES task (seq) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    key_fingerprint TEXT NOT NULL,
    started_at REAL NOT NULL,
    finished_at REAL,
    outcome TEXT NOT NULL DEFAULT 'running',
    PRIMARY KEY (task_seq, number)
) WITHOUT ROWID;

CREATE TABLE charge (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    task_seq INTEGER NOT NULL REFERENCES task (seq) ON DELETE CASCADE,
    attempt INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    model TEXT NOT NULL,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    cache_creation_input_tokens INTEGER NOT NULL DEFAULT 0,
    cache_creation_1h_input_tokens INTEGER NOT NULL DEFAULT 0,
    cache_read_input_tokens INTEGER NOT NULL DEFAULT 0,
    requests INTEGER NOT NULL DEFAULT 1,
    cost_pico INTEGER,
    price_version TEXT NOT NULL,
    created_at REAL NOT NULL,
    economy INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX charge_task ON charge (task_seq);
CREATE INDEX charge_created ON charge (created_at);

CREATE TABLE batch (
    name TEXT PRIMARY KEY,
    max_pico INTEGER,
    concurrency INTEGER,
    created_at REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counter VALUES ('done', 0);

CREATE TABLE tally (
    batch TEXT PRIMARY KEY,
    queued INTEGER NOT NULL DEFAULT 0,
    awaiting_key INTEGER NOT NULL DEFAULT 0,
    running INTEGER NOT NULL DEFAULT 0,
    succeeded INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    cost_pico INTEGER NOT NULL DEFAULT 0,
    unpriced INTEGER NOT NULL DEFAULT 0,
    uncertain INTEGER NOT NULL DEFAULT 0,
    last_done INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TRIGGER task_comes AFTER INSERT ON task BEGIN
    INSERT INTO tally (batch) VALUES (NEW.batch) ON CONFLICT DO NOTHING;
    UPDATE tally SET
        queued = queued + (NEW.state = 'queued'),
        awaiting_key = awaiting_key + (NEW.state = 'awaiting_key'),
        running = running + (NEW.state = 'running'),
        succeeded = succeeded + (NEW.state = 'succeeded'),
        failed = failed + (NEW.state = 'failed'),
        cancelled = cancelled + (NEW.state = 'cancelled'),
        cost_pico = cost_pico + coalesce(NEW.cost_pico, 0),
        unpriced = unpriced + (NEW.cost_pico IS NULL),
        uncertain = uncertain + NEW.uncertain,
        last_done = max(last_done, coalesce(NEW.done_no, 0))
    WHERE batch = NEW.batch;
END;
CREATE TRIGGER task_changes AFTER UPDATE OF state, cost_pico, uncertain, done_no ON task BEGIN
    UPDATE tally SET
        queued = queued + (NEW.state = 'queued') - (OLD.state = 'queued'),
        awaiting_key = awaiting_key + (NEW.state = 'awaiting_key') - (OLD.state = 'awaiting_key'),
        running = running + (NEW.state = 'running') - (OLD.state = 'running'),
        succeeded = succeeded + (NEW.state = 'succeeded') - (OLD.state = 'succeeded'),
        failed = failed + (NEW.state = 'failed') - (OLD.state = 'failed'),
        cancelled = cancelled + (NEW.state = 'cancelled') - (OLD.state = 'cancelled'),
        cost_pico = cost_pico + coalesce(NEW.cost_pico, 0) - coalesce(OLD.cost_pico, 0),
        unpriced = unpriced + (NEW.cost_pico IS NULL) - (OLD.cost_pico IS NULL),
        uncertain = uncertain + NEW.uncertain - OLD.uncertain,
        last_done = max(last_done, coalesce(NEW.done_no, 0))
    WHERE batch = NEW.batch;
END;
CREATE TRIGGER task_goes AFTER DELETE ON task BEGIN
    UPDATE tally SET
        queued = queued - (OLD.state = 'queued'),
        awaiting_key = awaiting_key - (OLD.state = 'awaiting_key'),
        running = running - (OLD.state = 'running'),
        succeeded = succeeded - (OLD.state = 'succeeded'),
        failed = failed - (OLD.state = 'failed'),
        cancelled = cancelled - (OLD.state = 'cancelled'),
        cost_pico = cost_pico - coalesce(OLD.cost_pico, 0),
        unpriced = unpriced - (OLD.cost_pico IS NULL),
        uncertain = uncertain - OLD.uncertain
    WHERE batch = OLD.batch;
END;

INSERT INTO task
SELECT
    seq, id, digest, state, batch, model, engine, 0,
    coalesce(json_extract(CAST(spec AS TEXT), '$.work_class'), ''), labels, key_fingerprint,
    created_at, started_at, coalesce(finished_at, CASE WHEN final THEN created_at END),
    CASE WHEN final THEN row_number() OVER (PARTITION BY final ORDER BY finished_at, seq) END,
    attempts, retries,
    (SELECT count(*) FROM attempt_1 WHERE task_seq = seq AND outcome = 'interrupted' AND attempt_1.usage IS NULL),
    coalesce(json_extract(used, '$.input_tokens'), 0), coalesce(json_extract(used, '$.output_tokens'), 0),
    coalesce(json_extract(used, '$.cache_creation_input_tokens'), 0),
    coalesce(json_extract(used, '$.cache_creation_1h_input_tokens'), 0),
    coalesce(json_extract(used, '$.cache_read_input_tokens'), 0), coalesce(json_extract(used, '$.requests'), 0),
    CASE WHEN coalesce(json_extract(used, '$.requests'), 0) THEN pico(cost_usd) ELSE 0 END,
    price_version, stop_reason, json_extract(CAST(error AS TEXT), '$.code'), spec, text, structured, error
FROM (
    SELECT *, CAST(usage AS TEXT) AS used, state IN ('succeeded','failed','cancelled') AS final FROM task_1
)
ORDER BY seq;
UPDATE counter SET value = (SELECT coalesce(max(done_no), 0) FROM task) WHERE name = 'done';
INSERT INTO attempt SELECT task_seq, number, key_fingerprint, started_at, finished_at, outcome FROM attempt_1;
INSERT INTO batch (name, created_at) SELECT batch, min(created_at) FROM task WHERE batch != '' GROUP BY batch;
-- Version 1 kept sums per task and no single requests: each sum becomes one charge, without a request id.
INSERT INTO charge (
    task_seq, attempt, request_id, model, input_tokens, output_tokens, cache_creation_input_tokens,
    cache_creation_1h_input_tokens, cache_read_input_tokens, requests, cost_pico, price_version, created_at
)
SELECT
    seq, attempts, '', model, input_tokens, output_tokens, cache_creation_input_tokens,
    cache_creation_1h_input_tokens, cache_read_input_tokens, requests, cost_pico, coalesce(price_version, ''),
    coalesce(finished_at, created_at)
FROM task WHERE requests ORDER BY coalesce(done_no, 9e18), seq;
DROP TABLE attempt_1;
DROP TABLE task_1;

-- What this file is called by those who merge ledgers: a host that is built again starts a new one, at number 1.
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('id', lower(hex(randomblob(16))));
"""

# Message Batches at the provider: `id` is theirs, NULL until their answer came. An economy task's attempt is in one.
_TO_3 = """
CREATE TABLE provider_batch (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT UNIQUE,
    key_fingerprint TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('creating','open','ended')),
    cancelled INTEGER NOT NULL DEFAULT 0,
    requests INTEGER NOT NULL,
    created_at REAL NOT NULL
);
ALTER TABLE attempt ADD COLUMN provider_batch INTEGER REFERENCES provider_batch (no);
CREATE INDEX attempt_at_provider ON attempt (provider_batch) WHERE outcome = 'running' AND provider_batch IS NOT NULL;
"""

# What requests may cost at the most, from before they leave until it is known what they did cost: a row per request,
# `request` counts those of an attempt; `pico` is NULL where the price is not known. `attempt.crashes` counts the times
# that the agent ended while it ran the attempt; of one in a Message Batch, while its result was handled alone
# (`handling` is its task). `provider_batch.crashes` counts those while its results were taken in (`collecting`) and no
# single one was handled, since one last was; `suspected` is set by the first of them.
_TO_4 = """
CREATE TABLE reservation (
    task_seq INTEGER NOT NULL REFERENCES task (seq) ON DELETE CASCADE,
    attempt INTEGER NOT NULL,
    request INTEGER NOT NULL,
    pico INTEGER,
    created_at REAL NOT NULL,
    PRIMARY KEY (task_seq, attempt, request)
) WITHOUT ROWID;
CREATE INDEX reservation_created ON reservation (created_at);
ALTER TABLE attempt ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
CREATE INDEX attempt_crashed ON attempt (task_seq) WHERE crashes > 0;
ALTER TABLE provider_batch ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE provider_batch ADD COLUMN suspected INTEGER NOT NULL DEFAULT 0;
ALTER TABLE provider_batch ADD COLUMN collecting INTEGER NOT NULL DEFAULT 0;
ALTER TABLE provider_batch ADD COLUMN handling INTEGER;
"""

# What decided a charge's cost beside its tokens: see `farmhand.core.terms.Terms`.
_TO_5 = """
ALTER TABLE charge ADD COLUMN terms TEXT NOT NULL DEFAULT '';
"""

#: The step at index N leads from version N to N + 1.
STEPS = (_TO_1, _TO_2, _TO_3, _TO_4, _TO_5)
#: The file's own version. An agent refuses a newer one.
SCHEMA_VERSION = len(STEPS)
_INCREMENTAL = 2


def _pico(cost_usd: str | None) -> int | None:
    return None if cost_usd is None else pico(Decimal(cost_usd))


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring the file behind `db`, called `path` in messages, to this version. FarmhandError for a newer one."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise FarmhandError(
            f"{path}: the ledger has schema version {version}, this agent knows {SCHEMA_VERSION}",
            hint="run the agent version that wrote it, or a newer one",
            code="ledger_version",
        )
    if version == 0 and (version := _recognised(db)):
        db.execute(f"PRAGMA user_version = {version}")
    new = version == 0
    if new:
        # Works before the first table only; an old file is rewritten once, below.
        db.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA foreign_keys = OFF")
    db.create_function("pico", 1, _pico, deterministic=True)
    for number in range(version, SCHEMA_VERSION):
        # Renaming a table must not rename it in the other's references.
        db.execute("PRAGMA legacy_alter_table = ON")
        try:
            db.executescript(f"BEGIN IMMEDIATE; {STEPS[number]} PRAGMA user_version = {number + 1}; COMMIT;")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        if not new:
            log.info("the ledger's schema is now version %d", number + 1)
    db.execute("PRAGMA legacy_alter_table = OFF")
    if db.execute("PRAGMA auto_vacuum").fetchone()[0] != _INCREMENTAL:
        _rewrite(db)
    db.execute("PRAGMA foreign_keys = ON")


def _recognised(db: sqlite3.Connection) -> int:
    """The version of a file that does not tell it, as what was dumped from a damaged one; 0 where it has none."""
    have = _objects(db)
    for version in range(SCHEMA_VERSION if have else 0, 0, -1):
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
            model.create_function("pico", 1, _pico, deterministic=True)
            model.execute("PRAGMA legacy_alter_table = ON")
            for step in STEPS[:version]:
                model.executescript(step)
            if _objects(model) <= have:
                return version
    return 0


def _objects(db: sqlite3.Connection) -> set[str]:
    found = db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'")
    return {row[0] for row in found.fetchall()}


def _rewrite(db: sqlite3.Connection) -> None:
    """So that space which retention frees can be given back bit by bit; tried again at the next start."""
    try:
        db.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
        db.execute("VACUUM")
    except sqlite3.Error as error:
        log.warning("the ledger could not be rewritten, freed space stays in its file: %s", error)
