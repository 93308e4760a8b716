"""The directories of an asking, which may hold a password manager's answers, do not outlive it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import stat
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from types import FrameType

#: The names of the directories: after it stands the id of the process that made one.
PREFIX = "farmhand-ask-"
_NAME = re.compile(rf"{PREFIX}(\d+)-")
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def signals_end_in_order() -> Iterator[None]:
    """While it lasts, SIGTERM and SIGHUP end the process as `sys.exit` does: what was begun is ended, then removed.

    Whoever handles or ignores such a signal goes on doing so. Signals are the main thread's business alone.
    """
    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) == signal.SIG_DFL:
                    signal.signal(number, _exit)
                    stack.callback(signal.signal, number, signal.SIG_DFL)
        yield


def _exit(number: int, _: FrameType | None) -> None:
    for each in _SIGNALS:  # a second one does not disturb the end
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def remove(where: Path, owners: Collection[int]) -> None:
    """Remove what processes that were killed have left in `where`: directories of these users only."""
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
    except OSError:
        return True
    return True
