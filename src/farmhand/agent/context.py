"""What running attempts share, and the engine that takes economy tasks by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from farmhand.agent.budgets import Budgets
from farmhand.agent.config import Config
from farmhand.agent.engines import Engine
from farmhand.agent.events import TaskRegistry
from farmhand.agent.keys import Keys
from farmhand.agent.progress import BatchProgress
from farmhand.agent.store.ledger import Ledger
from farmhand.agent.store.rows import WaitReason


class RunContext:
    """What every running task shares. `draining`: the agent stops, so nothing is worth waiting for.

    `resting`: what runs may end, and nothing is to be begun or to be tried again for long.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        engines: dict[str, Engine],
        keys: Keys,
        stage: TaskRegistry,
        progress: BatchProgress,
        budgets: Budgets,
    ) -> None:
        self.config = config
        self.ledger = ledger
        self.engines = engines
        self.keys = keys
        self.stage = stage
        self.progress = progress
        self.budgets = budgets
        self.prices = config.prices()
        self.draining = False
        self.resting = False


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
