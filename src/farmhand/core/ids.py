"""What the start of claude-cheap needs of a task: its id, its size. The types are in farmhand.core.task."""

from __future__ import annotations

import os
import re
import time

MAX_PROMPT_BYTES = 4 * 1024 * 1024
#: The most bytes of a picture or a PDF; farmhand.core.attachments has the limits of what is sent.
MAX_FILE_BYTES = 22 * 1024 * 1024
#: The longest answer that may be asked for, in tokens, and the highest priority.
MAX_TOKENS = 128_000
MAX_PRIORITY = 1_000_000
_LONGEST = 64
_AGAIN = re.compile(r"(.+)\.r\d+", re.DOTALL)
_CUT = re.compile(r".*-([0-9a-f]{12})\.r\d+", re.DOTALL)


def new_task_id() -> str:
    """Return a new id that sorts by creation time in milliseconds: 11 hex digits of time, 10 random ones.

    The client chooses it, so that a task that is sent twice runs once.
    """
    return f"t{time.time_ns() // 1_000_000:011x}{os.urandom(5).hex()}"


def suffixed(task_id: str, suffix: str) -> str:
    """Return `task_id` with `suffix`, within the 64 characters of an id."""
    whole = task_id + suffix
    return whole if len(whole) <= _LONGEST else f"{task_id[: _LONGEST - 13 - len(suffix)]}-{_digest(task_id)}{suffix}"


def again_id(task_id: str, number: int) -> str:
    """Return the id under which a line of a batch, known as `task_id`, is given to a host for the `number`-th time."""
    return suffixed(task_id, f".r{number}")


def is_again(task_id: str) -> bool:
    """Return whether the id is one of `again_id`."""
    return _AGAIN.fullmatch(task_id) is not None


def line_key(task_id: str) -> str:
    """Return what all ids of one line of a batch have in common, and no others of the batch: see `again_id`."""
    if len(task_id) == _LONGEST and (cut := _CUT.fullmatch(task_id)) is not None:
        return cut[1]
    again = _AGAIN.fullmatch(task_id)
    return _digest(again[1] if again is not None else task_id)


def _digest(text: str) -> str:
    import hashlib  # not at the top: claude-cheap does without it

    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]
