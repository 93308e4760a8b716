"""The workstation's copy of the hosts' last tasks: one SQLite file, with what was asked and what was answered.

It is private to the operator (0600, in a directory of 0700) and holds no key. What a host has deleted goes here too,
from the file and not only from the tables. It is a copy: a file that cannot be used is begun anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from farmhand.core.errors import NotConfigured
from farmhand.core.files import held_by_another, xdg
from farmhand.core.ids import again_id, line_key
from farmhand.core.keys import redact
from farmhand.core.rules import by_shared_budget

#: The most tasks that are kept of one ledger.
KEPT = 10_000
_DAY_S = 86_400.0
_BUSY_S = 30.0
_VERSION = 2
_TABLES = """
CREATE TABLE ledger (
    id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, farm TEXT NOT NULL, host TEXT NOT NULL,
    next INTEGER NOT NULL DEFAULT 0, asked_at REAL, retention_days REAL, history_days REAL
);
CREATE TABLE task (
    no INTEGER PRIMARY KEY, ledger INTEGER NOT NULL REFERENCES ledger (id), id TEXT NOT NULL, state TEXT NOT NULL,
    batch TEXT NOT NULL, created_at REAL NOT NULL, finished_at REAL, content TEXT NOT NULL,
    line TEXT NOT NULL, held INTEGER NOT NULL,
    about TEXT NOT NULL, prompt TEXT NOT NULL, spec TEXT NOT NULL, answer TEXT NOT NULL, UNIQUE (ledger, id)
);
CREATE INDEX task_id ON task (id);
CREATE INDEX task_new ON task (ledger, created_at DESC);
CREATE INDEX task_batch ON task (batch, created_at DESC) WHERE batch != '';
CREATE INDEX task_line ON task (batch, line) WHERE batch != '';
CREATE INDEX task_failed ON task (created_at DESC) WHERE state = 'failed';
CREATE INDEX task_open ON task (ledger) WHERE finished_at IS NULL;
CREATE INDEX task_kept ON task (ledger, finished_at) WHERE content != 'gone';
CREATE TABLE label (
    name TEXT NOT NULL, value TEXT NOT NULL, task INTEGER NOT NULL REFERENCES task (no) ON DELETE CASCADE,
    PRIMARY KEY (name, value, task)
) WITHOUT ROWID;
CREATE INDEX label_task ON label (task);
"""
#: A task for which a budget had no room goes on under another id: this row says no more then. A line of a batch may do
#: so often, a task of its own once.
_LAST_OF_LINE = (
    "NOT (held AND batch != '' AND EXISTS (SELECT 1 FROM task AS other WHERE other.batch = task.batch"
    " AND other.batch != '' AND other.line = task.line"
    " AND (other.created_at, other.no) > (task.created_at, task.no)))"
    " AND NOT (held AND batch = '' AND EXISTS (SELECT 1 FROM task AS other WHERE other.ledger = task.ledger"
    " AND other.id = task.id || '.r1'))"
)
#: The parts of a task that go with its content.
_ANSWER = ("text", "structured", "error")
_SELECT = (
    "SELECT host, farm, asked_at, retention_days, about, prompt, spec, answer, content"
    " FROM task JOIN ledger ON ledger.id = task.ledger WHERE"
)


class PastTaskCopy(NamedTuple):
    """A task: its host, the time of the copy (Unix seconds), its result as on the wire, and as it was submitted.

    `spec` is None where its content is gone. `retention_days` is how long the host keeps the content.
    """

    host: str
    farm: str
    copied_at: float
    retention_days: float
    result: dict[str, Any]
    spec: dict[str, Any] | None

    @property
    def id(self) -> str:
        """Return the task's id."""
        return str(self.result["id"])

    @property
    def whole(self) -> bool:
        """Return whether prompt and answer are here as they were."""
        return bool(self.result["content"] == "kept")


#: SQLite's name for a database without a file.
_MEMORY = ":memory:"


class TaskFilter(NamedTuple):
    """Which tasks are listed. `grep` is searched for in prompts, in any case; `since` is in Unix seconds."""

    failed: bool = False
    batch: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    since: float = 0.0
    grep: str = ""


def default_path() -> Path:
    """Return the path of the copy below XDG_STATE_HOME."""
    return Path(xdg("XDG_STATE_HOME"), "farmhand", "history.db")


class CopyUnusable(NotConfigured):
    """The file of the copy cannot be used: its place is full or read-only, or it was damaged."""


