"""The ways a task reaches the model, behind small interfaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from farmhand.agent.store.rows import WaitReason
from farmhand.core.task import Task
from farmhand.meter import Grant

if TYPE_CHECKING:
    from farmhand.agent.attempts import RunContext


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


class BatchEngine(Protocol):
    """Runs economy tasks many at a time, by itself: it takes them from the ledger's line and records their ends there.

    No task holds a slot or a job of the scheduler. A task that it has taken is `running`, also over a restart; one that
    is cancelled meanwhile is final at once, and what it still costs is recorded with the end of its attempt.
    """

    def start(self, room: RunContext, may_send: Callable[[], bool], key_refused: Callable[[], None]) -> None:
        """Go on with what is under way, and send what waits while `may_send`. `key_refused`: a key in `room` was."""

    async def close(self) -> None:
        """The agent stops: leave what is under way to the next start."""

    def wake(self) -> None:
        """Tasks were queued or cancelled, a key came, or the drain has changed: look again. Returns at once."""

    def waits(self, batch: str | None) -> Sequence[WaitReason]:
        """Why queued economy tasks wait: those of the batch, or all."""
