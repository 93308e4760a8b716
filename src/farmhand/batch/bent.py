"""The journal's record of lines that went on at a lower price, by lease, and of those that wait for room in a budget.

The tables are not in the journal's schema: a journal that an earlier farmhand has begun lacks them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import msgspec

from farmhand.batch.bend import Bent

#: The state of a line for which a budget had no room: `line.state`, beside those of the journal.
HELD = 5
Shape = Callable[[bytes], "tuple[bytes, Bent] | None"]
_TABLE = """CREATE TABLE IF NOT EXISTS bent (
    lease TEXT PRIMARY KEY, n INTEGER NOT NULL, body BLOB NOT NULL, note BLOB NOT NULL, done INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID"""
#: What each held line may cost, in pico-dollars; 0: it is not known.
_HELD = "CREATE TABLE IF NOT EXISTS held (n INTEGER PRIMARY KEY, need INTEGER NOT NULL)"


class BentLines:
    """Methods that change something must be called in a transaction of the journal."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def begin(self) -> None:
        """Let every held line wait again: a run begins, perhaps with more money."""
        self._db.execute(_TABLE)
        self._db.execute(_HELD)
        self._db.execute("DELETE FROM held")
        self._db.execute("UPDATE line SET state = 0 WHERE state = ?", (HELD,))

    def body(self, n: int, lease: str, given: str, body: bytes, shape: Shape | None, *, waited: bool) -> bytes:
        """Return the fields of line `n` that go out under the id `given`; before it was known as `lease`.

        One that waited takes the form of now. One that a worker may have, or had, keeps the form that it went out in.
        """
        if waited:
            self._db.execute("DELETE FROM bent WHERE lease = ?", (given,))
            if shape is None or (bent := shape(body)) is None:
                return body
            values = (given, n, bent[0], msgspec.json.encode(bent[1]))
            self._db.execute("INSERT INTO bent (lease, n, body, note) VALUES (?, ?, ?, ?)", values)
            return bent[0]
        row = self._db.execute("SELECT body, note FROM bent WHERE lease = ?", (lease,)).fetchone()
        if row is None:
            return body
        if given != lease:
            values = (given, n, *row)
            self._db.execute("INSERT OR REPLACE INTO bent (lease, n, body, note) VALUES (?, ?, ?, ?)", values)
        return bytes(row[0])

    def note(self, lease: str) -> bytes | None:
        """Return what to say of a lease that went out at a lower price, as JSON; None: it went out as asked."""
        row = self._db.execute("SELECT note FROM bent WHERE lease = ?", (lease,)).fetchone()
        return bytes(row[0]) if row else None

    def done(self, lease: str) -> None:
        """Count the lease: its result is the line's."""
        self._db.execute("UPDATE bent SET done = 1, body = '' WHERE lease = ?", (lease,))

    def undone(self, n: int) -> None:
        """Count no lease of line `n`: it runs again."""
        self._db.execute("UPDATE bent SET done = 0 WHERE n = ?", (n,))

    def hold(self, n: int, need: int = 0) -> None:
        """Let a line that waits wait for room in the budget, for `need` pico-dollars."""
        self._db.execute("INSERT OR REPLACE INTO held VALUES (?, ?)", (n, need))
        self._db.execute("UPDATE line SET state = ? WHERE n = ? AND state = 0", (HELD, n))

    def release(self, room: int | None = None) -> int:
        """Let lines that are held be given out again: as many as fit into `room` (pico-dollars; None: all).

        Those that need the least come first. Return how many they are.
        """
        fitting = "SELECT n, total(need) OVER (ORDER BY need, n) AS upto FROM held"
        chosen = f"SELECT n FROM ({fitting}) WHERE upto <= coalesce(?, upto)"  # noqa: S608  (ours)
        query = f"UPDATE line SET state = 0 WHERE state = ? AND n IN ({chosen})"  # noqa: S608
        released = self._db.execute(query, (HELD, room)).rowcount
        self._db.execute("DELETE FROM held WHERE n NOT IN (SELECT n FROM line WHERE state = ?)", (HELD,))
        return released

    def any_held(self) -> bool:
        """Return whether lines are held."""
        return self._db.execute("SELECT 1 FROM line WHERE state = ? LIMIT 1", (HELD,)).fetchone() is not None

    def counts(self) -> dict[str, int]:
        """Return how many results came at a lower price, by way."""
        query = "SELECT json_extract(note, '$.way') AS way, count(*) FROM bent WHERE done GROUP BY way ORDER BY way"
        return dict(self._db.execute(query))
