"""Budgets: a call reserves its worst-case cost beforehand and is settled at its actual cost.

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
    """A budget has no room for another request. This is final for the task."""

    def __init__(self, message: str) -> None:
        super().__init__("budget", message, status=403)


class Budget:
    """The budget of `name` ("task", "batch nightly", "day 2026-11-24").

    `limit_pico` None: no limit, only counting. `spent_pico` is settled; `reserved_pico` is the worst-case cost of open
    calls. Their sum exceeds the limit only if a call cost more than was reserved for it.
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
        """Return what is neither spent nor reserved, None without a limit; negative if calls exceeded their share."""
        return None if self.limit_pico is None else self.limit_pico - self.spent_pico - self.reserved_pico

    @property
    def spent_out(self) -> bool:
        """Return whether nothing would be left even if every open call cost nothing."""
        return self.limit_pico is not None and self.spent_pico >= self.limit_pico

    def reserve(self, pico: int) -> None:
        """Reserve `pico`. Raise BudgetSpent, with nothing reserved, if less is left."""
        if pico < 0:
            raise ValueError(f"a reservation of {pico} pico-dollars")
        left = self.left_pico
        if left is not None and pico > left:
            raise self._spent(pico)
        self.reserved_pico += pico

    def settle(self, reserved: int, actual: int) -> None:
        """Settle a call that had reserved `reserved` and cost `actual`. With `reserved` 0 it had no reservation."""
        if not 0 <= reserved <= self.reserved_pico or actual < 0:
            raise ValueError(f"settling {reserved} of {self.reserved_pico} reserved pico-dollars as {actual}")
        self.reserved_pico -= reserved
        self.spent_pico += actual
        self.wake()

    def correct(self, pico: int) -> None:
        """Add `pico`, which may be negative, to the spent sum, after a cost counted at its worst case became known."""
        self.spent_pico = max(0, self.spent_pico + pico)
        self.wake()

    async def room(self, pico: int) -> None:
        """Wait while only open calls leave no room for `pico`. Raise BudgetSpent as soon as it can never fit."""
        while (left := self.left_pico) is not None and pico > left:
            if pico > left + self.reserved_pico:
                raise self._spent(pico)
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append((waiter, pico))
            try:
                await waiter
            except asyncio.CancelledError:
                # This waiter may have been woken already: pass the room that it does not use on to another.
                self.wake()
                raise

    def wake(self) -> None:
        """Wake, oldest first, the waiters that fit now and those that can never fit."""
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
    """One sum reserved in several budgets, all or none, until it is settled once."""

    __slots__ = ("_budgets", "pico")

    def __init__(self, budgets: Sequence[Budget], pico: int) -> None:
        """Reserve at once. Raise BudgetSpent, with nothing reserved anywhere, if a budget has no room."""
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
        """Reserve as soon as open calls leave room. Raise BudgetSpent as soon as there can be none."""
        while True:
            try:
                return cls(budgets, pico)
            except BudgetSpent:
                _wake(budgets)  # pass the wake-up on: this waiter could not use the freed room
                try:
                    for budget in budgets:
                        await budget.room(pico)
                except (BudgetSpent, asyncio.CancelledError):
                    _wake(budgets)  # as above, and it will never use it
                    raise

    def settle(self, actual: int) -> None:
        """Settle the call at `actual`. Only the first settlement counts."""
        budgets, self._budgets = self._budgets, []
        for budget in budgets:
            budget.settle(self.pico, actual)


def _wake(budgets: Sequence[Budget]) -> None:
    for budget in budgets:
        budget.wake()
