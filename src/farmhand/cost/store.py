"""The workstation's copy of all hosts' ledgers: one SQLite file, merged by cursor, summed as it is merged.

It is in the state directory and no mere cache: a host forgets old rows (`jada_agent_history_days`), a rebuilt host all
of them, and what they cost stays spent.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from farmhand.core.errors import FarmhandError, NotConfigured
from farmhand.core.files import xdg
from farmhand.cost import schema
from farmhand.cost.rows import BadLedger, FinishedTask, LedgerCharge

#: Rows of one transaction: enough to be fast, few enough to stay small in memory.
CHUNK = 10_000
_BUSY_S = 60.0
#: SQLite's name for a database that is no file.
_IN_MEMORY = ":memory:"
#: Pico-dollars of one host, US$ 500,000: more is no farm's, and would overflow what SQLite sums for all of them.
MOST_PICO = 5 * 10**17


class StoreDamaged(FarmhandError):
    """The file is no store, or a broken one."""

    code = "cost_store"


def default_path() -> Path:
    """`$XDG_STATE_HOME/farmhand/cost.db`, where it is set, else below ~/.local/state."""
    return Path(xdg("XDG_STATE_HOME"), "farmhand", "cost.db")


class CostStore:
    """The store in the file at `path`, made when missing (0600, its directory 0700).

    `breaks`: the prompt lengths, in tokens, at which some price that a figure may ask for changes. With others than the
    file was made with, its sums are made again from its rows. Raises NotConfigured or StoreDamaged.
    """

    def __init__(self, path: Path, breaks: Iterable[int] = ()) -> None:
        if path.name == _IN_MEMORY:
            # SQLite would keep it in memory, and the empty file that is made first would stay.
            raise NotConfigured(f"the cost store {path} is no file", hint="give a file's name")
        self.path = path
        self.breaks = tuple(sorted({edge for edge in breaks if edge >= 0}))
        self._words: dict[str, int] = {}
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self.db = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_S)
        except (OSError, sqlite3.OperationalError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise NotConfigured(f"the cost store {path} cannot be opened: {reason}", hint="see --store") from None
        with self._whole():
            self.db.execute("PRAGMA journal_mode = WAL")
            self.db.execute("PRAGMA synchronous = NORMAL")
            self._prepare()

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Turn what SQLite finds wrong with the file into one line."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            hint = "make room, or move the file away: it is merged again from the hosts"
            raise StoreDamaged(f"the cost store {self.path} cannot be used: {error}", hint=hint) from None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing."""
        with self._whole():
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                self._words.clear()  # some may have been new
                raise

    def _prepare(self) -> None:
        version: int = self.db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, schema.SCHEMA_VERSION):
            message = f"the cost store {self.path} has version {version}, this farmhand knows {schema.SCHEMA_VERSION}"
            raise StoreDamaged(message, hint="upgrade farmhand")
        self.db.execute("BEGIN IMMEDIATE")
        if self.db.execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in schema.TABLES.split(";"):
                self.db.execute(statement)
            self.db.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION}")
        for statement in schema.LATER.split(";"):
            self.db.execute(statement)
        wanted = ",".join(map(str, self.breaks))
        known = self.db.execute("SELECT value FROM meta WHERE name = 'breaks'").fetchone()
        if known is None or known[0] != wanted:
            self._sum_again()
            self.db.execute("REPLACE INTO meta VALUES ('breaks', ?)", (wanted,))
        self.db.execute("COMMIT")
        for table in ("charge", "done"):
            self.db.execute(f"CREATE TEMP TABLE new_{table} AS SELECT * FROM {table} WHERE false")  # noqa: S608

    def _sum_again(self) -> None:
        for table in ("spend", "spend_label", "work", "work_label"):
            self.db.execute(f"DELETE FROM {table}")  # noqa: S608  (names from the line above)
        for statement in (*schema.add_charges("charge", self.breaks), *schema.add_done("done")):
            self.db.execute(statement)

    def ledger(self, uuid: str, host: str) -> tuple[int, int, int]:
        """(number, last charge, last finished task) of the ledger that calls itself `uuid`, now on `host`."""
        with self._whole():
            self.db.execute(
                "INSERT INTO ledger (uuid, host) VALUES (?, ?) ON CONFLICT (uuid) DO UPDATE SET host = excluded.host",
                (uuid, host),
            )
            query = "SELECT id, charge_no, done_no FROM ledger WHERE uuid = ?"
            number, charge_no, done_no = self.db.execute(query, (uuid,)).fetchone()
        return int(number), int(charge_no), int(done_no)

    def merged(self, ledger: int, at: float, budget: str | None) -> None:
        """Note that all of a ledger was merged `at` (Unix seconds), and its day budget then (JSON)."""
        with self._whole():
            self.db.execute("UPDATE ledger SET merged_at = ?, budget = ? WHERE id = ?", (at, budget, ledger))

    def merge_charges(self, ledger: int, charges: Iterable[LedgerCharge]) -> int:
        """Add charges of a ledger; those that are there already change nothing. How many came, old and new."""
        return self._merge(ledger, charges, "charge", self._charge, schema.add_charges("new_charge", self.breaks))

    def merge_done(self, ledger: int, tasks: Iterable[FinishedTask]) -> int:
        """Add finished tasks of a ledger; those that are there already change nothing. How many came, old and new."""
        return self._merge(ledger, tasks, "done", self._done, schema.add_done("new_done"))

    def _merge(
        self, ledger: int, rows: Iterable[Any], table: str, values: Callable[[int, Any], tuple[Any, ...]],
        sums: tuple[str, str],
    ) -> int:  # fmt: skip
        came = 0
        for chunk in _chunks(rows):
            with self.transaction() as db:
                if table == "charge":
                    self._check_sum(ledger, sum(row.cost_pico or 0 for row in chunk))
                self._chunk([values(ledger, row) for row in chunk], table, sums)
                if table == "done":
                    self._bound(ledger, chunk)
                cursor = f"{table}_no"
                db.execute(
                    f"UPDATE ledger SET {cursor} = max({cursor}, ?) WHERE id = ?",  # noqa: S608
                    (max(row.number for row in chunk), ledger),
                )
            came += len(chunk)
        return came

    def _check_sum(self, ledger: int, more: int) -> None:
        query = (
            "SELECT total(pico) FROM spend WHERE ledger IN"
            " (SELECT id FROM ledger WHERE host = (SELECT host FROM ledger WHERE id = ?))"
        )
        if self.db.execute(query, (ledger,)).fetchone()[0] + more > MOST_PICO:
            raise BadLedger(f"its charges come to more than US$ {MOST_PICO // 10**12}, which nobody believes")

    def _chunk(self, rows: list[tuple[Any, ...]], table: str, sums: tuple[str, str]) -> None:
        new = f"new_{table}"
        marks = ", ".join("?" * len(rows[0]))
        self.db.execute(f"DELETE FROM {new}")  # noqa: S608
        # The same number twice in one chunk is the same row twice.
        seen = {row[1]: row for row in rows}
        self.db.executemany(f"INSERT INTO {new} VALUES ({marks})", seen.values())  # noqa: S608
        known = f"SELECT 1 FROM {table} WHERE {table}.ledger = {new}.ledger AND {table}.no = {new}.no"  # noqa: S608
        self.db.execute(f"DELETE FROM {new} WHERE EXISTS ({known})")  # noqa: S608
        self.db.execute(f"INSERT INTO {table} SELECT * FROM {new}")  # noqa: S608
        for statement in sums:
            self.db.execute(statement)

    def _bound(self, ledger: int, tasks: Iterable[FinishedTask]) -> None:
        """Note what their uncertain requests may have cost."""
        rows = [
            (ledger, task.done_no, int(task.finished_at // 86_400), task.uncertain, task.uncertain_pico)
            for task in tasks
            if task.uncertain
        ]
        self.db.executemany("INSERT OR IGNORE INTO bound VALUES (?, ?, ?, ?, ?)", rows)

    def upper_bound(self, since_day: int, uncertain: int) -> int | None:
        """The pico-dollars that the `uncertain` requests since a day may have cost at the most; None: not known."""
        query = "SELECT total(requests), total(pico), count(*) = count(pico) FROM bound WHERE day >= ?"
        requests, pico, known = self.rows(query, (since_day,))[0]
        return int(pico) if known and requests == uncertain else None

    def _charge(self, ledger: int, row: LedgerCharge) -> tuple[Any, ...]:
        word = self.word
        texts = (row.batch, row.work_class, row.label_text, row.price_version or "")
        return (
            *(ledger, row.no, row.created_at, word(row.model), word(row.engine), int(row.economy)),
            *map(word, texts),
            row.requests,
            *row.tokens,
            row.cost_pico,
        )

    def _done(self, ledger: int, row: FinishedTask) -> tuple[Any, ...]:
        texts = (row.outcome, row.error or "", row.model, row.engine, row.batch, row.work_class, row.label_text)
        return (
            *(ledger, row.done_no, row.id, row.created_at, row.started_at, row.finished_at),
            *map(self.word, texts),
            *(row.attempts, row.retries, row.uncertain, row.requests),
            *row.tokens,
            row.cost_pico,
        )

    def word(self, text: str) -> int:
        """The number of a text, a new one where it has none."""
        number = self._words.get(text)
        if number is None:
            self.db.execute("INSERT OR IGNORE INTO word (text) VALUES (?)", (text,))
            number = int(self.db.execute("SELECT id FROM word WHERE text = ?", (text,)).fetchone()[0])
            if len(self._words) >= CHUNK:
                self._words.clear()
            self._words[text] = number
        return number

    def rows(self, query: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query that reads."""
        with self._whole():
            return self.db.execute(query, tuple(values)).fetchall()


def _chunks(rows: Iterable[Any]) -> Iterator[list[Any]]:
    """`rows` in lists of CHUNK."""
    source = iter(rows)
    while chunk := list(islice(source, CHUNK)):
        yield chunk
