"""`farmhand report`: the same figures as `farmhand cost`, drawn: one HTML file, or on the terminal."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from farmhand.cli import render
from farmhand.cli.cost import baseline_of, box_prices, ledger_options, merge_all, open_store, since_day
from farmhand.core import files, settings
from farmhand.core.errors import FarmhandError, NotConfigured, UsageError
from farmhand.core.prices import price_table
from farmhand.cost.report import CostReport, as_document, report
from farmhand.cost.summary import figures
from farmhand.places import hosts


@click.command("report", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--html", metavar="FILE", help="Write one self-contained page instead; - is stdout.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: what the page is made of.")
@ledger_options
def command(
    html: str | None,
    as_json: bool,
    since: str | None,
    no_merge: bool,
    config: str | None,
    connect_timeout: float | None,
    **flags: Any,
) -> int:
    """Show where the money went, drawn. The exit status is 4 if a host could not be asked."""
    try:
        if as_json and html is not None:
            raise UsageError("--json and --html: choose one")
        conf = settings.load(config, connect_timeout_s=connect_timeout, **flags)
        found, status = _report(conf, time.time(), since=since, merge=not no_merge)
        if html is not None:
            from farmhand.cost.report_html import page

            _write(html, page(as_document(found)))
        elif as_json:
            render.write_json(as_document(found))
        else:
            from farmhand.cli import report_view

            report_view.write(found)
    except FarmhandError as error:
        if as_json:
            render.write_json(render.error_object(error))
        raise
    return status


def _report(conf: settings.Settings, now: float, *, since: str | None, merge: bool) -> tuple[CostReport, int]:
    """The report, and the exit status."""
    table = price_table(conf.prices_path)
    baseline = baseline_of(conf, table)
    first = since_day(since, datetime.fromtimestamp(now, UTC).date())
    farm = hosts.load_hosts(conf.hosts_path)
    boxes = box_prices(conf.box_usd_month, list(farm))
    store = open_store(conf, table)
    try:
        errors = merge_all(store, farm, conf.connect_timeout_s) if merge else {}
        why = {host: str(error) for host, error in errors.items()}
        found = figures(store, table, by="model", since_day=first, now=now, baseline=baseline, boxes=boxes, errors=why)
        answer = report(store, table, found, since_day=first, now=now)
    finally:
        store.close()
    return answer, next(iter(errors.values())).exit_code if errors else 0


def _write(name: str, text: str) -> None:
    """The page to stdout, or to the file at once as a whole, readable by its owner only."""
    if name == "-":
        render.write_bytes(text)
        return
    path = Path(name).expanduser()
    try:
        files.replace(path, text.encode(), mode=0o600)
    except OSError as error:
        raise NotConfigured(f"{path} cannot be written: {error.strerror}", hint="name another file") from None
