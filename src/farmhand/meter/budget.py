"""Budgets: what may be spent. Reserved before a call at the most it may cost, settled after it at what it did cost.

All sums are whole pico-dollars (see `farmhand.core.money`). All methods belong to one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Self

from farmhand.core.money import usd
from farmhand.meter.errors import ApiError


class BudgetSpent(ApiError):
    """A budget has no room for one more request. It is final for the task."""

    def __init__(self, message: str) -> None:
        super().__init__("budget", message, status=403)


class Budget:
    """What may be spent in the name of `name` ("task", "batch nightly", "day 2026-11-24").

    `limit_pico` None: no limit, it is only counted. `spent_pico` is what is settled, `reserved_pico` what calls under
    way may cost at most. Spent and reserved together pass the limit only where a call cost more than was reserved.
    """

    __slots__ = ("_waiters", "limit_pico", "name", "reserved_pico", "spent_pico")

    def __init__(self, name: str, limit_pico: int | None, spent_pico: int = 0) -> None:
        self.name = name
        self.limit_pico = limit_pico
        self.spent_pico = spent_pico
        self.reserved_pico = 0
        self._waiters: deque[tuple[asyncio.Future[None], int]] = deque()

    @property
    def left_pico(self) -> int | None:
        """What is neither spent nor reserved; None without a limit, below zero where calls cost more than reserved."""
        return None if self.limit_pico is None else self.limit_pico - self.spent_pico - self.reserved_pico

    @property
    def spent_out(self) -> bool:
        """Whether nothing is left even when every call under way turns out to cost nothing."""
        return self.limit_pico is not None and self.spent_pico >= self.limit_pico

    def reserve(self, pico: int) -> None:
        """Take `pico` out of what is left; BudgetSpent, and nothing taken, where there is less."""
        if pico < 0:
            raise ValueError(f"a reservation of {pico} pico-dollars")
        left = self.left_pico
        if left is not None and pico > left:
            raise self._spent(pico)
        self.reserved_pico += pico

    def settle(self, reserved: int, actual: int) -> None:
        """The call that had `reserved` is over and cost `actual`. `settle(0, actual)` counts one not reserved for."""
        if not 0 <= reserved <= self.reserved_pico or actual < 0:
            raise ValueError(f"settling {reserved} of {self.reserved_pico} reserved pico-dollars as {actual}")
        self.reserved_pico -= reserved
        self.spent_pico += actual
        self.wake()

    def correct(self, pico: int) -> None:
        """What was spent turns out to be so much more, or less: the most had been counted for it."""
        self.spent_pico = max(0, self.spent_pico + pico)
        self.wake()

    async def room(self, pico: int) -> None:
        """Wait while only calls under way stand against `pico` more; BudgetSpent as soon as it can never fit."""
        while (left := self.left_pico) is not None and pico > left:
            if pico > left + self.reserved_pico:
                raise self._spent(pico)
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append((waiter, pico))
            try:
                await waiter
            except asyncio.CancelledError:
                # It may have been woken already: the room it does not take is another's.
                self.wake()
                raise

    def wake(self) -> None:
        """Wake, oldest first, those that wait and find room now, and those that never will."""
        if not self._waiters or self.limit_pico is None:
            return
        ever = self.limit_pico - self.spent_pico
        left = ever - self.reserved_pico
        still: deque[tuple[asyncio.Future[None], int]] = deque()
        for waiter, pico in self._waiters:
            if waiter.done():
                continue
            if left < pico <= ever:
                still.append((waiter, pico))
                continue
            waiter.set_result(None)
            left -= pico if pico <= ever else 0
        self._waiters = still

    def _spent(self, pico: int) -> BudgetSpent:
        return BudgetSpent(
            f"the budget of the {self.name} is spent: US$ {_text(self.spent_pico)} of {_text(self.limit_pico or 0)} "
            f"is used, and this request may cost up to {_text(pico)}"
        )


def _text(pico: int) -> str:
    return f"{usd(pico).normalize():f}"


class Reservation:
    """The same sum reserved in several budgets, all or none, until it is settled once."""

    __slots__ = ("_budgets", "pico")

    def __init__(self, budgets: Sequence[Budget], pico: int) -> None:
        """Reserve now; BudgetSpent where a budget has no room, and then in none."""
        self.pico = pico
        self._budgets: list[Budget] = []
        try:
            for budget in budgets:
                budget.reserve(pico)
                self._budgets.append(budget)
        except BudgetSpent:
            for budget in self._budgets:
                budget.settle(pico, 0)
            raise

    @classmethod
    async def make(cls, budgets: Sequence[Budget], pico: int) -> Self:
        """Reserve as soon as calls under way leave room; BudgetSpent as soon as none can be left."""
        while True:
            try:
                return cls(budgets, pico)
            except BudgetSpent:
                _wake(budgets)  # what woke this one may have been room that it cannot use yet
                try:
                    for budget in budgets:
                        await budget.room(pico)
                except (BudgetSpent, asyncio.CancelledError):
                    _wake(budgets)  # as above, and it will never use it
                    raise

    def settle(self, actual: int) -> None:
        """The call is over and cost `actual`; only the first time counts."""
        budgets, self._budgets = self._budgets, []
        for budget in budgets:
            budget.settle(self.pico, actual)


def _wake(budgets: Sequence[Budget]) -> None:
    for budget in budgets:
        budget.wake()