class HistoryStore:
    """The copy in the file at `path`, in memory without one. Raises CopyUnusable."""

    def __init__(self, path: Path | None) -> None:
        self.path = path or Path(_MEMORY)
        try:
            if path is not None:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                self.db = self._open()
            except sqlite3.DatabaseError as error:
                if not _damaged(error):
                    raise
                self._remove()
                self.db = self._open()
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from None

    def _open(self) -> sqlite3.Connection:
        if str(self.path) != _MEMORY:
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            os.chmod(self.path, 0o600)
        with contextlib.ExitStack() as stack:
            db = stack.enter_context(
                closing(sqlite3.connect(self.path, isolation_level=None, timeout=_BUSY_S, check_same_thread=False))
            )
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA secure_delete = ON")
            db.create_function("has", 2, lambda text, part: part in text.casefold(), deterministic=True)
            db.execute("BEGIN IMMEDIATE")
            if db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                    db.execute(f'DROP TABLE "{name}"')
                for statement in _TABLES.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_VERSION}")
            db.execute("COMMIT")
            stack.pop_all()
            return db

    def _remove(self) -> None:
        for suffix in ("", "-journal", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.path}{suffix}")

    def _unusable(self, error: OSError | sqlite3.Error) -> CopyUnusable:
        if _damaged(error):
            self._remove()
            why = f"the copy of the history {self.path} was damaged ({error}) and is deleted"
            return CopyUnusable(why, hint="the same command again copies it anew")
        why = (isinstance(error, OSError) and error.strerror) or str(error)
        hint = "make room and the directory writable; the file may be deleted: it is only a copy"
        if held_by_another(error):
            why, hint = "another process holds it", "try again once that has ended"
        return CopyUnusable(f"the copy of the history {self.path} cannot be used: {why}", hint=hint)

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self.db.execute("BEGIN IMMEDIATE")
            yield self.db
            self.db.execute("COMMIT")
        except BaseException as error:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self._unusable(error) from None
            raise

    def _rows(self, query: str, values: Any = ()) -> list[sqlite3.Row]:
        try:
            return self.db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    # --- copying ------------------------------------------------------------------------------------------------------

    def next_of(self, farm: str, host: str) -> tuple[str, int]:
        """Return the host's last ledger ("" for none), and the number after which its copy goes on."""
        query = "SELECT uuid, next FROM ledger WHERE farm = ? AND host = ? ORDER BY asked_at DESC LIMIT 1"
        rows = self._rows(query, (farm, host))
        return (str(rows[0]["uuid"]), int(rows[0]["next"])) if rows else ("", 0)

    def add(self, farm: str, host: str, page: dict[str, Any], *, last: bool) -> None:
        """Add a page of a host's history; `last`: the copy is complete with it, and so are its unfinished tasks."""
        with self._transaction() as db:
            ledger = self._ledger(db, farm, host, page)
            if last:
                db.execute("DELETE FROM task WHERE ledger = ? AND finished_at IS NULL", (ledger,))
            for task in (*(page.get("unfinished") or ()), *page["tasks"]):
                _put(db, ledger, task)
            if "next" in page:
                db.execute("UPDATE ledger SET next = ? WHERE id = ?", (page["next"], ledger))
            if last:
                db.execute("UPDATE ledger SET asked_at = ? WHERE id = ?", (time.time(), ledger))
            _empty(db, ledger, page["kept_since"])
            over = "SELECT no FROM task WHERE ledger = ? ORDER BY created_at DESC LIMIT -1 OFFSET ?"
            db.execute(f"DELETE FROM task WHERE no IN ({over})", (ledger, KEPT))  # noqa: S608  (our own words)

    def _ledger(self, db: sqlite3.Connection, farm: str, host: str, page: dict[str, Any]) -> int:
        return int(
            db.execute(
                "INSERT INTO ledger (uuid, farm, host, retention_days, history_days) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (uuid) DO UPDATE SET farm = excluded.farm, host = excluded.host,"
                " retention_days = excluded.retention_days, history_days = excluded.history_days RETURNING id",
                (page["ledger"], farm, host, page["retention_days"], page["history_days"]),
            ).fetchone()[0]
        )

    def expire(self) -> None:
        """Delete what the hosts keep no longer, by the days that they last said: they may be down."""
        now = time.time()
        with self._transaction() as db:
            for row in db.execute("SELECT id, retention_days, history_days FROM ledger").fetchall():
                _empty(db, row["id"], now - row["retention_days"] * _DAY_S)
                old = now - row["history_days"] * _DAY_S
                db.execute(
                    "DELETE FROM task WHERE ledger = ? AND created_at < ? AND finished_at < ?", (row["id"], old, old)
                )

    # --- reading ------------------------------------------------------------------------------------------------------

    def copies(self, farm: str) -> dict[str, float]:
        """Return host → when it was last copied (Unix seconds)."""
        query = "SELECT host, max(asked_at) FROM ledger WHERE farm = ? AND asked_at > 0 GROUP BY host"
        return {row[0]: float(row[1]) for row in self._rows(query, (farm,))}

    def find(self, start: str, farms: dict[str, str]) -> list[PastTaskCopy]:
        """Return the tasks with the id `start`, or else some whose ids begin with it, the newest first."""
        rows = self._rows(f"{_SELECT} task.id = ? ORDER BY created_at DESC", (start,))
        if not rows:  # ids are ASCII
            rows = self._rows(f"{_SELECT} task.id > ? AND task.id < ? LIMIT 20", (start, f"{start}~"))
        return [task for task in map(_copy, rows) if farms.get(task.host) == task.farm]

    def attempts(self, task: PastTaskCopy, farms: dict[str, str]) -> list[PastTaskCopy]:
        """Return the attempts of the task, or of a line of a batch: the one that answered first, else the last.

        The others follow, the newest first.
        """
        batch, first = task.result.get("batch"), task.id.removesuffix(".r1")
        which, values = ("batch = ? AND line = ?", (batch, line_key(task.id)))
        if not batch:
            which, values = "batch = '' AND task.id IN (?, ?)", (first, again_id(first, 1))
        query = f"{_SELECT} {which} ORDER BY state = 'succeeded' DESC, created_at DESC, no DESC"
        found = map(_copy, self._rows(query, values))
        attempts = [one for one in found if farms.get(one.host) == one.farm]
        return attempts if batch or any(was_held(one.result) for one in attempts) else [task]

    def list(self, wanted: TaskFilter, farms: dict[str, str], limit: int) -> list[PastTaskCopy]:
        """Return up to `limit` tasks, the newest first. `farms` has the farm of each host that is of interest.

        Of a line of a batch that waited for room in a budget only the last attempt is one.
        """
        known = self._rows("SELECT id, host, farm FROM ledger")
        ledgers = [row["id"] for row in known if farms.get(row["host"]) == row["farm"]]
        terms, values = [f"ledger IN ({', '.join('?' * len(ledgers))})", "created_at >= ?"], [*ledgers, wanted.since]
        terms.append(_LAST_OF_LINE)
        if wanted.failed:
            terms.append("state = 'failed'")
        if wanted.batch:
            terms.append("batch = ? AND batch != ''")
            values.append(wanted.batch)
        for pair in wanted.labels:
            terms.append("no IN (SELECT task FROM label WHERE name = ? AND value = ?)")
            values += pair
        if wanted.grep:
            terms.append("has(prompt, ?)")
            values.append(wanted.grep.casefold())
        found = f"SELECT no FROM task WHERE {' AND '.join(terms)} ORDER BY created_at DESC, no DESC LIMIT ?"  # noqa: S608
        rows = self._rows(f"{_SELECT} no IN ({found}) ORDER BY created_at DESC, no DESC", [*values, limit])
        return [_copy(row) for row in rows]


