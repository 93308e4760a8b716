"""A damaged ledger file: detected on every connection by any access, and reported once.

SQLite cannot continue from there. Whatever it still accepts could be lost or wrong, and every answer costs money. So
the agent ends, and the operator follows docs/operations.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from farmhand.core.errors import FarmhandError

#: EX_DATAERR of sysexits.h. The agent's unit lists it, so that systemd does not restart the agent.
EXIT_DAMAGED = 65
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
#: File system errors that more disk space does not fix. After a failed sync the content of the disk is unknown.
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
    """The ledger cannot be written for now, for example on a full disk. Nothing in it has changed."""

    code = "ledger_stuck"

    def __init__(self, message: str, *, hint: str = "make room in the farm host's /var/lib/jada-agent") -> None:
        super().__init__(message, hint=hint)


class LedgerDamaged(LedgerStuck):
    """The ledger's file cannot be read or trusted any more. The agent takes no task and ends."""

    exit_code = EXIT_DAMAGED
    code = "ledger_damaged"

    def __init__(self, path: Path, what: str) -> None:
        hint = 'what to do: "The ledger is damaged" in docs/operations.md'
        super().__init__(f"the ledger {path} is damaged: {what}", hint=hint)
        self.what = what


class Alarm:
    """Reports the first sign of damage. `on_damage` is called in the thread that detected it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: LedgerDamaged | None = None
        self.on_damage: Callable[[], object] = lambda: None

    def seen(self, error: BaseException) -> LedgerDamaged | None:
        """Return the error to raise instead of `error` if that means damage, not a full, locked or closed file.

        Every error of a connection has to pass through here.
        """
        if isinstance(error, LedgerDamaged):
            return error
        code = getattr(error, "sqlite_errorcode", 0)
        return self.ring(str(error)) if code & 0xFF in _DAMAGED or code in _UNREADABLE else None

    def ring(self, what: str) -> LedgerDamaged:
        """Record the damage. Return the error to raise."""
        found = LedgerDamaged(self.path, what)
        if self.damage is None:
            self.damage = found
            with suppress(RuntimeError):  # the loop has ended already
                self.on_damage()
        return found

    def connect(self) -> sqlite3.Connection:
        """Return a connection to the file in autocommit mode, for use in any thread."""
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        return db


def _note(path: Path) -> Path:
    return path.with_suffix(".damaged")


def note(damage: LedgerDamaged, path: Path) -> None:
    """Write a note beside the damaged file, so that a start caused by a client's call accepts no tasks into it.

    The note is about this very file, by its inode: a file that replaces it is checked again.
    """
    with suppress(OSError):
        _note(path).write_text(f"{path.stat().st_ino} {damage.what}\n", encoding="utf-8")


def heed(path: Path) -> bool:
    """Return whether there is a note about a replaced file. Raise LedgerDamaged if the note is about this file."""
    try:
        inode, _, what = _note(path).read_text("utf-8").strip().partition(" ")
    except FileNotFoundError:
        return False
    if path.exists() and inode == str(path.stat().st_ino):
        raise LedgerDamaged(path, what)
    return True


def check_files(path: Path) -> bool:
    """Return whether there is a ledger. An empty file does not count.

    Raise LedgerDamaged if there is none but its write-ahead log is not empty: SQLite would discard the log.
    """
    there, logged = (file.exists() and file.stat().st_size > 0 for file in (path, path.with_name(f"{path.name}-wal")))
    if logged and not there:
        raise LedgerDamaged(path, "it is empty or gone, and what was written last is still in ledger.db-wal beside it")
    return there


def forget(path: Path) -> None:
    """Delete the note: the file that it is about is gone, and its replacement is intact."""
    _note(path).unlink(missing_ok=True)


def check(db: sqlite3.Connection, alarm: Alarm, beat: Callable[[], None]) -> None:
    """Check every page of the file once, calling `beat` meanwhile. Raise LedgerDamaged if a page is not intact."""
    db.set_progress_handler(beat, _OPERATIONS_PER_BEAT)
    try:
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    finally:
        db.set_progress_handler(None, 0)
    if found != "ok":
        raise alarm.ring(" ".join(str(found).split())[:200])
