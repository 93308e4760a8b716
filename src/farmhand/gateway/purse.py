"""What metered turns may cost: the budgets of a day and of an allowance, and the ledger's rows of what is being paid.

The sums of the day are the ledger's own, so that a restart, or a kill, forgets nothing: before a turn is sent, its row
says what it may cost at the most, and it says so until the turn has ended at a known cost. All of it belongs to one
event loop.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence

import msgspec

from farmhand.core.errors import NotConfigured
from farmhand.gateway.ledger import GatewayLedger, TurnCharge, new_id
from farmhand.gateway.locking import lock
from farmhand.gateway.turn import Allowance, LabelBudget, WorkClass
from farmhand.meter.budget import Budget

DAY_S = 86_400
_OPENED = "INSERT INTO allowance (id, at, until, classes, pico) VALUES (?, ?, ?, ?, ?)"
_CLOSED = "UPDATE allowance SET ended_at = coalesce(ended_at, ?), spent = ? WHERE id = ?"


class _Opened(msgspec.Struct, frozen=True):
    """An open allowance. It ends by the wall clock or by the monotonic one, whichever is first."""

    id: str
    given: Allowance
    budget: Budget
    ends: float


def _used(opened: _Opened) -> int:
    """Return what of an allowance is spent, or reserved for turns that go on."""
    return opened.budget.spent_pico + opened.budget.reserved_pico


class Purse:
    """The money of the process: one, whatever the settings and however often they are read again."""

    def __init__(self, ledger: GatewayLedger) -> None:
        self._ledger = ledger
        self._limit: int | None = None
        self._day: tuple[int, Budget] | None = None
        #: The budgets of labels of that day, by name.
        self._labels: dict[str, Budget] = {}
        self._opened: _Opened | None = None
        self._lock: int | None = None

    def claim(self) -> None:
        """Claim the ledger for this process. Raise NotConfigured if another one pays from it: its sums would be two."""
        if self._lock is not None:
            return
        try:
            self._lock = lock(self._ledger.path)
        except OSError as error:
            raise NotConfigured(f"{self._ledger.path} cannot be locked: {error.strerror}") from None
        if self._lock is None:
            hint = "stop it, or set another XDG_STATE_HOME here"
            raise NotConfigured(f"another gateway pays from {self._ledger.path}", hint=hint)

    def close(self) -> None:
        """Close what is open, and leave the ledger to others."""
        self.stop()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def limit(self, day_pico: int | None) -> None:
        """Set the most for a UTC day, in pico-dollars; None for no limit but an allowance's."""
        self._limit = day_pico
        if self._day is not None:
            self._day[1].limit_pico = day_pico

    @property
    def day(self) -> Budget:
        """Return the budget of today (UTC). Raise NotConfigured if the ledger cannot be read."""
        today = int(time.time() // DAY_S)
        if self._day is None or self._day[0] != today:
            spent = self._ledger.spent(today * DAY_S, (today + 1) * DAY_S)
            self._day, self._labels = (today, Budget("day", self._limit, spent)), {}
        return self._day[1]

    def label(self, name: str, limit_pico: int) -> Budget:
        """Return today's budget of a label such as `project:website`. Raise NotConfigured if the ledger is unreadable.

        A limit that has changed is in force from now on.
        """
        _ = self.day
        assert self._day is not None  # noqa: S101
        if name not in self._labels:
            begins = self._day[0] * DAY_S
            self._labels[name] = Budget(f"day of {name}", None, self._ledger.spent(begins, begins + DAY_S, name))
        self._labels[name].limit_pico = limit_pico
        return self._labels[name]

    def labels(self, limits: Mapping[str, int]) -> tuple[LabelBudget, ...]:
        """Return what of these limits is spent or reserved. Raise NotConfigured."""
        found = [(name, limit, self.label(name, limit)) for name, limit in limits.items()]
        return tuple(
            LabelBudget(name=name, limit_pico=limit, spent_pico=budget.spent_pico + budget.reserved_pico)
            for name, limit, budget in found
        )

    @property
    def known_labels(self) -> tuple[str, ...]:
        """Return the labels that have had a budget today."""
        return tuple(self._labels)

    @property
    def allowance(self) -> Allowance | None:
        """Return what is opened for a time now, with what of it is spent or reserved."""
        if (opened := self._now_open()) is None:
            return None
        return msgspec.structs.replace(opened.given, spent_pico=_used(opened))

    def allow(self, seconds: float, pico: int, classes: Sequence[WorkClass]) -> Allowance:
        """Open the gate for a time, in place of what was opened before."""
        self.stop()
        given = Allowance(classes=tuple(classes), until=time.time() + seconds, limit_pico=pico)
        self._opened = _Opened(new_id(), given, Budget("allowance", pico), time.monotonic() + seconds)
        row = (self._opened.id, time.time(), given.until, " ".join(given.classes), pico)
        self._ledger.put(_OPENED, row, urgent=True)
        return given

    def stop(self) -> bool:
        """Close what was opened. Turns that it pays for go on. Return whether anything was open."""
        opened, self._opened = self._now_open(), None
        if opened is not None:
            self._ledger.put(_CLOSED, (time.time(), _used(opened), opened.id), urgent=True)
        return opened is not None

    def _now_open(self) -> _Opened | None:
        opened = self._opened
        if opened is not None and (time.monotonic() >= opened.ends or time.time() >= opened.given.until):
            self._opened = None
            self._ledger.put(_CLOSED, (opened.given.until, _used(opened), opened.id))
            return None
        return opened

    def pay(self, charge: TurnCharge, turn_pico: int, labels: Mapping[str, int], *, by_allowance: bool) -> Payment:
        """Return the payment of a turn. `charge` is its row as far as it is known; `labels` are its labels' limits."""
        budgets = [Budget("turn", turn_pico), self.day, *(self.label(name, most) for name, most in labels.items())]
        if by_allowance:
            if (opened := self._now_open()) is None:
                budgets[0] = Budget("allowance, which has ended", 0)
            else:
                budgets.append(opened.budget)
        return Payment(self._ledger, charge, tuple(budgets))


class Payment:
    """What one turn costs, from before it is sent to its end."""

    def __init__(self, ledger: GatewayLedger, charge: TurnCharge, budgets: tuple[Budget, ...]) -> None:
        self.budgets = budgets
        self._ledger = ledger
        self._charge = charge
        self._held: dict[int, int] = {}

    async def hold(self, number: int, most_pico: int | None) -> None:
        """Write down that the request `number` may cost `most_pico`. It is in the file when this returns."""
        first = not self._held
        self._held[number] = most_pico or 0
        pico = sum(self._held.values())
        row = msgspec.structs.replace(self._charge, held=pico, outcome="open")
        await asyncio.wrap_future(self._ledger.begun(row) if first else self._ledger.held(row.decision, pico))

    def end(self, charge: TurnCharge) -> None:
        """Write down what it came to. A turn that was never sent leaves no row."""
        if self._held:
            self._ledger.settled(charge)
