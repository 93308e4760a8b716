"""The gateway's ledger in the form in which agents give theirs, so that `farmhand cost` merges it like a host's.

It is read from the file: the gateway need not run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from farmhand.core.money import plain
from farmhand.core.task import Usage
from farmhand.gateway import ledger

#: The name that this machine has among the hosts.
WORKSTATION = "workstation"
ENGINE = "gateway"
#: Characters of a name that the cost store takes; a local server may call its model by a long path.
_MOST_NAME = 256


class WorkstationLedger:
    """The ledger in the file at `path`; see `LedgerPages` of `farmhand.cost.store`. Calls may raise NotConfigured."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def status(self) -> dict[str, Any]:
        """Return the ledger's id."""
        return {"ledger": {"id": ledger.kept(self._path, "id")}}

    def charges(self, after: int = 0, limit: int = 10000) -> Iterator[bytes]:
        """Yield the ended turns after number `after`, each as a charge of the engine `gateway`."""
        for number, charge in ledger.charged_after(self._path, after, limit):
            yield msgspec.json.encode(_row(number, charge))

    def finished(self, after: int = 0, limit: int = 10000) -> Iterator[bytes]:
        """Yield nothing: a turn is no task."""
        yield from ()


def _row(number: int, charge: ledger.TurnCharge) -> dict[str, Any]:
    row: dict[str, Any] = {
        "charge_id": number,
        "created_at": charge.created_at,
        "model": (charge.model or charge.backend)[:_MOST_NAME],
        "engine": ENGINE,
        "work_class": charge.work_class,
        "labels": charge.labels | {"residency": charge.residency},
        "requests": 1,
        "cost_usd": _usd(charge.pico),
        "list_usd": _usd(charge.list_pico),
        "held_usd": _usd(charge.held),
    }
    return row | {name: getattr(charge.usage, name) for name in Usage.__struct_fields__ if name != "requests"}


def _usd(pico: int | None) -> str | None:
    return None if pico is None else plain(pico)


def ledgers_here() -> dict[str, WorkstationLedger]:
    """Return the gateway's ledger by the name of this machine; nothing if it has never run here."""
    path = ledger.default_path()
    return {WORKSTATION: WorkstationLedger(path)} if path.exists() else {}
