"""Budgets of a task: its own, its batch's, and the host's daily budget. Earlier spending is read from the ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from farmhand.agent.store.ledger import Ledger
from farmhand.core.errors import Refused
from farmhand.core.money import pico, usd
from farmhand.core.task import Task
from farmhand.meter.budget import Budget

#: Number of batch budgets to cache. Those without a running task are dropped first.
_KEPT = 256
_DAY_S = 86_400.0


class Budgets:
    """One shared `Budget` per batch and per day. The clock is the ledger's."""

    def __init__(self, ledger: Ledger, day_usd: Decimal | None) -> None:
        self._ledger = ledger
        self._day_pico = None if day_usd is None else pico(day_usd)
        self._day: Budget | None = None
        self._batches: dict[str, Budget] = {}
        #: Midnight, the last charge that was counted, and what came since midnight up to it. Pico-dollars.
        self._today = (0.0, 0, 0)

    def of(self, task: Task, pot: Budget | None = None) -> tuple[Budget, ...]:
        """Return the budgets that limit the task's requests. Its own counts the cost of its earlier attempts.

        That of its `pot` does only if that has a limit.
        """
        found = [self._batch(task.batch) if task.batch else None, self.day()]
        if pot is not None and pot.limit_pico is not None:
            found.append(pot)
        if task.max_usd is not None:
            spent = self._ledger.spent_by_task(task.id)
            found.insert(0, Budget(f"task {task.id}", pico(task.max_usd), spent))
        return tuple(budget for budget in found if budget is not None)

    def known(self, task: Task, held_pico: int, held_since: float, cost_pico: int) -> None:
        """Correct the budgets for a request of `task` that cost `cost_pico`.

        The ledger has held `held_pico` for it since `held_since`, before this start. Call this before the ledger
        records the cost: a budget that is created here still counts the held amount.
        """
        for budget in self.of(task):
            today = self._ledger.now() // _DAY_S == held_since // _DAY_S
            budget.correct(cost_pico - (held_pico if today or budget is not self._day else 0))

    def day(self) -> Budget | None:
        """Return the budget of the current day (UTC), or None if the host has none."""
        if self._day_pico is None:
            return None
        now = datetime.fromtimestamp(self._ledger.now(), UTC)
        name = f"day {now.date().isoformat()}"
        if self._day is None or self._day.name != name:
            midnight = now.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
            self._day = Budget(name, self._day_pico, self._ledger.spent_between(midnight, midnight + _DAY_S))
        return self._day

    def check_day(self) -> None:
        """Raise Refused if the day's budget is spent."""
        day = self.day()
        if day is not None and day.spent_out:
            raise Refused(
                f"the budget of the {day.name} is spent: US$ {_text(day.spent_pico)} of {_text(day.limit_pico or 0)}",
                hint="wait until the next day (UTC), or raise jada_agent_budget_day_usd",
                code="budget",
            )

    def changed(self, batch: str, max_pico: int | None) -> None:
        """Apply a changed limit of the batch, None for no limit any more."""
        budget = self._batches.get(batch)
        if budget is not None:
            budget.limit_pico = max_pico
            budget.wake()

    def _batch(self, name: str) -> Budget | None:
        budget = self._batches.get(name)
        if budget is not None or (limit := self._ledger.batch_budget(name)) is None:
            return budget
        if len(self._batches) >= _KEPT:
            self._batches = {other: kept for other, kept in self._batches.items() if kept.reserved_pico}
        budget = self._batches[name] = Budget(f"batch {name}", limit, self._ledger.spent_by_batch(name))
        return budget

    def day_status(self) -> dict[str, Any] | None:
        """Return the day's budget as `GET /v1/status` shows it."""
        day = self.day()
        if day is None:
            return None
        return {
            "limit_usd": usd(day.limit_pico or 0),
            "spent_usd": usd(day.spent_pico),
            "reserved_usd": usd(day.reserved_pico),
            "day": day.name.removeprefix("day "),
        }

    def spent_today(self) -> int:
        """Return the pico-dollars of the charges of the current day (UTC). Reads only those since the last call."""
        midnight = self._ledger.now() // _DAY_S * _DAY_S
        day, last, spent = self._today
        if day != midnight:
            last, spent = 0, 0
        more, latest = self._ledger.charged(midnight, last)
        self._today = (midnight, max(last, latest), spent + more)
        return self._today[2]


def _text(amount: int) -> str:
    return f"{usd(amount).normalize():f}"
