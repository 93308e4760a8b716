"""Engines: the ways a task reaches the model, behind small interfaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import UNSET

from farmhand.core.task import Result, Task, TaskError
from farmhand.meter.errors import ApiError
from farmhand.meter.grants import Grant

#: Seconds beyond its time limit in which the changes of a repository task are still fetched from its sandbox.
COLLECT_S = 60.0


class EngineError(ApiError):
    """The attempt failed in the engine, not at the API; it is handled like an error of the API."""


def failure(task_id: str, problem: ApiError) -> Result:
    """Return the result of a task that failed because of `problem`."""
    error = TaskError(code=problem.code, message=problem.message, hint=problem.hint, budget=problem.full or UNSET)
    return Result(id=task_id, state="failed", error=error)


class Engine(Protocol):
    """The interface of an engine, which runs one attempt of one task.

    `makes_requests`: the task itself makes any number of requests while it runs, and sees their errors.
    """

    makes_requests: bool

    async def run(self, task: Task, grant: Grant, on_text: Callable[[str], None], timeout_s: float) -> Result:
        """Return the result, and pass its text to `on_text` as it arrives; a task with a schema has none.

        Raise ApiError, and TimeoutError where the engine itself has ended the task after `timeout_s`. The caller
        cancels this after `timeout_s`, or COLLECT_S later for a repository task.
        """
