"""A ledger whose file is damaged: noticed on every connection, by whatever touches it, and reported once.

SQLite has no way on from there. What it still accepts could be lost or wrong, and every answer is paid for: so the
agent ends, and the operator goes the way that docs/operations.md shows.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from farmhand.core.errors import FarmhandError

#: EX_DATAERR of sysexits.h. The unit of the agent names it: systemd does not start the agent again by itself.
EXIT_DAMAGED = 65
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
#: Of the failures of a file system those that room on the disk does not mend. After a failed sync nobody knows what is
#: on the disk.
_UNREADABLE = frozenset(
    {
        sqlite3.SQLITE_IOERR_READ,
        sqlite3.SQLITE_IOERR_SHORT_READ,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_DIR_FSYNC,
        sqlite3.SQLITE_IOERR_MMAP,
        sqlite3.SQLITE_IOERR_CORRUPTFS,
        sqlite3.SQLITE_IOERR_DATA,
    }
)
_OPERATIONS_PER_BEAT = 1_000_000


class LedgerStuck(FarmhandError):
    """The ledger cannot be written for now, as on a full disk; nothing has changed in it."""

    code = "ledger_stuck"

    def __init__(self, message: str, *, hint: str = "make room in the farm host's /var/lib/jada-agent") -> None:
        super().__init__(message, hint=hint)


class LedgerDamaged(LedgerStuck):
    """The ledger's file cannot be read or trusted any more; no task is taken, and the agent ends."""

    exit_code = EXIT_DAMAGED
    code = "ledger_damaged"

    def __init__(self, path: Path, what: str) -> None:
        hint = 'what to do: "The ledger is damaged" in docs/operations.md'
        super().__init__(f"the ledger {path} is damaged: {what}", hint=hint)
        self.what = what


class Alarm:
    """Rings once, at the first sign of damage. `on_damage` is called in the thread that met it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: LedgerDamaged | None = None
        self.on_damage: Callable[[], object] = lambda: None
        self._lock = threading.Lock()

    def seen(self, error: BaseException) -> LedgerDamaged | None:
        """The error to raise in place of `error`, if that says the file is damaged, and not full, locked or closed.

        Every error of a connection has to come by here.
        """
        code = getattr(error, "sqlite_errorcode", None)
        if not isinstance(error, sqlite3.Error) or code is None:
            return error if isinstance(error, LedgerDamaged) else None
        return self.ring(str(error)) if code & 0xFF in _DAMAGED or code in _UNREADABLE else None

    def ring(self, what: str) -> LedgerDamaged:
        """Note the damage; returns the error to raise."""
        found = LedgerDamaged(self.path, what)
        with self._lock:
            first, self.damage = self.damage is None, self.damage or found
        if first:
            with suppress(RuntimeError):  # the loop has ended before
                self.on_damage()
        return found

    def connect(self) -> sqlite3.Connection:
        """A connection to the file in autocommit, for any thread."""
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        return db


def _note(path: Path) -> Path:
    return path.with_suffix(".damaged")


def note(damage: LedgerDamaged, path: Path) -> None:
    """Leave a note beside the file, so that no later start takes tasks into it: a client's call starts the agent again.

    It is about this very file, by its inode: one that takes its place is looked at afresh.
    """
    with suppress(OSError):
        _note(path).write_text(f"{path.stat().st_ino} {damage.what}\n", encoding="utf-8")


def heed(path: Path) -> bool:
    """Whether there is such a note about another file, in whose place this one is. LedgerDamaged: about this one."""
    try:
        inode, _, what = _note(path).read_text("utf-8").strip().partition(" ")
    except FileNotFoundError:
        return False
    if path.exists() and inode == str(path.stat().st_ino):
        raise LedgerDamaged(path, what)
    return True


def check_files(path: Path) -> bool:
    """Whether there is a ledger; an empty file does not count.

    LedgerDamaged where there is none and its write-ahead log is not empty: SQLite would throw that away.
    """
    there, logged = (file.exists() and file.stat().st_size > 0 for file in (path, path.with_name(f"{path.name}-wal")))
    if logged and not there:
        raise LedgerDamaged(path, "it is empty or gone, and what was written last is still in ledger.db-wal beside it")
    return there


def forget(path: Path) -> None:
    """The note is about a file that is there no more, and the one in its place is in order."""
    _note(path).unlink(missing_ok=True)


def check(db: sqlite3.Connection, alarm: Alarm, beat: Callable[[], None]) -> None:
    """Look at every page of the file once. LedgerDamaged where one is not as it must be. `beat` is called meanwhile."""

    def going_on() -> int:
        beat()
        return 0

    db.set_progress_handler(going_on, _OPERATIONS_PER_BEAT)
    try:
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    finally:
        db.set_progress_handler(None, 0)
    if found != "ok":
        raise alarm.ring(" ".join(str(found).split())[:200])
