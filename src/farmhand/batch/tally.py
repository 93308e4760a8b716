"""How many lines of a journal wait, and how many each worker holds: kept as they change, since each exchange asks.

The counts are in the connection's own temporary database, so that a journal of any time has them, and a transaction
that is rolled back takes its changes with it. They are taken once, when all lines are there.
"""

from __future__ import annotations

import sqlite3

#: Of `line l`, the leases that a worker may have lost. The index `line_doubtful` has only such lines.
DOUBTFUL = "l.state = 1 AND l.acked <= 0 AND l.worker = ?"
_STATEMENTS = (
    "CREATE INDEX IF NOT EXISTS main.line_doubtful ON line (worker, n) WHERE state = 1 AND acked <= 0",
    "CREATE INDEX IF NOT EXISTS main.revoked_unsent ON revoked (worker) WHERE sent = 0",
    # The holder is a worker's number, or 0 for lines that wait. Finished lines have none.
    """CREATE TEMP TABLE tally (
        holder INTEGER PRIMARY KEY, lines INTEGER NOT NULL DEFAULT 0, doubtful INTEGER NOT NULL DEFAULT 0
    )""",
    "INSERT INTO tally (holder) VALUES (0)",
    """INSERT OR REPLACE INTO tally
        SELECT state * coalesce(worker, 0) AS holder, count(*), sum(acked <= 0)
        FROM line WHERE state IN (0, 1) GROUP BY holder""",
    """CREATE TEMP TRIGGER line_moved AFTER UPDATE OF state, worker, acked ON main.line BEGIN
        UPDATE tally SET lines = lines - 1, doubtful = doubtful - (old.acked <= 0)
        WHERE old.state IN (0, 1) AND holder = old.state * coalesce(old.worker, 0);
        INSERT INTO tally
        SELECT new.state * coalesce(new.worker, 0), 1, new.acked <= 0 WHERE new.state IN (0, 1)
        ON CONFLICT DO UPDATE SET lines = lines + 1, doubtful = doubtful + excluded.doubtful;
    END""",
)


def keep_tally(db: sqlite3.Connection) -> None:
    """Make `tally`, a row (holder, lines, doubtful) for each holder, true from now on while lines move."""
    for statement in _STATEMENTS:
        db.execute(statement)
