"""State shared by the scheduler, the attempts and the economy engine."""

from __future__ import annotations

from dataclasses import dataclass

from farmhand.agent.budgets import Budgets
from farmhand.agent.config import Config
from farmhand.agent.events import TaskRegistry
from farmhand.agent.keys import Keys
from farmhand.agent.store.ledger import Ledger
from farmhand.core.prices import PriceTable
from farmhand.core.task import DrainMode


@dataclass(slots=True)
class RunContext:
    """Shared state, one per agent. `stopping`: the agent is about to end, so do not wait for anything.

    `mode` `queue` refuses new tasks. `mode` `running` also starts no waiting tasks and does not keep retrying.
    """

    config: Config
    ledger: Ledger
    keys: Keys
    registry: TaskRegistry
    budgets: Budgets
    prices: PriceTable
    mode: DrainMode = "off"
    stopping: bool = False

    @property
    def may_start(self) -> bool:
        """Return whether waiting tasks may start."""
        return not self.stopping and self.mode != "running"
