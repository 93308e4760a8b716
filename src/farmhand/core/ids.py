"""What the start of claude-cheap needs of a task: its id, its size. The types are in farmhand.core.task."""

from __future__ import annotations

import os
import time

MAX_PROMPT_BYTES = 4 * 1024 * 1024


def new_task_id() -> str:
    """Return a new id that sorts by creation time in milliseconds: 11 hex digits of time, 10 random ones.

    The client chooses it, so that a task that is sent twice runs once.
    """
    return f"t{time.time_ns() // 1_000_000:011x}{os.urandom(5).hex()}"
