"""The state that the scheduler, the attempts and the economy engine share."""

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
    """One per agent. `stopping`: the agent is about to end, so nothing is worth waiting for.

    `mode` `queue` takes nothing new, `running` starts nothing new either and tries nothing again for long.
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
        """Whether waiting tasks may start."""
        return not self.stopping and self.mode != "running"
