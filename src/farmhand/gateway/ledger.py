"""`gateway.db`: what was decided and what it cost. It has no text of a prompt: a decision is made of facts.

A thread writes, in batches, so the event loop never waits for the disk. What is still waiting when the process is
killed is lost; a caller that must know waits for the future that it gets, as one that pays does before it asks. The
decisions are a ring of `MOST` rows and `KEPT_DAYS` days; charges stay until they are older than `CHARGES_DAYS`, since
sums are made of them elsewhere.
"""

# ruff: noqa: S608  (what is put into SQL here are our own words)
from __future__ import annotations

import logging
import os
import queue
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from farmhand.core.errors import NotConfigured
from farmhand.core.files import xdg
from farmhand.core.task import Usage
from farmhand.gateway.locking import lock
from farmhand.gateway.policy import Rule
from farmhand.gateway.turn import BackendState, Decision, Residency

log = logging.getLogger("farmhand-gateway")
SCHEMA_VERSION = 1
MOST = 10_000
KEPT_DAYS = 30
CHARGES_DAYS = 400
#: Rows that may wait for the disk. Decisions above that are dropped and counted; charges are not.
_WAITING = 20_000
_BATCH = 500
#: Seconds that the writer collects rows, and between two looks at what is too old.
_COLLECT_S = 0.05
_TRIM_S = 600.0
_BUSY_S = 10.0
_DAY_S = 86_400.0
_COUNTS = tuple(name for name in Usage.__struct_fields__ if name != "requests")
#: `meta.id` names this ledger for what merges ledgers; `charge_id` is a charge's place in it. `pico` is NULL if the
#: cost is unknown, which is never zero. `given` is the record as JSON: see `DecisionRecord`.
#: `held` is what may have been charged beside `pico`. `list_pico` is what a local turn would have cost by `list_model`.
_TABLES = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('id', lower(hex(randomblob(16))));
CREATE TABLE decision (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, at REAL NOT NULL, work_class TEXT NOT NULL,
    background INTEGER NOT NULL, tokens INTEGER NOT NULL, backend TEXT NOT NULL, residency TEXT, code TEXT NOT NULL,
    given BLOB NOT NULL
);
CREATE INDEX decision_at ON decision (at);
CREATE TABLE charge (
    charge_id INTEGER PRIMARY KEY AUTOINCREMENT, decision TEXT NOT NULL, created_at REAL NOT NULL,
    model TEXT NOT NULL, work_class TEXT NOT NULL, residency TEXT NOT NULL, backend TEXT NOT NULL,
    labels TEXT NOT NULL, status INTEGER NOT NULL, outcome TEXT NOT NULL, seconds REAL NOT NULL, pico INTEGER,
    price_version TEXT NOT NULL, terms TEXT NOT NULL, held INTEGER NOT NULL, request_id TEXT NOT NULL,
    list_model TEXT NOT NULL, list_pico INTEGER, {", ".join(f"{name} INTEGER NOT NULL" for name in _COUNTS)}
);
CREATE INDEX charge_at ON charge (created_at);
CREATE INDEX charge_decision ON charge (decision);
CREATE TABLE allowance (
    id TEXT PRIMARY KEY, at REAL NOT NULL, until REAL NOT NULL, classes TEXT NOT NULL, pico INTEGER NOT NULL,
    ended_at REAL, spent INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""
#: The outcome of a turn that is being paid for, and of one whose process was killed meanwhile.
OPEN, LOST = "open", "lost"


class DecisionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A decision with all that it was made of, so that it can be made again. `at` is in Unix seconds."""

    at: float
    decision: Decision
    states: tuple[BackendState, ...]
    rules: tuple[Rule, ...]
    last: str = ""


class TurnCharge(msgspec.Struct, frozen=True, kw_only=True):
    """What a turn used. `pico` is its cost in pico-dollars, None if it is not known; `seconds` is the whole time.

    `outcome` is `done`, `cancelled` (the client left), `refused` or `failed`; of a metered turn `open` until its end,
    and `lost` if the process was killed before. `terms` has what made the cost or the counts other than usual, such as
    `estimated`. Labels are the operator's: client, project. `held` is what may have been charged beside `pico`, at the
    most. `list_pico` is what a local turn would have cost with `list_model`, at list price.
    """

    decision: str
    created_at: float
    model: str
    work_class: str
    residency: Residency
    backend: str
    usage: Usage = msgspec.field(default_factory=Usage)
    status: int = 200
    outcome: str = "done"
    seconds: float = 0.0
    pico: int | None = None
    price_version: str = ""
    terms: str = ""
    held: int = 0
    request_id: str = ""
    list_model: str = ""
    list_pico: int | None = None
    labels: dict[str, str] = {}


class _Write(NamedTuple):
    statement: str
    values: tuple[Any, ...]
    done: Future[None]


_ID = re.compile(r"(?:fh-)?([0-9a-f]{1,10})")
_record = msgspec.json.Decoder(DecisionRecord)
_DECIDED = "INSERT OR REPLACE INTO decision VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PLAIN = tuple(name for name in TurnCharge.__struct_fields__ if name not in ("labels", "usage"))
_COLUMNS = (*_PLAIN, "labels", *_COUNTS)
_CHARGED = f"INSERT INTO charge ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_ENDED = f"UPDATE charge SET {', '.join(f'{name} = ?' for name in _COLUMNS)} WHERE decision = ? AND outcome IN (?, ?)"


def default_path() -> Path:
    """Return `$XDG_STATE_HOME/farmhand/gateway.db`, or the same below ~/.local/state."""
    return Path(xdg("XDG_STATE_HOME"), "farmhand", "gateway.db")


def new_id() -> str:
    """Return the id of a decision: `fh-` and ten hex digits."""
    return f"fh-{os.urandom(5).hex()}"


class GatewayLedger:
    """The ledger in the file at `path`, which is created if missing (0600, its directory 0700).

    Raise NotConfigured if it cannot be used. `lost` counts decisions that were not written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0
        #: Gets each charge as well.
        self.heard: Callable[[TurnCharge], None] = lambda _: None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            self._db = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_S, check_same_thread=False)
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            hint = "if it is damaged, move it away: a new one is begun"
            raise NotConfigured(f"the gateway's ledger {path} cannot be used: {reason}", hint=hint) from None
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        #: Set by what is urgent, and at the end.
        self._hurry = threading.Event()
        self._writer = threading.Thread(target=self._write, name="gateway-ledger", daemon=True)
        self._writer.start()

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("BEGIN IMMEDIATE")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            message = f"the gateway's ledger {self.path} has version {version}, this farmhand knows {SCHEMA_VERSION}"
            raise NotConfigured(message, hint="upgrade farmhand")
        if version == 0:
            for statement in _TABLES.split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        if (alone := lock(self.path)) is not None:
            # Nobody can say any more what became of them: what was held for them stays held.
            self._db.execute("UPDATE charge SET outcome = ? WHERE outcome = ?", (LOST, OPEN))
            self._db.execute("UPDATE allowance SET ended_at = ? WHERE ended_at IS NULL", (time.time(),))
            os.close(alone)
        self._db.execute("COMMIT")

    def decided(self, record: DecisionRecord) -> Future[None]:
        """Write a decision soon. The future is done once it is in the file."""
        facts, decision = record.decision.facts, record.decision
        code = "" if decision.backend or not decision.refusals else decision.refusals[0].reason.code
        about = (facts.work_class, facts.background, facts.tokens, decision.backend, decision.residency, code)
        if self._waiting.qsize() >= _WAITING:
            self.lost += 1
            dropped: Future[None] = Future()
            dropped.set_exception(queue.Full("the disk is too slow for the ledger"))
            return dropped
        return self.put(_DECIDED, (decision.id, record.at, *about, msgspec.json.encode(record)))

    def charged(self, charge: TurnCharge) -> Future[None]:
        """Write what a turn used soon. The future is done once it is in the file, or has the error."""
        self.heard(charge)
        return self.put(_CHARGED, _values(charge))

    def begun(self, charge: TurnCharge) -> Future[None]:
        """Write at once what a turn may cost, before it is sent: `held` of the outcome `open`."""
        return self.put(_CHARGED, _values(charge), urgent=True)

    def held(self, decision: str, pico: int) -> Future[None]:
        """Write at once what an open turn may cost by now."""
        query = "UPDATE charge SET held = ? WHERE decision = ? AND outcome = ?"
        return self.put(query, (pico, decision, OPEN), urgent=True)

    def settled(self, charge: TurnCharge) -> Future[None]:
        """Write at once what an open turn came to."""
        self.heard(charge)
        return self.put(_ENDED, (*_values(charge), charge.decision, OPEN, LOST), urgent=True)

    def keep(self, name: str, value: str) -> Future[None]:
        """Keep a text by a name: see `kept`."""
        return self.put("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def spent(self, since: float, until: float, label: str = "") -> int:
        """Return the pico-dollars that were, or may have been, charged in this time. Raise NotConfigured.

        `label` is such as `project:website`; "" for all turns.
        """
        query = (
            "SELECT sum(coalesce(pico, 0) + held) FROM charge WHERE residency = 'metered' AND created_at >= ?"
            " AND created_at < ?"
        )
        name, _, value = label.partition(":")
        of_label = " AND labels != '' AND json_extract(labels, ?) = ?" if label else ""
        values = (f"$.{name}", value) if label else ()
        [(found,)] = _rows(self.path, query + of_label, since, until, *values)
        return int(found or 0)

    def flush(self) -> None:
        """Wait until everything is in the file that was given before."""
        with suppress(sqlite3.Error):
            self.put("SELECT 1", ()).result()

    def close(self) -> None:
        """Write what waits, and close the file. Nothing may be given to it after that."""
        self._waiting.put(None)
        self._hurry.set()
        self._writer.join()
        self._db.close()

    def put(self, statement: str, values: tuple[Any, ...], *, urgent: bool = False) -> Future[None]:
        """Run a statement soon, or at once if it is urgent. The future is done once it is in the file."""
        done: Future[None] = Future()
        # Who waits for it may leave. It is written all the same, and cannot be cancelled.
        done.set_running_or_notify_cancel()
        self._waiting.put(_Write(statement, values, done))
        if urgent:
            self._hurry.set()
        return done

    def _write(self) -> None:
        """Run the writing thread: a transaction for all that came within `_COLLECT_S`.

        It sleeps meanwhile: a thread that wakes for each row takes the interpreter from the event loop each time. What
        is urgent wakes it, and takes along what waits.
        """
        trimmed = -_TRIM_S
        while (first := self._waiting.get()) is not None:
            batch, ended = [first], False
            if self._waiting.qsize() < _BATCH:
                self._hurry.wait(_COLLECT_S)
            self._hurry.clear()
            while len(batch) < _BATCH and not ended:
                try:
                    more = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    ended = True
                else:
                    batch.append(more)
            due = time.monotonic() - trimmed >= _TRIM_S
            trimmed = time.monotonic() if due else trimmed
            self._commit(batch, due)
            if ended:
                return

    def _commit(self, batch: Sequence[_Write], due: bool) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for write in batch:
                self._db.execute(write.statement, write.values)
            self._db.execute("DELETE FROM decision WHERE number <= (SELECT max(number) FROM decision) - ?", (MOST,))
            if due:
                now = time.time()
                self._db.execute("DELETE FROM decision WHERE at < ?", (now - KEPT_DAYS * _DAY_S,))
                self._db.execute("DELETE FROM charge WHERE created_at < ?", (now - CHARGES_DAYS * _DAY_S,))
            self._db.execute("COMMIT")
        except Exception as error:
            # A row that SQLite cannot take raises errors of several types. The thread goes on for the others.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if len(batch) > 1:
                for write in batch:
                    self._commit([write], False)
                return
            self.lost += 1
            log.error("the ledger %s cannot be written: %s", self.path, error)
            batch[0].done.set_exception(error)
            return
        for write in batch:
            write.done.set_result(None)


def read(path: Path, name: str = "") -> DecisionRecord | None:
    """Return the record of the decision `name`, which may be cut short if it stays unique; of the last one for "".

    None if there is none, or if there are several. Raise NotConfigured if there is no ledger that can be read.
    """
    match = _ID.fullmatch(name)
    if name and match is None:
        return None
    query = "SELECT given FROM decision WHERE id LIKE ? ORDER BY number DESC LIMIT 2"
    found = _records(path, query, f"fh-{match[1]}%" if match else "%")
    return found[0] if found and (not name or len(found) == 1) else None


def recent(path: Path, number: int = 20) -> list[DecisionRecord]:
    """Return the last decisions, the newest first. Raise NotConfigured."""
    return _records(path, "SELECT given FROM decision ORDER BY number DESC LIMIT ?", number)


def charges(path: Path, decision: str) -> list[TurnCharge]:
    """Return what the answers to a decision used, in their order; none for advice. Raise NotConfigured."""
    rows = _rows(path, f"SELECT {', '.join(_COLUMNS)} FROM charge WHERE decision = ?", decision)
    return [_charge(row) for row in rows]


def charged_after(path: Path, number: int, most: int) -> list[tuple[int, TurnCharge]]:
    """Return up to `most` ended charges after the number `number`, with their numbers. Raise NotConfigured."""
    query = (
        f"SELECT charge_id, {', '.join(_COLUMNS)} FROM charge WHERE charge_id > ? AND charge_id <"
        f" coalesce((SELECT min(charge_id) FROM charge WHERE outcome = '{OPEN}'), 1 << 62) ORDER BY charge_id LIMIT ?"
    )
    return [(row[0], _charge(row[1:])) for row in _rows(path, query, number, most)]


def kept(path: Path, name: str) -> str:
    """Return what is kept by this name, such as `id`, that of the ledger; "" if nothing is. Raise NotConfigured."""
    found = _rows(path, "SELECT value FROM meta WHERE name = ?", name)
    return str(found[0][0]) if found else ""


def _values(charge: TurnCharge) -> tuple[Any, ...]:
    labels = msgspec.json.encode(charge.labels, order="sorted").decode() if charge.labels else ""
    plain = (getattr(charge, name) for name in _PLAIN)
    return (*plain, labels, *(getattr(charge.usage, name) for name in _COUNTS))


def _charge(row: tuple[Any, ...]) -> TurnCharge:
    return TurnCharge(
        **dict(zip(_PLAIN, row, strict=False)),
        labels=msgspec.json.decode(row[len(_PLAIN)] or "{}"),
        usage=Usage(**dict(zip(_COUNTS, row[len(_PLAIN) + 1 :], strict=True))),
    )


def _records(path: Path, query: str, value: str | int) -> list[DecisionRecord]:
    try:
        return [_record.decode(given) for (given,) in _rows(path, query, value)]
    except msgspec.DecodeError as error:
        raise NotConfigured(f"the gateway's ledger {path} cannot be read: {error}") from None


def _rows(path: Path, query: str, *values: str | float) -> list[tuple[Any, ...]]:
    try:
        if not path.exists():
            raise NotConfigured(f"there is no ledger {path}", hint="the gateway begins it when it starts")
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)) as db:
            return db.execute(query, values).fetchall()
    except (OSError, sqlite3.Error) as error:
        raise NotConfigured(f"the gateway's ledger {path} cannot be read: {error}") from None
