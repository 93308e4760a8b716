"""A container's part of its batch's budget: leased in slices, settled at the end. It never spends what it has not.

The daemon holds every request to what is leased: it reserves the most that a request may cost before it sends it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from farmhand.cloud.calls import CallFailed, ContainerTable
from farmhand.cloud.ending import say
from farmhand.core import leases
from farmhand.core.money import plain
from farmhand.core.shard import BatchItem, LeaseName, Pico, read_item

#: How often an update is tried whose condition another child has just changed, and seconds until it is tried again.
_TRIES = 5
_AGAIN_S = 1.0


class LeaseLost(Exception):
    """Another attempt has taken this one for dead and has settled its lease."""


class BudgetLease:
    """The lease of `holder`. `item` is the batch's item as last seen."""

    def __init__(self, table: ContainerTable, holder: LeaseName, item: BatchItem) -> None:
        self._table = table
        self._holder = holder
        self.item = item
        #: What is leased, in pico-dollars.
        self.held = 0
        self._not_before = 0.0

    @property
    def limited(self) -> bool:
        """Return whether the batch has a limit."""
        return self.item.limit is not None

    def others(self) -> list[LeaseName]:
        """Return who else has a lease."""
        return [name for name in self.item.leases if name != self._holder]

    def want(self, need: Pico, *, all_left: bool = False) -> bool:
        """Lease at least `need` more; with `all_left`, all that is left, even if that is less.

        Return whether that was possible; without an answer it was not. Raise LeaseLost.
        """
        if time.monotonic() < self._not_before and not all_left:
            return False
        for _ in range(_TRIES):
            item = self.item
            if item.state != "running" or item.limit is None or item.left is None:
                return False
            left = item.left // leases.GRAIN * leases.GRAIN
            more = left if all_left else leases.slice_of(left, need)
            if not more:
                break
            try:
                _, attributes = self._table.update(
                    leases.lease(self._table.batch, self._holder, held=self.held, more=more, limit=item.limit)
                )
            except CallFailed as error:
                say(str(error))
                break
            if not attributes:
                break
            self.item = read_item(attributes)
            now, before = self.item.leases.get(self._holder, 0), self.held
            if now < before:
                raise LeaseLost
            # More than before: by this update, or by an earlier one whose answer was lost.
            self.held = now
            if now > before and (all_left or now - before >= need):
                return True
        self._not_before = time.monotonic() + _AGAIN_S
        return False

    def settle(self, spent: Pico, uncertain: Pico) -> None:
        """End the lease. Raise CallFailed; the lease is then settled by another attempt, as one that was lost."""
        if self.held:
            self._end(self._holder, self.held, spent, uncertain)
            self.held = 0

    def settle_lost(self, known: Callable[[int], Pico]) -> None:
        """End the leases of this shard's earlier attempts, which have died.

        `known` returns what is known to have been spent by an attempt. The rest of its lease is uncertain.
        """
        for name, held in list(self.item.leases.items()):
            if name[:2] == self._holder[:2] and name.attempt < self._holder.attempt:
                spent = min(known(name.attempt), held)
                self._end(name, held, spent, held - spent)
                say(
                    f"attempt {name.attempt} ended without settling its lease: US$ {plain(spent)} were spent, "
                    f"{plain(held - spent)} are uncertain"
                )

    def _end(self, name: LeaseName, held: Pico, spent: Pico, uncertain: Pico) -> None:
        while held:
            done, attributes = self._table.update(
                leases.settle(self._table.batch, name, held=held, spent=spent, uncertain=uncertain)
            )
            if attributes:
                self.item = read_item(attributes)
            # Not done: it was by an earlier try, or the lease is larger than its holder knows.
            held = 0 if done or not attributes else self.item.leases.get(name, 0)
