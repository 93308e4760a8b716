"""The private directories of a query, which may hold a password manager's answers, and their removal in every case."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import stat
import tempfile
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from types import FrameType

#: Prefix of the directories' names; the id of the creating process follows.
PREFIX = "farmhand-ask-"
_NAME = re.compile(rf"{PREFIX}(\d+)-")
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def directory(where: Path, uid: int) -> Iterator[Path]:
    """Yield a new directory of the user `uid` in `where`, removed afterwards, and remove those of killed processes."""
    remove(where, {os.geteuid(), uid})
    made = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=where)).resolve()
    try:
        os.chown(made, uid, -1)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def signals_end_in_order() -> Iterator[None]:
    """End the process on SIGTERM and SIGHUP as `sys.exit` does, so that children are ended and directories removed.

    Existing handlers and ignored signals are kept. Only the main thread can handle signals.
    """
    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) == signal.SIG_DFL:
                    signal.signal(number, _exit)
                    stack.callback(signal.signal, number, signal.SIG_DFL)
        yield


def _exit(number: int, _: FrameType | None) -> None:
    for each in _SIGNALS:  # a second signal must not interrupt the exit
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def remove(where: Path, owners: Collection[int]) -> None:
    """Remove directories in `where` left by killed processes, if they belong to these users."""
    for path in where.glob(f"{PREFIX}*"):
        match = _NAME.match(path.name)
        if match is None or _alive(int(match[1])):
            continue
        with contextlib.suppress(OSError):
            found = path.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid in owners:
                shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    return True
