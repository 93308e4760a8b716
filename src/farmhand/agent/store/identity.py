"""Whether a task that is submitted is known already: by its id, and by a digest of its content."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence

import msgspec

from farmhand.core.errors import FarmhandError
from farmhand.core.task import State, Task


class IdConflict(FarmhandError):
    """A known task id was submitted again with other content."""

    exit_code = 2
    code = "id_conflict"


def digest(task: Task) -> bytes:
    """Return what two tasks with the same id are compared by: that of their canonical JSON, without the trace."""
    if task.traceparent or task.tracestate:
        task = msgspec.structs.replace(task, traceparent="", tracestate="")
    return hashlib.sha256(msgspec.json.encode(task, order="deterministic")).digest()


def state_of(db: sqlite3.Connection, task: Task) -> State | None:
    """Return the state of the task if its id is known. Raise IdConflict if that has other content, or was pruned."""
    known = db.execute("SELECT digest, state, spec IS NULL AS pruned FROM task WHERE id = ?", (task.id,)).fetchone()
    if known is not None and known["digest"] != digest(task):
        raise IdConflict(f"task id {task.id!r} is known with other content", hint="use a new id")
    if known is not None and known["pruned"]:
        raise IdConflict(f"task {task.id!r} was run, and its content is pruned", hint="use a new id")
    return None if known is None else known["state"]


def check(db: sqlite3.Connection, _now: float, tasks: Sequence[Task]) -> dict[str, State]:
    """Return the states of those of `tasks` that `submit` would find. Raise as it does."""
    return {task.id: state for task in tasks if (state := state_of(db, task))}
