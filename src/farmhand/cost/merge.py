"""Merging a host's ledger into the store: what is behind the cursor, line by line, in flat memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from farmhand.core.errors import WireMismatch
from farmhand.cost import rows
from farmhand.cost.store import CHUNK, CostStore

Row = TypeVar("Row", rows.LedgerCharge, rows.FinishedTask)
#: How long a call merges one host's ledger: a year of busy days takes a part of it. Seconds.
WITHIN_S = 300.0


class Agent(Protocol):
    """What is needed of `farmhand.wire.client.Client`."""

    def status(self) -> dict[str, Any]:
        """`GET /v1/status`."""

    def charges(self, after: int, limit: int) -> Iterator[bytes]:
        """The lines of `GET /v1/charges`."""

    def finished(self, after: int, limit: int) -> Iterator[bytes]:
        """The lines of `GET /v1/finished`."""


def pull(store: CostStore, host: str, agent: Agent) -> int:
    """Merge what is new in the ledger of the agent on `host`; how many lines that were.

    Stopped half-way, what was merged stays, and the next call goes on behind it. Raises WireError, BadLedger, and
    WireMismatch where the agent is too old to have a ledger that can be merged.
    """
    status = agent.status()
    ledger = status.get("ledger")
    uuid = ledger.get("id") if isinstance(ledger, dict) else None
    if not isinstance(uuid, str) or not uuid:
        raise WireMismatch(f"{host}: the agent is too old for farmhand cost", hint="upgrade the farm host: farmhand up")
    number, charge_no, done_no = store.ledger(uuid, host)
    try:
        came = _all(agent.charges, rows.charge, charge_no, lambda found: store.merge_charges(number, found))
        came += _all(agent.finished, rows.finished, done_no, lambda found: store.merge_done(number, found))
    except rows.BadLedger as error:
        raise rows.BadLedger(f"{host}: {error.message}", hint=error.hint) from None
    budget = status.get("budget_day")
    store.merged(number, time.time(), json.dumps(budget) if isinstance(budget, dict) else None)
    return came


def _all(
    ask: Callable[[int, int], Iterator[bytes]],
    read: Callable[[bytes], Row],
    after: int,
    merge: Callable[[Iterator[Row]], int],
) -> int:
    """Page through until a page is not full; how many lines that were."""
    total, end = 0, time.monotonic() + WITHIN_S
    while True:
        last = after

        def page() -> Iterator[Row]:
            nonlocal last
            for line in ask(after, CHUNK):  # noqa: B023  (used up before `after` moves)
                row = read(line)
                if row.number < last or row.number == after:  # noqa: B023
                    raise rows.BadLedger(f"number {row.number} of the ledger comes behind {last}")
                last = row.number
                yield row
                if time.monotonic() > end:
                    hint = "the same command goes on from there"
                    raise rows.BadLedger(f"its ledger has not ended after {WITHIN_S:g} s", hint=hint)

        came = merge(page())
        total += came
        if came < CHUNK or last <= after:
            return total
        after = last
