"""Task ids are chosen by the client, so that sending a task twice runs it once."""

from __future__ import annotations

import os
import time


def new_task_id() -> str:
    """A fresh id that sorts by the millisecond it was made in: 11 hex digits of time, 10 random ones."""
    return f"t{time.time_ns() // 1_000_000:011x}{os.urandom(5).hex()}"
