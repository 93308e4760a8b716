"""`farmhand cost`: what the farm spent and what that saved, from the ledgers of all hosts."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click

from farmhand.cli import render
from farmhand.cli.app import note
from farmhand.core import settings
from farmhand.core.decoding import as_text
from farmhand.core.errors import FarmhandError, NotConfigured, UsageError, WireError, WireMismatch
from farmhand.core.keysource import read_key
from farmhand.core.money import pico
from farmhand.core.prices import PriceTable, price_table
from farmhand.cost import merge, queries, sessions
from farmhand.cost.rows import BadLedger
from farmhand.cost.store import CostStore, default_path
from farmhand.cost.summary import Figures, document, figures
from farmhand.places import hosts
from farmhand.wire import problems
from farmhand.wire.client import Client

_SPAN = re.compile(r"(\d{1,5})([dw])")
_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
#: What a cell begins with that spreadsheets evaluate (also in the wide forms), or pass over before they look.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
_BLANK = ("\t", "\r", "\n")


#: What `farmhand cost` and `farmhand report` both take.
_OPTIONS = (
    click.option(
        "--since", metavar="WHEN", help="From this day on (UTC): 2026-11-01, 2026-11, 30d, 4w. All by default."
    ),
    click.option("--no-merge", is_flag=True, help="Ask no host: only what was merged before."),
    click.option("--baseline-model", metavar="MODEL", help="What the work is compared with. Default: sonnet."),
    click.option("--box-usd-month", metavar="US$", help="What a host costs a month: 24, or farm1=24,farm2=12."),
    click.option("--prices-file", metavar="FILE", help="Your own prices, over those that come with farmhand."),
    click.option("--cost-store", metavar="FILE", help="The file that keeps the merged ledgers."),
    click.option("--connect-timeout", type=float, metavar="SECONDS", help="How long reaching a farm host may take."),
    click.option("--config", metavar="FILE", help="The settings file."),
)


def ledger_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which figures of the merged ledgers it is about, and by which settings."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command("cost", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--by", default="model", metavar="WHAT", help=f"Group by {', '.join(queries.KEYS)} or label:NAME.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; amounts are exact strings in US$.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the groups as CSV, with the same amounts.")
@click.option("--reprice", is_flag=True, help="Show beside it what the same requests cost by today's price table.")
@click.option("--no-interactive", is_flag=True, help="Leave the CLI's own session logs alone.")
@click.option("--admin-key-source", metavar="SOURCE", help="Where the Admin key is, for the provider's own figures.")
@click.option("--admin-url", metavar="URL", help="Where the Admin API is.")
@ledger_options
def command(
    since: str | None,
    by: str,
    as_json: bool,
    as_csv: bool,
    reprice: bool,
    no_merge: bool,
    no_interactive: bool,
    config: str | None,
    connect_timeout: float | None,
    **flags: Any,
) -> int:
    """Show what the farm spent, and what that saved. The exit status is 4 if a host could not be asked."""
    try:
        if as_json and as_csv:
            raise UsageError("--json and --csv: choose one")
        by = as_text(by, "--by")
        conf = settings.load(config, connect_timeout_s=connect_timeout, **flags)
        now = time.time()
        answer = _answer(conf, now, since=since, by=by, reprice=reprice, merge=not no_merge, logs=not no_interactive)
    except FarmhandError as error:
        if as_json:
            render.write_json(render.error_object(error))
        raise
    found, extra, status = answer
    shown = document(found) | extra
    if as_json:
        render.write_json(shown)
    elif as_csv:
        render.write_bytes(as_csv_text(shown))
    else:
        from farmhand.cli import cost_view

        cost_view.write(shown)
    return status


def _answer(
    conf: settings.Settings, now: float, *, since: str | None, by: str, reprice: bool, merge: bool, logs: bool
) -> tuple[Figures, dict[str, Any], int]:
    """The figures, what the provider and the session logs say (as in the document), and the exit status."""
    table = price_table(conf.prices_path)
    baseline = baseline_of(conf, table)
    first = since_day(since, datetime.fromtimestamp(now, UTC).date())
    farm = hosts.load_hosts(conf.hosts_path)
    boxes = box_prices(conf.box_usd_month, list(farm))
    store = open_store(conf)
    try:
        errors = merge_all(store, farm, conf.connect_timeout_s) if merge else {}
        everything = queries.read(store, table, by)
        found = figures(
            store,
            table,
            everything,
            by=by,
            since_day=first,
            now=now,
            baseline=baseline,
            boxes=boxes,
            errors={host: str(error) for host, error in errors.items()},
            reprice=reprice,
        )
        extra = {
            "provider": _provider(conf, everything, first, now),
            "interactive": _interactive(store, table, first) if logs else None,
        }
    finally:
        store.close()
    return found, extra, next(iter(errors.values())).exit_code if errors else 0


def baseline_of(conf: settings.Settings, table: PriceTable) -> str:
    """The id of the model that the work is compared with. Raises UsageError."""
    baseline = table.resolve(conf.baseline_model)
    if baseline not in table.models:
        known = ", ".join(table.current)
        raise UsageError(f"no price is known for the baseline model {conf.baseline_model!r}", hint=f"known: {known}")
    return baseline


def open_store(conf: settings.Settings) -> CostStore:
    """The merged ledgers."""
    store = CostStore(Path(conf.cost_store).expanduser() if conf.cost_store else default_path())
    if store.begun_again is not None:
        note(f"{store.path} was of an older form: it is merged again from the hosts, and {store.begun_again} keeps it")
    return store


def merge_all(store: CostStore, farm: dict[str, hosts.Host], connect_timeout_s: float) -> dict[str, FarmhandError]:
    """Merge what is new on every host; why those could not be asked that could not."""
    errors: dict[str, FarmhandError] = {}

    def connect(host: hosts.Host) -> Client | FarmhandError:
        try:
            client = Client(host.transport(connect_timeout_s))
            client.connect()
            client.close()  # its turn may come when an idle connection is gone; ssh shares one that stays
        except WireError as error:
            return problems.from_wire(error, host.name)
        return client

    # All at once, so that hosts that are down keep nobody waiting one after the other.
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


def _provider(conf: settings.Settings, everything: queries.Sums, first: int, now: float) -> dict[str, Any] | None:
    """The provider's figures, or why they cannot be had; None where no Admin key is configured."""
    if not conf.admin_key_source:
        return None
    from farmhand.cost import admin

    try:
        key = read_key(conf.admin_key_source)
    except WireError as error:
        raise problems.from_wire(error) from None
    api = admin.AdminApi(key, conf.admin_url)
    if (start := everything.first_day) is None:
        return {"error": "nothing was spent that could be compared"}
    try:
        ours = queries.parts(everything.since(first), "model")
        return document(admin.compare(api, ours, max(first, start), int(now // queries.DAY_S) + 1))
    except admin.ProviderFailed as error:
        return {"error": str(error)}


def _interactive(store: CostStore, table: PriceTable, first: int) -> dict[str, Any]:
    places = sessions.directories()
    unread = sessions.read(store, places)
    return document(sessions.interactive(store, table, first * queries.DAY_S, places, unread))


def since_day(text: str | None, today: date) -> int:
    """The day (since 1970) that `--since` names; 0 for all. Raises UsageError."""
    if text is None:
        return 0
    span = _SPAN.fullmatch(text)
    if span:
        # Today is the last of the days asked for.
        days = int(span[1]) * (7 if span[2] == "w" else 1)
        return max(0, (today - date(1970, 1, 1)).days - days + 1)
    try:
        day = date.fromisoformat(f"{text}-01" if re.fullmatch(r"\d{4}-\d{2}", text) else text)
    except ValueError:
        raise UsageError(f"--since {text!r}: not a day", hint="2026-11-01, 2026-11, 30d or 4w") from None
    if not date(1970, 1, 1) <= day <= today + timedelta(days=1):
        raise UsageError(f"--since {text}: that is not in the past")
    return (day - date(1970, 1, 1)).days


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


def as_csv_text(shown: dict[str, Any]) -> str:
    """The groups as CSV (RFC 4180); the first column is named for what they are grouped by."""
    out = io.StringIO()
    rows: list[dict[str, Any]] = shown["groups"]
    columns = list(shown["whole"])
    writer = csv.writer(out)
    writer.writerow([shown["by"], *columns[1:]])
    writer.writerows([_cell(row[column]) for column in columns] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    """A cell's value that no spreadsheet takes for a formula: a text that begins like one gets a quote in front.

    Numbers are left as they are, negative ones too.
    """
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    text = render.printable(value)
    return f"'{text}" if value[:1] in _BLANK or value.lstrip()[:1] in _FORMULA else text
