"""The journal of a batch: one SQLite file beside the output, with a row per line. It holds no prompt and no key.

Whoever has it open has it alone. A row is written before its task goes out, and again once its result is in the output.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from farmhand.core.errors import FarmhandError, UsageError

VERSION = 1
#: Pico-dollars: what a host may be noted to have cost, so that no host's figures overflow the sum of all.
_MOST_COST = 2**60
WAITING, SENT, SUCCEEDED, FAILED, CANCELLED = range(5)
STATE_NAMES = {"succeeded": SUCCEEDED, "failed": FAILED, "cancelled": CANCELLED}
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE host (
    no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    after INTEGER NOT NULL DEFAULT 0,   -- how far its results are taken
    cost INTEGER NOT NULL DEFAULT 0,    -- pico-dollars, of all it did for this batch
    uncertain INTEGER NOT NULL DEFAULT 0,  -- requests that may have cost something besides
    twice INTEGER NOT NULL DEFAULT 0,   -- results that another host had first
    twice_cost INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE line (
    n INTEGER PRIMARY KEY, at INTEGER NOT NULL, id TEXT NOT NULL UNIQUE, digest BLOB NOT NULL,
    wire TEXT NOT NULL UNIQUE,          -- the id under which the agents know it
    round INTEGER NOT NULL DEFAULT 1,   -- how many ids it has had
    state INTEGER NOT NULL DEFAULT 0,
    host INTEGER REFERENCES host (no),
    sure INTEGER NOT NULL DEFAULT 0,    -- sent: 1 if the agent has said that it has it, -1 for the first time
    stopped INTEGER NOT NULL DEFAULT 0, -- sent: whether we asked for it to be cancelled, to send it again some day
    cost INTEGER                        -- pico-dollars; NULL: unknown, or not done
);
CREATE INDEX line_state ON line (state, n);
CREATE TABLE gone (                     -- ids that are another host's, or nobody's, by now
    host INTEGER NOT NULL, wire TEXT NOT NULL, n INTEGER NOT NULL,
    told INTEGER NOT NULL DEFAULT 0,    -- whether the host was told to cancel it
    ended INTEGER NOT NULL DEFAULT 0,   -- whether its result there is counted
    PRIMARY KEY (host, wire)
) WITHOUT ROWID;
CREATE TABLE held (                     -- ordered: results that came early
    n INTEGER PRIMARY KEY, line BLOB NOT NULL
);
"""


_TABLES = frozenset(re.findall(r"CREATE TABLE (\w+)", _SCHEMA))


class PendingLine(NamedTuple):
    """A line that is to be sent."""

    n: int
    at: int
    id: str
    wire: str
    digest: bytes


class SentLine(NamedTuple):
    """A line with what became of it so far. A `cost` before it is final: it was counted, and the result lost since."""

    row: PendingLine
    state: int
    host: int | None
    stopped: int
    cost: int | None


