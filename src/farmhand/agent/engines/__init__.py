"""The ways a task reaches the model, behind small interfaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from farmhand.core.task import Task
from farmhand.meter import Grant


@dataclass(slots=True)
class Answer:
    """What an engine brings back."""

    text: str
    structured: Any = None
    stop_reason: str = ""


class EngineError(Exception):
    """The attempt failed inside the engine. `retryable`: another attempt may succeed."""

    def __init__(self, code: str, message: str, *, hint: str = "", retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.retryable = retryable


class Engine(Protocol):
    """Runs one attempt of one task."""

    async def run(self, task: Task, grant: Grant, on_text: Callable[[str], None], timeout_s: float) -> Answer:
        """The answer; text goes to `on_text` as it comes. Raises EngineError or ApiError.

        The caller ends the attempt after `timeout_s` by cancelling it.
        """
