"""The turns on a plan: one at a time, some that wait, and when the plan is closed.

One at a time is for all gateways of the operator: each locks a file for its turn. That a window is used up outlives a
reload and, in `gateway.db`, a restart.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from farmhand.core.errors import NotConfigured
from farmhand.gateway.backends import Declined
from farmhand.gateway.ledger import GatewayLedger, kept
from farmhand.gateway.locking import lock, plan_lock
from farmhand.gateway.tables import SubscriptionTable
from farmhand.gateway.turn import Reason
from farmhand.subscription import rate

#: Seconds that a turn waits for its place.
WAIT_S = 30.0
#: How often it looks whether another gateway's turn has ended.
_LOOK_S = 0.1
#: The name of what the ledger keeps.
_KEPT = "plan"


class _Closed(msgspec.Struct, frozen=True):
    """A used window: of which login, why and until when it is closed, and what the CLI had said."""

    account: str
    limit: rate.PlanLimit
    use: rate.PlanUse | None = None


class PlanTurns:
    """Who may ask the CLI now. The methods are for one event loop."""

    def __init__(self, book: GatewayLedger | None = None, lock_path: Path | None = None) -> None:
        self._book, self._lock_path, self._lock = book, lock_path or plan_lock(), -1
        self._account = ""
        self._place = asyncio.Lock()
        self._waiting = 0
        #: Whether the place's turn has ended, and the place is only being tidied up.
        self._ended = False
        self._closed: _Closed | None = None
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
        if self._closed is not None and _holds(self._closed, table):
            return Reason(self._closed.limit.code, self._closed.limit.words)
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
                try:
                    await self._lock_out()
                except BaseException:
                    self._place.release()
                    raise
        except TimeoutError:
            raise Declined(Reason("busy", f"its one place was taken for {WAIT_S:.0f} s")) from None
        finally:
            self._waiting -= 1
        self._recall()
        if (reason := self.closed(table, waits=True)) is not None:
            self.leave()
            raise Declined(reason)

    async def _lock_out(self) -> None:
        """Wait until no other gateway of the operator has a turn on the plan. Raise Declined if that cannot be told."""
        try:
            self._lock_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            while (found := lock(self._lock_path)) is None:  # noqa: ASYNC110  (another process has it)
                await asyncio.sleep(_LOOK_S)
        except OSError as error:
            raise Declined(Reason("lock", f"{self._lock_path}.lock cannot be locked: {error.strerror}")) from None
        self._lock = found

    def end(self) -> None:
        """Note that the turn has ended: its place is free soon."""
        self._ended = True

    def leave(self) -> None:
        """Give the place to the next turn."""
        self._ended = False
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        self._place.release()

    def use(self, account: str) -> None:
        """Take turns of this login from now on. Of another one nothing is known, but what the ledger kept."""
        if account != self._account:
            self._account, self._closed, self._use = account, None, None
            self._recall()

    def _recall(self) -> None:
        """Take what the ledger has of this login: from before a restart, or from another gateway."""
        with suppress(NotConfigured, msgspec.MsgspecError):
            if self._book is not None and (text := kept(self._book.path, _KEPT)):
                known = msgspec.json.decode(text, type=_Closed)
                if known.account == self._account and (self._closed is None or not _now(self._closed)):
                    self._closed = known
                    self._use = self._use or (known.use if _now(known) else None)

    def _close(self, limit: rate.PlanLimit, use: rate.PlanUse | None) -> None:
        known, self._closed = self._closed, _Closed(self._account, limit, use)
        same = known is not None and (known.limit.code, known.limit.until) == (limit.code, limit.until)
        if self._book is not None and not same:
            self._book.keep(_KEPT, msgspec.json.encode(self._closed).decode())

    def note(self, use: rate.PlanUse, table: SubscriptionTable) -> None:
        """Take what the CLI says of the plan's windows."""
        self._use = use
        found = rate.limit(use, reserve=table.reserve, allow_overage=table.allow_overage)
        if found is not None:
            self._close(found, use)

    def used_up(self, table: SubscriptionTable) -> Reason:
        """Close the plan that has refused a turn for want of capacity, and return why."""
        if (reason := self.closed(table, waits=True)) is None:
            if (found := rate.limit(rate.PlanUse(status="rejected"), reserve=0, allow_overage=False)) is not None:
                self._close(found, None)
            reason = self.closed(table, waits=True)
        return reason or Reason("used_up", "the plan is used up")

    def refuse(self, reason: Reason) -> Reason:
        """Take no turn any more, until `reopen`."""
        self._refused = reason
        return reason

    def reopen(self) -> None:
        """Take turns again, at a reload. What is used of the plan's windows stays known."""
        self._refused = None


def _now(closed: _Closed) -> bool:
    return closed.limit.until > time.time()


def _holds(closed: _Closed, table: SubscriptionTable) -> bool:
    """Return whether a window is closed still: with another reserve, or with extra usage allowed, it may be open."""
    if not _now(closed):
        return False
    if closed.limit.code == "used_up" or closed.use is None:
        return True
    return rate.limit(closed.use, reserve=table.reserve, allow_overage=table.allow_overage) is not None