class Journal:
    """See the module. Methods that change something belong into a `transaction`."""

    def __init__(self, path: Path, *, any_version: bool = False) -> None:
        """Open or make it. Raises UsageError where another client has it, or where it is no journal.

        With `any_version` another version's is opened as well, to be removed.
        """
        self.path = path
        self.fresh = not path.exists()
        try:
            self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.2)
            self.db.execute("PRAGMA locking_mode = EXCLUSIVE")
            # Before anything is changed: it may be somebody else's database.
            version = self.db.execute("PRAGMA user_version").fetchone()[0]
            found = {
                row[0] for row in self.db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
            }
            if not (found >= _TABLES if version else not found):
                raise sqlite3.DatabaseError
            self.db.execute("PRAGMA journal_mode = WAL")
            # A transaction lost in a power cut is found again: the output and the hosts' ledgers have it.
            self.db.execute("PRAGMA synchronous = NORMAL")
            self.db.execute("PRAGMA cache_size = -8192")
            self.db.execute("BEGIN IMMEDIATE")
            self.db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise _unusable(path, error) from None
        except sqlite3.DatabaseError:
            self.close()
            raise UsageError(f"{path} is not a journal of farmhand batch", hint="choose another --out") from None
        self.version = int(version)
        if version not in (0, VERSION) and not any_version:
            self.close()
            raise UsageError(f"{path} was written by another version of farmhand", hint="use that, or --restart")
        self.fresh = version == 0

    def begin_new(self, about: dict[str, str]) -> None:
        """Make the tables. Inside a transaction: without its commit nothing was made."""
        # Not executescript, which would commit.
        for statement in _SCHEMA.split(";\n"):
            self.db.execute(statement)
        self.db.executemany("INSERT INTO meta VALUES (?, ?)", about.items())
        self.db.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        """Let go of it."""
        self.db.close()

    def remove(self) -> None:
        """Close and delete it."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing."""
        self.db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    # --- about the batch ------------------------------------------------------------------------------------------

    def about(self, name: str) -> str:
        """A fact from the batch's start, "" if there is none."""
        row = self.db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else ""

    def add(self, n: int, at: int, task_id: str, digest: bytes) -> int | None:
        """A new line; if its id is taken, the number of the line that has it."""
        try:
            self.db.execute(
                "INSERT INTO line (n, at, id, wire, digest) VALUES (?, ?, ?, ?, ?)", (n, at, task_id, task_id, digest)
            )
        except sqlite3.IntegrityError:
            return int(self.db.execute("SELECT n FROM line WHERE id = ?", (task_id,)).fetchone()[0])
        return None

    def counts(self) -> dict[int, int]:
        """How many lines are in each state."""
        found = dict(self.db.execute("SELECT state, count(*) FROM line GROUP BY state"))
        return {state: found.get(state, 0) for state in range(5)}

    def sums(self) -> tuple[int, int, int, int]:
        """Of all hosts: pico-dollars, uncertain requests, results that came twice, and the pico-dollars of those."""
        query = "SELECT total(cost), total(uncertain), total(twice), total(twice_cost) FROM host"
        cost, uncertain, twice, twice_cost = self.db.execute(query).fetchone()
        return int(cost), int(uncertain), int(twice), int(twice_cost)

    def unpriced(self) -> int:
        """How many finished lines have a cost that is not known."""
        query = "SELECT count(*) FROM line WHERE state IN (2, 3) AND cost IS NULL"
        return int(self.db.execute(query).fetchone()[0])

    # --- hosts ----------------------------------------------------------------------------------------------------

    def host(self, name: str) -> tuple[int, int, int]:
        """(number, after, cost) of a host, which is added if it is new."""
        self.db.execute("INSERT OR IGNORE INTO host (name) VALUES (?)", (name,))
        row = self.db.execute("SELECT no, after, cost FROM host WHERE name = ?", (name,)).fetchone()
        return int(row[0]), int(row[1]), int(row[2])

    def holders(self) -> list[str]:
        """The hosts that have lines of this batch."""
        query = "SELECT name FROM host WHERE no IN (SELECT DISTINCT host FROM line WHERE state = 1)"
        return [str(row[0]) for row in self.db.execute(query)]

    def advance(self, host: int, after: int, cost: int = 0, uncertain: int = 0) -> None:
        """Results up to `after` are taken; the host has done work for `cost` more."""
        self.db.execute(
            "UPDATE host SET after = max(after, ?), cost = min(cost + ?, ?), uncertain = uncertain + ? WHERE no = ?",
            (after, min(cost, _MOST_COST), _MOST_COST, uncertain, host),
        )

    def count_twice(self, host: int, cost: int) -> None:
        """The host has done for `cost` what another had done before."""
        query = "UPDATE host SET twice = twice + 1, twice_cost = min(twice_cost + ?, ?) WHERE no = ?"
        self.db.execute(query, (cost, _MOST_COST, host))

    def unsure(self, host: int | None = None) -> None:
        """What is sent to the host (to all) may have been lost there."""
        where, values = ("AND host = ?", (host,)) if host is not None else ("", ())
        self.db.execute(f"UPDATE line SET sure = 0 WHERE state = 1 {where}", values)  # noqa: S608  (constants)

    def own_unsure(self, host: int, limit: int) -> list[PendingLine]:
        """Lines that the host had and may have lost."""
        return self._rows("state = 1 AND sure <= 0 AND host = ?", (host,), limit)

    def adrift(self, lost: Iterable[int], limit: int) -> list[PendingLine]:
        """Lines that hosts have which are lost."""
        marks = ",".join(str(int(no)) for no in lost)
        return self._rows(f"state = 1 AND sure <= 0 AND host IN ({marks})", (), limit) if marks else []

    def waiting(self, limit: int) -> list[PendingLine]:
        """The next lines that no host has."""
        return self._rows("state = 0", (), limit)

    def unsuccessful(self) -> list[PendingLine]:
        """Lines that failed or were cancelled."""
        return self._rows("state IN (3, 4)", (), -1)

    def _rows(self, where: str, values: tuple[Any, ...], limit: int) -> list[PendingLine]:
        query = f"SELECT n, at, id, wire, digest FROM line WHERE {where} ORDER BY n LIMIT ?"  # noqa: S608  (ours)
        return [PendingLine(*row) for row in self.db.execute(query, (*values, limit))]

    def send(self, rows: Iterable[PendingLine], host: int) -> list[PendingLine]:
        """These lines go to `host`: as they go, with another id where theirs is spent there."""
        sent = []
        for row in rows:
            before = self.db.execute("SELECT host FROM line WHERE n = ? AND state = 1", (row.n,)).fetchone()
            if before is not None and before[0] != host:
                self._gone(before[0], row)
            spent = self.db.execute("SELECT 1 FROM gone WHERE host = ? AND wire = ?", (host, row.wire)).fetchone()
            going = self.renew(row) if spent else row
            self.db.execute(
                "UPDATE line SET state = 1, cost = iif(host = ?1, cost, NULL), host = ?1, sure = 0, stopped = 0"
                " WHERE n = ?2",
                (host, row.n),
            )
            if before is None or before[0] != host or spent:
                self.db.execute("UPDATE line SET sure = -1 WHERE n = ?", (row.n,))
            sent.append(going)
        return sent

    def renew(self, row: PendingLine) -> PendingLine:
        """Give the line another id on the wire; the agents run one id once."""
        number = self.db.execute("SELECT round + 1 FROM line WHERE n = ?", (row.n,)).fetchone()[0]
        wire = suffixed(row.id, f".r{number}")
        while self.db.execute("SELECT 1 FROM line WHERE wire = ?", (wire,)).fetchone():
            number += 1
            wire = suffixed(row.id, f".r{number}")
        self.db.execute("UPDATE line SET wire = ?, round = ? WHERE n = ?", (wire, number, row.n))
        return row._replace(wire=wire)

    def take_back(self, host: int, *, also_unsure: bool) -> None:
        """What was sent to the host for the first time did not get there; nor did, if so, what it may have lost."""
        where = "sure <= 0" if also_unsure else "sure = -1"
        query = f"UPDATE line SET state = 0, host = NULL, sure = 0 WHERE state = 1 AND host = ? AND {where}"  # noqa: S608
        self.db.execute(query, (host,))

    def _gone(self, host: int, row: PendingLine) -> None:
        self.db.execute("INSERT OR IGNORE INTO gone (host, wire, n) VALUES (?, ?, ?)", (host, row.wire, row.n))

    def spend(self, host: int, row: PendingLine, *, told: bool) -> None:
        """The line's id is of no use on `host` any more."""
        self._gone(host, row)
        self.db.execute("UPDATE gone SET told = max(told, ?) WHERE host = ? AND wire = ?", (told, host, row.wire))

    def to_cancel(self, host: int, limit: int) -> list[str]:
        """Ids that the host may still run although they are not its any more."""
        query = "SELECT wire FROM gone WHERE host = ? AND told = 0 LIMIT ?"
        return [str(row[0]) for row in self.db.execute(query, (host, limit))]

    def told(self, host: int, wires: Iterable[str]) -> None:
        """The host has cancelled these."""
        self.db.executemany("UPDATE gone SET told = 1 WHERE host = ? AND wire = ?", ((host, wire) for wire in wires))

    def confirm(self, host: int, wires: Iterable[str]) -> None:
        """The host has these."""
        self.db.executemany(
            "UPDATE line SET sure = 1 WHERE wire = ? AND host = ? AND state = 1", ((wire, host) for wire in wires)
        )

    # --- results --------------------------------------------------------------------------------------------------

    def by_wire(self, wire: str) -> SentLine | None:
        """The line that has an id now."""
        query = "SELECT n, at, id, wire, digest, state, host, stopped, cost FROM line WHERE wire = ?"
        row = self.db.execute(query, (wire,)).fetchone()
        return SentLine(PendingLine(*row[:5]), *row[5:]) if row else None

    def by_gone(self, host: int, wire: str) -> SentLine | None:
        """The line of an id that is not the host's any more, if its result there is not counted yet."""
        query = (
            "SELECT l.n, l.at, l.id, l.wire, l.digest, l.state, l.host, l.stopped, l.cost"
            " FROM gone g JOIN line l ON l.n = g.n WHERE g.host = ? AND g.wire = ? AND g.ended = 0"
        )
        row = self.db.execute(query, (host, wire)).fetchone()
        return SentLine(PendingLine(*row[:5]), *row[5:]) if row else None

    def end_gone(self, host: int, wire: str) -> None:
        """Its result there is counted."""
        self.db.execute("UPDATE gone SET told = 1, ended = 1 WHERE host = ? AND wire = ?", (host, wire))

    def finish(self, n: int, state: int, host: int | None, cost: int | None) -> None:
        """The line's result is in the output, or held for it."""
        self.db.execute(
            "UPDATE line SET state = ?, host = ?, cost = ?, stopped = 0 WHERE n = ?", (state, host, cost, n)
        )

    def put_back(self, row: PendingLine) -> None:
        """Nobody has the line any more; it waits, under an id that is not spent."""
        self.renew(row)
        self.db.execute("UPDATE line SET state = 0, host = NULL, sure = 0, stopped = 0 WHERE n = ?", (row.n,))

    def stopping(self, host: int) -> None:
        """What the host has may be cancelled by us from here on."""
        self.db.execute("UPDATE line SET stopped = 1 WHERE state = 1 AND host = ?", (host,))

    def hold(self, n: int, line: bytes) -> None:
        """Keep a result until its turn in the output."""
        self.db.execute("INSERT OR REPLACE INTO held VALUES (?, ?)", (n, line))

    def due(self, written: int, limit: int = 500) -> list[tuple[int, bytes]]:
        """Held results whose turn it is: all before the first line that is not final, behind line `written`."""
        query = (
            "SELECT n, line FROM held WHERE n > ? AND n < coalesce("
            "(SELECT min(n) FROM line WHERE state = 0), 9e18) AND n < coalesce("
            "(SELECT min(n) FROM line WHERE state = 1), 9e18) ORDER BY n LIMIT ?"
        )
        return [(int(n), bytes(line)) for n, line in self.db.execute(query, (written, limit))]

    def release(self, upto: int) -> None:
        """Held results up to line `upto` are in the output."""
        self.db.execute("DELETE FROM held WHERE n <= ?", (upto,))


def suffixed(task_id: str, suffix: str) -> str:
    """`task_id` with `suffix`, within the 64 characters of an id."""
    whole = task_id + suffix
    if len(whole) <= 64:
        return whole
    digest = hashlib.sha256(task_id.encode()).hexdigest()[:12]
    return f"{task_id[: 64 - 13 - len(suffix)]}-{digest}{suffix}"


def _unusable(path: Path, error: sqlite3.OperationalError) -> FarmhandError:
    if "locked" in str(error) or "busy" in str(error):
        return UsageError(f"another farmhand batch is at work on {path}", hint="wait for it, or choose another --out")
    return UsageError(f"{path}: {error}", hint="choose another --out")
