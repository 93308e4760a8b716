"""The turns on a plan: one at a time, some that wait, and when the plan is closed. It outlives a reload."""

from __future__ import annotations

import asyncio
import time

from farmhand.gateway.backends import Declined
from farmhand.gateway.tables import SubscriptionTable
from farmhand.gateway.turn import Reason
from farmhand.subscription import rate

#: Seconds that a turn waits for its place.
WAIT_S = 30.0


class PlanTurns:
    """Who may ask the CLI now. The methods are for one event loop."""

    def __init__(self) -> None:
        self._place = asyncio.Lock()
        self._waiting = 0
        #: Whether the place's turn has ended, and the place is only being tidied up.
        self._ended = False
        self._limit: rate.PlanLimit | None = None
        self._use: rate.PlanUse | None = None
        self._refused: Reason | None = None

    @property
    def used(self) -> float | None:
        """Return the part of the fullest window that is used, None if it was not told."""
        most = self._use.most if self._use is not None else None
        return most[1].utilization if most else None

    def closed(self, table: SubscriptionTable, *, waits: bool = False) -> Reason | None:
        """Return why no turn is taken now; None if one is. With `waits` it has waited for its place already."""
        if self._refused is not None:
            return self._refused
        if self._limit is not None and self._limit.until > time.time():
            return Reason(self._limit.code, self._limit.words)
        # A turn that comes right after another one is not sent elsewhere, where it may have to be paid for.
        if not waits and self._place.locked() and self._waiting >= table.queue + self._ended:
            more = f", and {self._waiting} wait" if self._waiting else ""
            return Reason("busy", f"a turn is being answered{more}")
        return None

    def idle(self, table: SubscriptionTable) -> bool:
        """Return whether a turn may come and none waits: only then a process that waits for it is of use."""
        return not self._waiting and self.closed(table, waits=True) is None

    async def enter(self, table: SubscriptionTable) -> None:
        """Wait for the one place. Raise Declined if that takes too long, or the plan is closed by then."""
        if (reason := self.closed(table)) is not None:
            raise Declined(reason)
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_S):
                await self._place.acquire()
        except TimeoutError:
            raise Declined(Reason("busy", f"its one place was taken for {WAIT_S:.0f} s")) from None
        finally:
            self._waiting -= 1
        if (reason := self.closed(table, waits=True)) is not None:
            self._place.release()
            raise Declined(reason)

    def end(self) -> None:
        """Note that the turn has ended: its place is free soon."""
        self._ended = True

    def leave(self) -> None:
        """Give the place to the next turn."""
        self._ended = False
        self._place.release()

    def note(self, use: rate.PlanUse, table: SubscriptionTable) -> None:
        """Take what the CLI says of the plan's windows."""
        self._use = use
        found = rate.limit(use, reserve=table.reserve, allow_overage=table.allow_overage)
        self._limit = found or self._limit

    def used_up(self, table: SubscriptionTable) -> Reason:
        """Close the plan that has refused a turn for want of capacity, and return why."""
        if (reason := self.closed(table, waits=True)) is None:
            self._limit = rate.limit(rate.PlanUse(status="rejected"), reserve=0, allow_overage=False)
            reason = self.closed(table, waits=True)
        return reason or Reason("used_up", "the plan is used up")

    def refuse(self, reason: Reason) -> Reason:
        """Take no turn any more, until `reopen`."""
        self._refused = reason
        return reason

    def reopen(self) -> None:
        """Take turns again, at a reload. What is used of the plan's windows stays known."""
        self._refused = None
