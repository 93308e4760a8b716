"""Task ids. The client chooses them, so that a task that is sent twice runs once."""

from __future__ import annotations

import os
import time


def new_task_id() -> str:
    """Return a new id that sorts by creation time in milliseconds: 11 hex digits of time, 10 random ones."""
    return f"t{time.time_ns() // 1_000_000:011x}{os.urandom(5).hex()}"
