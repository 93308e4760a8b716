"""The ways a task reaches the model, behind small interfaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from farmhand.core.task import Result, Task, TaskError
from farmhand.meter import ApiError, Grant


@dataclass(slots=True)
class Answer:
    """The answer of an engine."""

    text: str
    structured: Any = None
    stop_reason: str = ""

    def as_result(self, task_id: str) -> Result:
        """The result of a task that this answers."""
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
    """The result of a task that failed for `problem`."""
    error = TaskError(code=problem.code, message=problem.message, hint=problem.hint)
    return Result(id=task_id, state="failed", error=error)


class Engine(Protocol):
    """Runs one attempt of one task.

    `makes_requests`: the task itself makes requests while it runs, any number of them, and sees their errors.
    """

    makes_requests: bool

    async def run(self, task: Task, grant: Grant, on_text: Callable[[str], None], timeout_s: float) -> Answer:
        """The answer; text goes to `on_text` as it comes. Raises EngineError or ApiError.

        The caller ends the attempt after `timeout_s` by cancelling it.
        """
