"""Engines: the ways a task reaches the model, behind small interfaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from farmhand.core.task import Result, Task, TaskError
from farmhand.meter import ApiError, Grant


@dataclass(slots=True)
class Answer:
    """An engine's answer to a task."""

    text: str
    structured: Any = None
    stop_reason: str = ""

    def as_result(self, task_id: str) -> Result:
        """Return this answer as the result of the task."""
        return Result(
            id=task_id,
            state="succeeded",
            text=self.text,
            structured=self.structured,
            stop_reason=self.stop_reason,
        )


class EngineError(Exception):
    """The attempt failed inside the engine. `retryable`: another attempt may succeed."""

    def __init__(self, code: str, message: str, *, hint: str = "", retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.retryable = retryable


def failure(task_id: str, problem: EngineError | ApiError) -> Result:
    """Return the result of a task that failed because of `problem`."""
    error = TaskError(code=problem.code, message=problem.message, hint=problem.hint)
    return Result(id=task_id, state="failed", error=error)


class Engine(Protocol):
    """The interface of an engine, which runs one attempt of one task.

    `makes_requests`: the task itself makes any number of requests while it runs, and sees their errors.
    """

    makes_requests: bool

    async def run(self, task: Task, grant: Grant, on_text: Callable[[str], None], timeout_s: float) -> Answer:
        """Return the answer, and pass its text to `on_text` as it arrives. Raise EngineError or ApiError.

        The caller cancels this after `timeout_s`.
        """
