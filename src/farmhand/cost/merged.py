"""The ledgers of all hosts merged into one store, with the inputs of the figures: prices, baseline, period, boxes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from farmhand.aws.environment.used import used
from farmhand.aws.prices import DEFAULT_REGION, cloud_prices
from farmhand.core.errors import FarmhandError, NotConfigured, UsageError, WireError, WireMismatch
from farmhand.core.keysource import read_key
from farmhand.core.money import pico, plain
from farmhand.core.prices import PriceTable, price_table
from farmhand.core.settings import Settings
from farmhand.core.since import since_day
from farmhand.cost import queries, sessions
from farmhand.cost.compare import Comparison, Given, compare
from farmhand.cost.compute import read_compute
from farmhand.cost.plans import plan_figures
from farmhand.cost.report import CostReport, report
from farmhand.cost.rows import BadLedger
from farmhand.cost.store import CostStore, LedgerPages, StoreUnwritable, default_path, pull
from farmhand.cost.summary import Basis, Figures, document, figures
from farmhand.places import docker
from farmhand.places.hosts import Host, every_host
from farmhand.wire.client import Client


class MergedLedgers(NamedTuple):
    """The merged ledgers and the basis of their figures.

    `status` is the exit status: that of the first host that could not be asked, else 0. `asked` is whether hosts were.
    """

    conf: Settings
    store: CostStore
    table: PriceTable
    basis: Basis
    status: int
    asked: bool

    def figures(self, *, by: str = "model", reprice: bool = False) -> Figures:
        """Return the figures grouped by `by`. With `reprice`, also at today's prices."""
        with self.store.transaction("DEFERRED"):
            everything = queries.read(self.store, self.table, by)
            return figures(self.store, self.table, everything, self.basis, by=by, reprice=reprice)

    def add_pots(self, shown: dict[str, Any]) -> None:
        """Add to a document with a headline what is left in each pot, by the charges that were merged.

        Whether one is closed is as the hosts last said it.
        """
        if not self.conf.pots:
            return
        from farmhand.core import pots

        query = "SELECT coalesce(sum(pico), 0) FROM charge WHERE pot = ? AND created_at >= ?"
        begun = pots.since(self.conf.pots, self.basis.now)
        spent = {name: int(self.store.rows(query, (name, since))[0][0]) for name, since in begun.items()}
        found = pots.left(self.conf.pots, spent, self.basis.now, self.store.closed_pots(self.basis.now))
        shown["pots"] = [
            {
                "name": one.name,
                "left_usd": plain(one.left_pico),
                "until": one.until,
                "api_closed_at": one.api_closed_at,
            }
            for one in found
        ]
        shown["headline"]["said"] += "".join(f" {one.said[:1].upper()}{one.said[1:]}." for one in found)

    def report(self) -> CostReport:
        """Return the figures that `farmhand report` draws."""
        with self.store.transaction("DEFERRED"):
            return report(self.store, self.table, self.basis)

    def comparison(self) -> Comparison:
        """Return the comparison of the same work on AWS, on a box, and in Message Batches. Raises NotConfigured."""
        there = used()
        region = there[0].region if there else self.conf.aws_region or DEFAULT_REGION
        today = datetime.fromtimestamp(self.basis.now, UTC).date()
        cloud = cloud_prices(region, self.conf.aws_prices_file, today)
        with self.store.transaction("DEFERRED"):
            ran = read_compute(self.store, self.basis.since_day)
            given = Given(self.table, cloud, plan_figures(), ran, self.conf.aws_network)
            found = compare(self.store, queries.read(self.store, self.table).of_farm(), self.basis, given)
        if self.asked and there:
            from farmhand.cost.on_aws import networks

            found.networks = [one.document() for one in networks(self.store, self.conf, self.basis.errors)]
        return found

    def provider(self) -> dict[str, Any] | None:
        """Return the provider's figures or the reason they are missing; None if no Admin key is configured.

        Raises WireError for an unreadable key.
        """
        if not self.conf.admin_key_source:
            return None
        from farmhand.cost import admin

        api = admin.AdminApi(read_key(self.conf.admin_key_source), self.conf.admin_url)
        with self.store.transaction("DEFERRED"):
            everything = queries.read(self.store, self.table)
        if everything.first_day is None:
            return {"error": "nothing was spent that could be compared"}
        first, end = max(self.basis.since_day, everything.first_day), int(self.basis.now // queries.DAY_S) + 1
        try:
            return document(admin.compare(api, queries.parts(everything.since(first), "model"), first, end))
        except admin.ProviderFailed as error:
            return {"error": str(error)}

    def months(self, typed: tuple[str, ...]) -> list[dict[str, Any]]:
        """Return our months beside the provider's: those typed in, and with an Admin key its report's.

        Raises UsageError. A report that cannot be had is `provider`'s to say.
        """
        if not typed and not self.conf.admin_key_source:
            return []
        from farmhand.cost import admin, console

        today = datetime.fromtimestamp(self.basis.now, UTC).date()
        theirs = {console.TYPED: console.typed_in(typed, today)}
        with self.store.transaction("DEFERRED"):
            everything = queries.read(self.store, self.table)
        if self.conf.admin_key_source and everything.first_day is not None:
            api = admin.AdminApi(read_key(self.conf.admin_key_source), self.conf.admin_url)
            with suppress(admin.ProviderFailed):
                first = max(self.basis.since_day, everything.first_day)
                theirs[console.REPORTED] = console.reported(api, first, today)
        return [document(one) for one in console.month_checks(theirs, queries.parts(everything, "day"), today)]

    def interactive(self) -> dict[str, Any]:
        """Return an estimate for the interactive sessions, from the CLI's own logs."""
        places, since = sessions.directories(), self.basis.since_day * queries.DAY_S
        unread = sessions.read(self.store, places)
        return document(sessions.interactive(self.store, self.table, since, places, unread))


@contextmanager
def merged(
    conf: Settings,
    since: str | None,
    tell: Callable[[str], None],
    *,
    ask: bool,
    here: Mapping[str, LedgerPages] = MappingProxyType({}),
) -> Iterator[MergedLedgers]:
    """Open the merged ledgers with the given settings. With `ask`, merge the new rows of every host first.

    `here` are the ledgers on this machine itself, by the name that they have among the hosts.
    `tell` gets a line if the file of merged ledgers has to be rebuilt, or cannot be written.
    Raises UsageError, NotConfigured.
    """
    now = time.time()
    table = price_table(conf.prices_path)
    baseline = table.resolve(conf.baseline_model)
    if baseline not in table.models:
        known = ", ".join(table.current)
        raise UsageError(f"no price is known for the baseline model {conf.baseline_model!r}", hint=f"known: {known}")
    first = since_day(since, datetime.fromtimestamp(now, UTC).date())
    farm = every_host(conf, needed=not used() and not here)
    boxes = box_prices(conf.box_usd_month, [name for name in farm if name != docker.NAME])
    path = Path(os.path.expanduser(conf.cost_store)) if conf.cost_store else default_path()
    if path.parts[:1] and path.parts[0].startswith("~"):  # it would be made below the working directory
        raise NotConfigured(f"the cost store {path} cannot be opened: there is no user {path.parts[0][1:]}")
    with closing(_opened(path, tell)) as store:
        if store.begun_again is not None:
            tell(f"{path} was of an older form: it is merged again from the hosts, and {store.begun_again} keeps it")
        errors = _merge_all(store, farm, conf.connect_timeout_s) if ask else {}
        for name, pages in here.items() if ask else ():
            try:
                pull(store, name, pages)
            except (NotConfigured, BadLedger) as error:
                errors[name] = error
        if ask and used():
            from farmhand.cost.on_aws import merge_environments  # not at the top: it takes time, and few need it

            errors |= merge_environments(store, conf)
        status = next((error.exit_code for error in errors.values()), 0)
        why = {host: str(error) for host, error in errors.items()}
        yield MergedLedgers(conf, store, table, Basis(first, now, baseline, boxes, why), status, ask)


def _opened(path: Path, tell: Callable[[str], None]) -> CostStore:
    try:
        return CostStore(path)
    except StoreUnwritable as error:
        store = CostStore(path, in_memory=True)
        tell(f"{error.message}; it is only read, and what is new is counted but not kept")
        return store


def _merge_all(store: CostStore, farm: dict[str, Host], connect_timeout_s: float) -> dict[str, FarmhandError]:
    """Merge the new rows of every host. Return the error of each host that could not be asked."""
    errors: dict[str, FarmhandError] = {}

    def connect(host: Host) -> Client | WireError:
        try:
            client = Client(host.transport(connect_timeout_s))
            client.connect()
            client.close()  # the idle connection may be gone by its turn; ssh shares one that stays
        except WireError as error:
            return error
        return client

    # Connect in parallel, so that waits for hosts that are down do not add up.
    with ThreadPoolExecutor(max_workers=16) as pool:
        clients = dict(zip(farm, pool.map(connect, farm.values()), strict=True))
    for name, client in clients.items():
        try:
            if isinstance(client, WireError):
                raise client
            with client:
                pull(store, name, client)
        except WireError as error:
            errors[name] = error.at(name)
        except (WireMismatch, BadLedger) as error:
            errors[name] = error
    return errors


def box_prices(text: str, names: list[str]) -> dict[str, int | None]:
    """Return pico-dollars per month by host, None if unset, from `24` or `farm1=24,farm2=12`. Raises NotConfigured."""
    prices: dict[str, int | None] = dict.fromkeys(names)
    for part in filter(None, (part.strip() for part in text.split(","))):
        host, equals, amount = part.rpartition("=")
        try:
            value = Decimal(amount.strip())
        except InvalidOperation:
            value = Decimal("NaN")
        if not (value.is_finite() and 0 <= value <= 1_000_000):
            hint = "24, or farm1=24,farm2=12"
            raise NotConfigured(f"box_usd_month: {part!r} is not US$ a month", hint=hint)
        name = host.strip()
        if equals and name not in prices:
            raise NotConfigured(f"box_usd_month: no farm host is called {name!r}", hint=f"known: {', '.join(names)}")
        prices |= dict.fromkeys([name] if equals else names, pico(value))
    return prices
