"""The file of the cost store, on a disk that may be full or read-only."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from farmhand.core.files import held_by_another

#: What a full or read-only disk answers: to Python, and to SQLite (the low byte of its codes).
_ERRNOS = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT)
_CODES = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def create(path: Path, flag: int = 0) -> None:
    """Create the file, readable for this user only, in a directory that may be missing. Raise OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | flag, 0o600))


def opened(path: Path, busy_s: float) -> sqlite3.Connection:
    """Return the database in the file, which is created if missing. Raise OSError or sqlite3.Error."""
    with suppress(FileExistsError):
        create(path, os.O_EXCL)
    return sqlite3.connect(path, isolation_level=None, timeout=busy_s)


def unwritable(path: Path, error: Exception) -> bool:
    """Return whether the file is there and `error` says that it cannot be written."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return (code in _CODES or (isinstance(error, OSError) and error.errno in _ERRNOS)) and path.is_file()


def copied(path: Path) -> sqlite3.Connection:
    """Return a copy of the database in memory. Raise sqlite3.Error."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    uri = path.absolute().as_uri()
    try:
        with closing(sqlite3.connect(f"{uri}?mode=ro", uri=True)) as file:
            file.backup(db)
    except sqlite3.OperationalError as error:
        if held_by_another(error):
            raise
        # SQLite cannot make the files beside it by which it shares it with others. So there are no others.
        with closing(sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True)) as file:
            file.backup(db)
    return db
