"""What the ledger keeps of pots: what each was charged, by day (UTC), and why one was closed.

The days outlive the charges, which retention deletes.
"""

from __future__ import annotations

import sqlite3


def add(db: sqlite3.Connection, now: float, seq: int, attempt: int, pico: int) -> None:
    """Add a charge of an attempt to the day of its pot, if it has one."""
    db.execute(
        "INSERT INTO pot_day SELECT pot, CAST(? / 86400 AS INTEGER), ? FROM attempt"
        " WHERE task_seq = ? AND number = ? AND pot != '' ON CONFLICT DO UPDATE SET pico = pico + excluded.pico",
        (now, pico, seq, attempt),
    )


def recount(db: sqlite3.Connection) -> None:
    """Compute all days from the charges: the rows come from a damaged file."""
    db.execute("DELETE FROM pot_day")
    db.execute(
        "INSERT INTO pot_day SELECT pot, CAST(created_at / 86400 AS INTEGER), sum(cost_pico) FROM charge c"
        " JOIN attempt a ON a.task_seq = c.task_seq AND a.number = c.attempt WHERE pot != '' AND cost_pico > 0"
        " GROUP BY 1, 2"
    )


def close(db: sqlite3.Connection, _now: float, pot: str, mark: str) -> None:
    """Record that the pot is spent, and what it was spent of."""
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"pot:{pot}", mark))
