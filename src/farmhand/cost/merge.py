"""Merging a host's ledger into the store: rows after the cursor, line by line, in constant memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from farmhand.core.errors import WireMismatch
from farmhand.cost.rows import BadLedger, FinishedTask, LedgerCharge, decode
from farmhand.cost.store import CHUNK, CostStore

#: Time limit in seconds for merging one host's ledger. A year of busy days takes a fraction of it.
WITHIN_S = 300.0


class Agent(Protocol):
    """The methods needed from `farmhand.wire.client.Client`."""

    def status(self) -> dict[str, Any]:
        """Return `GET /v1/status`."""

    def charges(self, after: int, limit: int) -> Iterator[bytes]:
        """Yield the lines of `GET /v1/charges`."""

    def finished(self, after: int, limit: int) -> Iterator[bytes]:
        """Yield the lines of `GET /v1/finished`."""


def pull(store: CostStore, host: str, agent: Agent) -> int:
    """Merge the new rows of the agent's ledger on `host`. Return the number of lines.

    If interrupted, merged rows stay and the next call continues after them. Raises WireError, BadLedger, and
    WireMismatch if the agent is too old to have a ledger that can be merged.
    """
    status = agent.status()
    ledger = status.get("ledger")
    uuid = ledger.get("id") if isinstance(ledger, dict) else None
    if not isinstance(uuid, str) or not uuid:
        raise WireMismatch(f"{host}: the agent is too old for farmhand cost", hint="upgrade the farm host: farmhand up")
    number, charge_no, done_no = store.ledger(uuid, host)
    try:
        came = store.merge(number, LedgerCharge, _new(LedgerCharge, agent.charges, charge_no))
        came += store.merge(number, FinishedTask, _new(FinishedTask, agent.finished, done_no))
    except BadLedger as error:
        raise BadLedger(f"{host}: {error.message}", hint=error.hint) from None
    budget = status.get("budget_day")
    store.merged(number, time.time(), json.dumps(budget) if isinstance(budget, dict) else None)
    return came


def _new(
    kind: type[LedgerCharge | FinishedTask], ask: Callable[[int, int], Iterator[bytes]], after: int
) -> Iterator[LedgerCharge | FinishedTask]:
    """Yield the rows after `after`, page by page, until a page is not full."""
    end, came = time.monotonic() + WITHIN_S, CHUNK
    while came >= CHUNK:
        came, first = 0, after
        for line in ask(first, CHUNK):
            row = decode(kind, line)
            if row.number < after or row.number == first:
                raise BadLedger(f"number {row.number} of the ledger comes behind {after}")
            after, came = row.number, came + 1
            yield row
            if time.monotonic() > end:
                hint = "the same command goes on from there"
                raise BadLedger(f"its ledger has not ended after {WITHIN_S:g} s", hint=hint)
