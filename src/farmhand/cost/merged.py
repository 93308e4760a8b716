"""The ledgers of all hosts merged into one store, with what figures are made of: prices, baseline, period, boxes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from farmhand.core.errors import FarmhandError, NotConfigured, UsageError, WireError, WireMismatch
from farmhand.core.keysource import read_key
from farmhand.core.money import pico
from farmhand.core.prices import PriceTable, price_table
from farmhand.core.settings import Settings
from farmhand.cost import merge, queries, sessions
from farmhand.cost.report import CostReport, report
from farmhand.cost.rows import BadLedger
from farmhand.cost.store import CostStore, default_path
from farmhand.cost.summary import Figures, document, figures
from farmhand.places.hosts import Host, load_hosts
from farmhand.wire import problems
from farmhand.wire.client import Client

_SPAN = re.compile(r"(\d{1,5})([dw])")
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, kw_only=True)
class MergedLedgers:
    """The merged ledgers since the day `first` (counted from 1970), seen at `now`.

    `baseline` is the model that the work is compared with, `boxes` the hosts' prices in pico-dollars a month, `errors`
    why hosts could not be asked.
    """

    conf: Settings
    store: CostStore
    table: PriceTable
    first: int
    now: float
    baseline: str
    boxes: dict[str, int | None]
    errors: dict[str, FarmhandError]

    @property
    def status(self) -> int:
        """The exit status: that of the first host which could not be asked, else 0."""
        return next((error.exit_code for error in self.errors.values()), 0)

    def figures(self, *, by: str = "model", reprice: bool = False) -> Figures:
        """The figures, grouped by `by`; with `reprice` also by today's prices."""
        errors = {host: str(error) for host, error in self.errors.items()}
        return figures(
            self.store,
            self.table,
            by=by,
            since_day=self.first,
            now=self.now,
            baseline=self.baseline,
            boxes=self.boxes,
            errors=errors,
            reprice=reprice,
        )

    def report(self) -> CostReport:
        """The figures that `farmhand report` draws."""
        return report(self.store, self.table, self.figures(), since_day=self.first, now=self.now)

    def provider(self) -> dict[str, Any] | None:
        """The provider's figures, or why they cannot be had; None where no Admin key is configured.

        Raises WireError for a key that cannot be read.
        """
        if not self.conf.admin_key_source:
            return None
        from farmhand.cost import admin

        api = admin.AdminApi(read_key(self.conf.admin_key_source), self.conf.admin_url)
        start = queries.first_day(self.store)
        if start is None:
            return {"error": "nothing was spent that could be compared"}
        start = max(self.first, start)
        try:
            ours = queries.parts(self.store, "model", start)
            return document(admin.compare(api, ours, start, int(self.now // queries.DAY_S) + 1))
        except admin.ProviderFailed as error:
            return {"error": str(error)}

    def interactive(self) -> dict[str, Any]:
        """An estimate of the interactive sessions, from the CLI's own logs."""
        places = sessions.directories()
        unread = sessions.read(self.store, places)
        return document(sessions.interactive(self.store, self.table, self.first * queries.DAY_S, places, unread))


@contextmanager
def merged(conf: Settings, since: str | None, *, ask: bool) -> Iterator[MergedLedgers]:
    """The merged ledgers by the settings; with `ask` what is new on every host is merged before.

    Raises UsageError, NotConfigured.
    """
    now = time.time()
    table = price_table(conf.prices_path)
    baseline = table.resolve(conf.baseline_model)
    if baseline not in table.models:
        known = ", ".join(table.current)
        raise UsageError(f"no price is known for the baseline model {conf.baseline_model!r}", hint=f"known: {known}")
    first = since_day(since, datetime.fromtimestamp(now, UTC).date())
    farm = load_hosts(conf.hosts_path)
    boxes = box_prices(conf.box_usd_month, list(farm))
    path = Path(conf.cost_store).expanduser() if conf.cost_store else default_path()
    store = CostStore(path, queries.breaks(table))
    try:
        errors = _merge_all(store, farm, conf.connect_timeout_s) if ask else {}
        yield MergedLedgers(
            conf=conf, store=store, table=table, first=first, now=now, baseline=baseline, boxes=boxes, errors=errors
        )
    finally:
        store.close()


def _merge_all(store: CostStore, farm: dict[str, Host], connect_timeout_s: float) -> dict[str, FarmhandError]:
    """Merge what is new on every host. Returns why hosts could not be asked."""
    errors: dict[str, FarmhandError] = {}

    def connect(host: Host) -> Client | FarmhandError:
        try:
            client = Client(host.transport(connect_timeout_s))
            client.connect()
            client.close()  # its turn may come when an idle connection is gone; ssh shares one that stays
        except WireError as error:
            return problems.from_wire(error, host.name)
        return client

    # All at once, so that the waits for hosts that are down do not add up.
    with ThreadPoolExecutor(max_workers=16) as pool:
        clients = dict(zip(farm, pool.map(connect, farm.values()), strict=True))
    for name, client in clients.items():
        if isinstance(client, FarmhandError):
            errors[name] = client
            continue
        try:
            with client:
                merge.pull(store, name, client)
        except WireError as error:
            errors[name] = problems.from_wire(error, name)
        except (WireMismatch, BadLedger) as error:
            errors[name] = error
    return errors


def since_day(text: str | None, today: date) -> int:
    """The day (since 1970) that `--since` names; 0 for all. Raises UsageError."""
    if text is None:
        return 0
    span = _SPAN.fullmatch(text)
    if span:
        # Today is the last of the days asked for.
        days = int(span[1]) * (7 if span[2] == "w" else 1)
        return max(0, (today - _EPOCH).days - days + 1)
    try:
        day = date.fromisoformat(f"{text}-01" if re.fullmatch(r"\d{4}-\d{2}", text) else text)
    except ValueError:
        raise UsageError(f"--since {text!r}: not a day", hint="2026-11-01, 2026-11, 30d or 4w") from None
    if not _EPOCH <= day <= today + timedelta(days=1):
        raise UsageError(f"--since {text}: that is not in the past")
    return (day - _EPOCH).days


def box_prices(text: str, names: list[str]) -> dict[str, int | None]:
    """Pico-dollars a month by host, from `24` or `farm1=24,farm2=12`; None for a host without one. NotConfigured."""
    prices: dict[str, int | None] = dict.fromkeys(names)
    for part in filter(None, (part.strip() for part in text.split(","))):
        host, equals, amount = part.rpartition("=")
        try:
            value = Decimal(amount.strip())
            if not (value.is_finite() and 0 <= value <= 1_000_000):
                raise InvalidOperation
        except InvalidOperation:
            hint = "24, or farm1=24,farm2=12"
            raise NotConfigured(f"box_usd_month: {part!r} is not US$ a month", hint=hint) from None
        if equals and host.strip() not in prices:
            raise NotConfigured(
                f"box_usd_month: no farm host is called {host.strip()!r}", hint=f"known: {', '.join(names)}"
            )
        for name in [host.strip()] if equals else names:
            prices[name] = pico(value)
    return prices
