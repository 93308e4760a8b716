"""The rows of the daemon's ledger on their way to the bucket, and the money in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal

import msgspec

from farmhand.cloud.ending import count
from farmhand.core.money import pico, usd
from farmhand.core.shard import LedgerPart, Pico
from farmhand.wire.client import Client
from farmhand.wire.transport import Transport

#: Rows of one request.
_PAGE = 10_000


class _ChargeMoney(msgspec.Struct):
    """What counts of a charge."""

    charge_id: int
    cost_usd: Decimal | None = None


class _FinishedMoney(msgspec.Struct):
    """What counts of a finished task; its `cost_usd` is in its charges too."""

    finish_seq: int
    uncertain: int = 0
    uncertain_usd: Decimal | None = None


def spent_in(charge: bytes) -> Pico:
    """Return what a charge has cost, 0 if that is not known."""
    cost = msgspec.json.decode(charge, type=_ChargeMoney).cost_usd
    return 0 if cost is None else pico(cost)


def uncertain_in(finished: bytes) -> Pico:
    """Return what a finished task may have cost beyond its charges, 0 if that is not known."""
    bound = msgspec.json.decode(finished, type=_FinishedMoney).uncertain_usd
    return 0 if bound is None else pico(bound)


#: What a result of work on the operator's own plan says in the place of its cost, as that of the fallback to a
#: subscription does; its price is `list_usd`.
OF_PLAN = {"residency": "subscription", "cost_usd": None}


def row_of_plan(row: bytes) -> bytes:
    """Return a row of work on the operator's own plan: no key is billed for it, so in the sums it costs nothing.

    What it costs by key is `list_usd`, as it was written.
    """
    found = msgspec.json.decode(row, type=dict[str, msgspec.Raw])
    nothing = {name: 0 for name in ("cost_usd", "uncertain_usd") if name in found}
    return msgspec.json.encode({**found, **OF_PLAN, **nothing, "list_usd": found.get("cost_usd")})


class LedgerRows:
    """The rows of the ledger named `ledger` of the daemon behind `transport`; with `plan` nobody is billed for them."""

    def __init__(self, transport: Transport, ledger: str, *, plan: bool = False) -> None:
        self._transport = transport
        self._ledger = ledger
        self._plan = plan
        self._charge_id = self._finish_seq = 0
        self._charges: list[bytes] = []
        self._finished: list[bytes] = []
        #: The charges so far; what ended tasks may have cost beyond; whether that is all.
        self.spent = self.uncertain = self._counted = 0
        self.known = True

    def read(self) -> None:
        """Read the new rows. Raise WireError."""
        with Client(self._transport) as client:
            for row in _pages(client.finished, lambda: self._finish_seq):
                task = msgspec.json.decode(row, type=_FinishedMoney)
                self.uncertain += uncertain_in(row)
                self.known = self.known and not (task.uncertain and task.uncertain_usd is None)
                self._finish_seq = task.finish_seq
                self._finished.append(row)
            # After the tasks: the charges of each are there before its end.
            for row in _pages(client.charges, lambda: self._charge_id):
                charge = msgspec.json.decode(row, type=_ChargeMoney)
                self.spent += spent_in(row)
                self.known = self.known and charge.cost_usd is not None
                self._charge_id = charge.charge_id
                self._charges.append(row)

    def part(self) -> bytes:
        """Return what came since the last part as the next one, b"" for nothing. Raise WireError."""
        self.read()
        charges, finished = self._charges, self._finished
        self._charges, self._finished = [], []
        if self._plan:
            charges, finished = [list(map(row_of_plan, rows)) for rows in (charges, finished)]
        if charges:
            count(usd(0 if self._plan else self.spent - self._counted), len(charges))
            self._counted = self.spent
        return ledger_part(self._ledger, charges, finished)


def _pages(read: Callable[[int, int], Iterator[bytes]], after: Callable[[], int]) -> Iterator[bytes]:
    while True:
        count = 0
        for row in read(after(), _PAGE):
            count += 1
            yield row
        if count < _PAGE:
            return


def ledger_part(ledger: str, charges: list[bytes], finished: list[bytes]) -> bytes:
    """Return a part of a ledger, b"" if it has no rows."""
    if not charges and not finished:
        return b""
    head = msgspec.json.encode(LedgerPart(ledger=ledger, charges=len(charges), finished=len(finished)))
    return b"\n".join([head, *charges, *finished]) + b"\n"
