"""The schema of a batch's journal: see `farmhand.batch.journal`."""

from __future__ import annotations

import re

SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE worker (
    no INTEGER PRIMARY KEY, place TEXT NOT NULL, name TEXT NOT NULL,
    cursor INTEGER NOT NULL DEFAULT 0,      -- how far its results are taken
    cost INTEGER NOT NULL DEFAULT 0,        -- pico-dollars, of all it did for this batch
    uncertain INTEGER NOT NULL DEFAULT 0,   -- requests that may have cost something besides
    duplicates INTEGER NOT NULL DEFAULT 0,  -- results that another worker had first
    duplicates_cost INTEGER NOT NULL DEFAULT 0,
    UNIQUE (place, name)
);
CREATE TABLE line (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
    state INTEGER NOT NULL DEFAULT 0,
    lease TEXT NOT NULL UNIQUE,             -- the id under which workers know it, once each
    generation INTEGER NOT NULL DEFAULT 1,  -- how many such ids it has had
    worker INTEGER REFERENCES worker (no),
    acked INTEGER NOT NULL DEFAULT 0,       -- leased: 1 once the worker has said so, -1 before it ever did
    stopping INTEGER NOT NULL DEFAULT 0,    -- leased: whether we asked to cancel it, to lease it again some day
    cost INTEGER                            -- pico-dollars; NULL: unknown, or not done
);
CREATE INDEX line_state ON line (state, n);
CREATE TABLE task (n INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE revoked (                      -- leases that are another worker's, or nobody's, by now
    worker INTEGER NOT NULL, lease TEXT NOT NULL, n INTEGER NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0,        -- whether the worker has been told to cancel it
    settled INTEGER NOT NULL DEFAULT 0,     -- whether its result there is counted
    PRIMARY KEY (worker, lease)
) WITHOUT ROWID;
CREATE TABLE result (seq INTEGER PRIMARY KEY, n INTEGER NOT NULL UNIQUE, line BLOB NOT NULL);
"""
#: Not in `SCHEMA`: a journal that an earlier farmhand has begun lacks it, and is of the same version.
INPUT = "CREATE TABLE IF NOT EXISTS input (n INTEGER PRIMARY KEY, columns BLOB NOT NULL)"
TABLES = frozenset(re.findall(r"CREATE TABLE (\w+)", SCHEMA))
#: The tables that other versions have as well.
COMMON = frozenset({"meta", "line"})