def _damaged(error: Exception) -> bool:
    """Return whether SQLite says that the file is none of its own any more."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def _put(db: sqlite3.Connection, ledger: int, task: dict[str, Any]) -> None:
    """Insert a task, in place of what is there of it. No key gets into the file, whatever the host says."""
    spec = dict(task.get("spec") or {})
    prompt = str(spec.pop("prompt", ""))
    about = {name: value for name, value in task.items() if name not in ("spec", *_ANSWER)}
    answer = {name: task[name] for name in _ANSWER if task.get(name) is not None}
    texts = [redact(json.dumps(part, ensure_ascii=False)) for part in (about, spec, answer)]
    db.execute("DELETE FROM task WHERE ledger = ? AND id = ?", (ledger, task["id"]))
    no = db.execute(
        "INSERT INTO task (ledger, id, state, batch, created_at, finished_at, content, line, held, about, spec, answer,"
        " prompt) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(ledger, task["id"], task["state"], task.get("batch") or "", task["created_at"]),
            *(task.get("finished_at"), task["content"], line_key(task["id"]), was_held(task), *texts, redact(prompt)),
        ),
    ).lastrowid
    labels = (task.get("labels") or {}).items()
    db.executemany("INSERT INTO label VALUES (?, ?, ?)", [(redact(name), redact(value), no) for name, value in labels])


def _empty(db: sqlite3.Connection, ledger: int, before: float) -> None:
    """Delete the content of a ledger's tasks that ended before `before` (Unix seconds)."""
    db.execute(
        "UPDATE task SET content = 'gone', prompt = '', spec = '{}', answer = '{}'"
        " WHERE ledger = ? AND content != 'gone' AND finished_at < ?",
        (ledger, before),
    )


def was_held(task: dict[str, Any]) -> bool:
    """Return whether the task was not begun, since a budget had no room for it: of a line of a batch, not its own."""
    error = task.get("error") or {}
    if error.get("code") != "budget" or (task.get("usage") or {}).get("requests"):
        return False
    return not task.get("batch") or by_shared_budget(error)


def _copy(row: sqlite3.Row) -> PastTaskCopy:
    result = json.loads(row["about"]) | json.loads(row["answer"]) | {"content": row["content"]}
    spec = None if row["content"] == "gone" else json.loads(row["spec"]) | {"prompt": row["prompt"]}
    return PastTaskCopy(row["host"], row["farm"], row["asked_at"] or 0.0, row["retention_days"], result, spec)
