"""Budgets: a call reserves its worst-case cost beforehand and is settled at its actual cost.

All sums are whole pico-dollars (see `farmhand.core.money`). All methods belong to one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from farmhand.core.money import usd
from farmhand.core.task import FullBudget
from farmhand.meter.errors import ApiError


class BudgetSpent(ApiError):
    """A budget has no room for another request, which may cost `needs_pico`. This is final for the task."""

    def __init__(self, message: str, budget: Budget | None = None, needs_pico: int = 0) -> None:
        super().__init__("budget", message, status=403)
        self.budget = budget
        if budget is not None:
            self.full = FullBudget(
                of=budget.name.partition(" ")[0],
                limit_usd=usd(budget.limit_pico or 0),
                spent_usd=usd(budget.spent_pico),
                needs_usd=usd(needs_pico),
            )


class Budget:
    """The budget of `name` ("task", "batch nightly", "day 2026-11-24").

    `limit_pico` None: no limit, only counting. `spent_pico` is settled; `reserved_pico` is the worst-case cost of open
    calls. Their sum exceeds the limit only if a call cost more than was reserved for it. `waiting` are the attempts of
    the requests that wait for room, oldest first.
    """

    __slots__ = ("limit_pico", "name", "reserved_pico", "spent_pico", "waiting")

    def __init__(self, name: str, limit_pico: int | None, spent_pico: int = 0) -> None:
        self.name = name
        self.limit_pico = limit_pico
        self.spent_pico = spent_pico
        self.reserved_pico = 0
        self.waiting: dict[asyncio.Future[Reservation], Callable[[], None]] = {}

    @property
    def spent_out(self) -> bool:
        """Return whether nothing would be left even if every open call cost nothing."""
        return self.limit_pico is not None and self.spent_pico >= self.limit_pico

    def fits(self, pico: int) -> bool:
        """Return whether `pico` can be reserved now."""
        return self.limit_pico is None or pico <= self.limit_pico - self.spent_pico - self.reserved_pico

    def may_fit(self, pico: int) -> bool:
        """Return whether `pico` could be reserved if every open call cost nothing."""
        return self.limit_pico is None or pico <= self.limit_pico - self.spent_pico

    def reserve(self, pico: int) -> None:
        """Reserve `pico`. Raise BudgetSpent, with nothing reserved, if less is left."""
        if pico < 0:
            raise ValueError(f"a reservation of {pico} pico-dollars")
        if not self.fits(pico):
            raise self.spent(pico)
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

    def wake(self) -> None:
        """Serve the waiting requests that fit now, and refuse those that can never fit."""
        for attempt in tuple(self.waiting.values()):
            attempt()

    def spent(self, pico: int, longest: int = 0) -> BudgetSpent:
        """Return the refusal of a request that may cost `pico`, with what would let it go.

        `longest` is the longest answer for which there is room, in tokens; 0: none is known.
        """
        limit = self.limit_pico or 0
        missing = pico - (limit - self.spent_pico)
        kind, _, which = self.name.partition(" ")
        raised = {
            "task": f"--max-usd {_rounded_up(limit + missing)}",
            # Each host has its share of the limit.
            "batch": f"US$ {_rounded_up(missing)} more in --max-usd for each host",
            "day": "a larger jada_agent_budget_day_usd",
        }.get(kind if which else "", "")
        ways = filter(None, (f"--max-tokens {longest}" if longest else "", raised))
        advice = f"; {' or '.join(ways)} lets it go" if raised and missing > 0 else ""
        return BudgetSpent(
            f"the budget of the {self.name} has no room: US$ {_text(self.spent_pico)} of {_text(limit)} is used, and "
            f"this request may cost up to {_text(pico)}{advice}",
            self,
            pico,
        )


def _text(pico: int) -> str:
    return f"{usd(pico).normalize():f}"


def _rounded_up(pico: int) -> str:
    """Return an amount with two digits, not less than it is."""
    step = 10 ** max(0, len(str(pico)) - 2)
    return _text(-(-pico // step) * step)


class Reservation:
    """One sum reserved in several budgets, all or none, until it is settled once."""

    __slots__ = ("_budgets", "pico")

    def __init__(self, budgets: Sequence[Budget], pico: int) -> None:
        """Reserve at once. Raise BudgetSpent, with nothing reserved anywhere, if a budget has no room."""
        for budget in budgets:
            if not budget.fits(pico):
                raise budget.spent(pico)
        for budget in budgets:
            budget.reserve(pico)
        self.pico = pico
        self._budgets = budgets

    @classmethod
    async def make(cls, budgets: Sequence[Budget], pico: int) -> Reservation:
        """Reserve as soon as open calls leave room. Raise BudgetSpent as soon as there can be none."""
        if all(budget.fits(pico) for budget in budgets):
            return cls(budgets, pico)
        made: asyncio.Future[Reservation] = asyncio.get_running_loop().create_future()

        def attempt() -> None:
            if made.done():
                return
            never = next((budget for budget in budgets if not budget.may_fit(pico)), None)
            if never is not None:
                made.set_exception(never.spent(pico))
            elif all(budget.fits(pico) for budget in budgets):
                made.set_result(cls(budgets, pico))

        attempt()
        for budget in budgets:
            budget.waiting[made] = attempt
        try:
            reservation = await made
        except asyncio.CancelledError:
            if made.done() and not made.cancelled() and made.exception() is None:
                made.result().settle(0)
            raise
        finally:
            for budget in budgets:
                del budget.waiting[made]
        if all(budget.fits(0) for budget in budgets):
            return reservation
        # Since it was made, an open call has cost more than was reserved for it.
        reservation.settle(0)
        return await cls.make(budgets, pico)

    def settle(self, actual: int) -> None:
        """Settle the call at `actual`. Only the first settlement counts."""
        budgets, self._budgets = self._budgets, ()
        for budget in budgets:
            budget.settle(self.pico, actual)
