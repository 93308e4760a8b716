"""Locks that the processes of one operator take from each other. They end with the process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def lock(path: Path) -> int | None:
    """Lock the file `path` with the suffix `.lock`. Return the lock, to be closed.

    None if another process has it. Raise OSError.
    """
    found = os.open(path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(found)
        return None
    return found


def plan_lock() -> Path:
    """Return what the gateways of one operator lock for a turn on the plan, wherever each has its ledger."""
    return Path(os.path.expanduser("~/.local/state/farmhand/plan"))
