"""How the metered backend comes about: its key, its meter, and its gate, which the operator opens for a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, get_args

import msgspec

from farmhand.core.errors import NotConfigured, UsageError, WireError
from farmhand.core.keys import other_kind
from farmhand.core.keysource import read_key
from farmhand.core.money import pico
from farmhand.core.prices import PriceTable
from farmhand.core.rules import MAX_USD, is_budget
from farmhand.gateway.backends.metered import MeteredBackend
from farmhand.gateway.ledger import GatewayLedger
from farmhand.gateway.purse import Purse
from farmhand.gateway.tables import MeteredTable
from farmhand.gateway.turn import Allowance, WorkClass
from farmhand.meter.grants import Key
from farmhand.meter.meter import Meter, RetryPolicy
from farmhand.meter.upstream import Upstream

if TYPE_CHECKING:
    from farmhand.telemetry.spans import Tracing

#: Seconds without a byte after which the API counts as silent.
_IDLE_S = 600.0
#: The longest time for which the gate is opened.
MOST_S = 24 * 3600
_CLASSES: tuple[WorkClass, ...] = get_args(WorkClass)


class AllowRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `farmhand gateway allow metered` asks for; no classes are all. `stop` closes what is open."""

    seconds: float = 0.0
    max_usd: str = ""
    classes: tuple[WorkClass, ...] = ()
    stop: bool = False


class MeteredSetup:
    """Makes the backend of the settings in force. The meter and the purse are those of the process."""

    def __init__(
        self, ledger: GatewayLedger, environ: Mapping[str, str] = os.environ, *, tracing: Tracing | None = None
    ) -> None:
        self._tracing = tracing
        self._purse = Purse(ledger)
        self._environ = environ
        #: By the address and the version of the prices.
        self._meters: dict[tuple[str, str], tuple[Upstream, Meter]] = {}

    def pays(self, table: MeteredTable) -> bool:
        """Return whether turns may be paid for with these settings now: they say so, or what is open for a time."""
        return table.enabled or (self._has_source(table) and self._purse.allowance is not None)

    def _has_source(self, table: MeteredTable) -> bool:
        return bool(table.key_source or self._environ.get(table.auth_env))

    def made(self, table: MeteredTable, prices: PriceTable, key: Key | None = None) -> MeteredBackend | None:
        """Return the backend; None if metered is off, and there is no key with which it could be opened.

        `key` is that of `table`, if it was read before. Raise NotConfigured if turns may be paid for and the key cannot
        be read, or is none.
        """
        if self.pays(table):
            key = key or key_of(table)
            self._purse.claim()
        elif not self._has_source(table):
            self._purse.stop()
            return None
        if (kind := (table.url, prices.version)) not in self._meters:
            upstream = Upstream(table.url, idle_s=_IDLE_S)
            retry = RetryPolicy(attempts=2, wait=False)
            self._meters[kind] = (upstream, Meter(upstream, retry=retry, price=prices.cost))
        self._purse.limit(table.day_pico)
        return MeteredBackend(table, key, self._meters[kind][1], self._purse, prices, self._tracing)

    def close(self) -> None:
        """Close what was opened for a time, and the idle connections."""
        self._purse.close()
        for upstream, _ in self._meters.values():
            upstream.close()


def key_of(table: MeteredTable) -> Key:
    """Return the key from its source. Raise NotConfigured. No message contains any part of it."""
    source = table.key_source or f"env:{table.auth_env}"
    where = "key_source" if table.key_source else "auth_env"
    try:
        text = read_key(source)
    except WireError as error:
        raise NotConfigured(f"[metered] {where}: {error.message}", hint=error.hint) from None
    if kind := other_kind(text):
        raise NotConfigured(f"[metered] {where}: it is {kind}, not a metered API key", hint="put the API key there")
    return Key(text)


async def open_for(backend: MeteredBackend | None, asked: AllowRequest) -> Allowance:
    """Open the gate for a time. Raise NotConfigured if there is no key, UsageError if what is asked for is none."""
    try:
        amount = Decimal(asked.max_usd)
    except InvalidOperation:
        amount = Decimal(0)
    if not is_budget(amount) or pico(amount) == 0:
        raise UsageError(f"{asked.max_usd[:40]!r} is not an amount above 0 and up to {MAX_USD} US$")
    if not 0 < asked.seconds <= MOST_S:
        raise UsageError(f"{asked.seconds:g} seconds are not a time of up to {MOST_S // 3600} hours")
    if backend is None:
        raise NotConfigured("[metered] has no key", hint="set the variable that auth_env names, or key_source")
    if backend.key is None:
        # A source may be a program that asks for a passphrase.
        backend.key = await asyncio.to_thread(key_of, backend.table)
    backend.purse.claim()
    return backend.purse.allow(asked.seconds, pico(amount), asked.classes or _CLASSES)
