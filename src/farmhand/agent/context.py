"""State shared by the scheduler, the attempts and the economy engine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from farmhand.agent.budgets import Budgets
from farmhand.agent.config import Config
from farmhand.agent.events import TaskRegistry
from farmhand.agent.pots import Pots
from farmhand.agent.store.ledger import Ledger
from farmhand.core.prices import PriceTable
from farmhand.core.task import DrainMode

if TYPE_CHECKING:
    from farmhand.telemetry.spans import Tracing

#: Tasks that are larger, by their pictures and PDFs, run two at a time: each takes up to four times its size in memory.
LARGE_BYTES = 4 * 1024**2
_LARGE_AT_ONCE = 2


@dataclass(slots=True)
class RunContext:
    """Shared state, one per agent. `stopping`: the agent is about to end, so do not wait for anything.

    `tracing` makes spans, None makes none. `mode` `queue` refuses new tasks. `mode` `running` also starts no waiting
    tasks and does not keep retrying.
    """

    config: Config
    ledger: Ledger
    pots: Pots
    registry: TaskRegistry
    budgets: Budgets
    prices: PriceTable
    mode: DrainMode = "off"
    stopping: bool = False
    tracing: Tracing | None = None
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_LARGE_AT_ONCE))

    @property
    def may_start(self) -> bool:
        """Return whether waiting tasks may start."""
        return not self.stopping and self.mode != "running"
