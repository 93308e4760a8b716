"""`farmhand cost`: the farm's spending and savings, from the ledgers of all hosts."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from typing import Any

import click

from farmhand.cli import say
from farmhand.cli.verb import VerbResult, verb
from farmhand.core.decoding import as_text
from farmhand.core.errors import UsageError
from farmhand.core.settings import Settings
from farmhand.cost import queries
from farmhand.cost.merged import merged
from farmhand.cost.summary import document

_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
#: First characters that make spreadsheets evaluate a cell (also in their full-width forms).
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
#: First characters that spreadsheets skip before they look for a formula.
_BLANK = ("\t", "\r", "\n")
_LEDGER_OPTIONS = (
    click.option(
        "--since", metavar="WHEN", help="From this day on (UTC): 2026-11-01, 2026-11, 30d, 4w. All by default."
    ),
    click.option("--no-merge", is_flag=True, help="Ask no host: only what was merged before."),
    click.option("--baseline-model", metavar="MODEL", help="What the work is compared with. Default: sonnet."),
    click.option("--box-usd-month", metavar="US$", help="What a host costs a month: 24, or farm1=24,farm2=12."),
    click.option("--prices-file", metavar="FILE", help="Your own prices, over those that come with farmhand."),
    click.option("--cost-store", metavar="FILE", help="The file that keeps the merged ledgers."),
)


def ledger_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select figures of the merged ledgers, and the settings that they depend on."""
    for option in reversed(_LEDGER_OPTIONS):
        function = option(function)
    return function


@verb("cost", "connect_timeout_s", json_help="Print one JSON object; amounts are exact strings in US$.")
@click.option("--by", default="model", metavar="WHAT", help=f"Group by {', '.join(queries.KEYS)} or label:NAME.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the groups as CSV, with the same amounts.")
@click.option("--reprice", is_flag=True, help="Show beside it what the same requests cost by today's price table.")
@click.option("--no-interactive", is_flag=True, help="Leave the CLI's own session logs alone.")
@click.option("--admin-key-source", metavar="SOURCE", help="Where the Admin key is, for the provider's own figures.")
@click.option("--admin-url", metavar="URL", help="Where the Admin API is.")
@ledger_options
def command(
    conf: Settings,
    *,
    since: str | None,
    by: str,
    as_json: bool,
    as_csv: bool,
    reprice: bool,
    no_merge: bool,
    no_interactive: bool,
) -> VerbResult:
    """Show what the farm spent, and what that saved. The exit status is 4 if a host could not be asked."""
    if as_json and as_csv:
        raise UsageError("--json and --csv: choose one")
    with merged(conf, since, say.note, ask=not no_merge) as ledgers:
        shown = document(ledgers.figures(by=as_text(by, "--by"), reprice=reprice))
        shown |= {"provider": ledgers.provider(), "interactive": None if no_interactive else ledgers.interactive()}
    if as_csv:
        return VerbResult(shown, as_csv_text(shown), ledgers.status)
    from farmhand.cli import cost_view

    return VerbResult(shown, lambda: cost_view.write(shown), ledgers.status)


def as_csv_text(shown: dict[str, Any]) -> str:
    """Return the groups as CSV (RFC 4180). The first column's name is the grouping key."""
    out = io.StringIO()
    columns = list(shown["whole"])
    writer = csv.writer(out)
    writer.writerow([shown["by"], *columns[1:]])
    writer.writerows([_cell(row[column]) for column in columns] for row in shown["groups"])
    return out.getvalue()


def _cell(value: Any) -> Any:
    """Return the value so that no spreadsheet takes it for a formula: a text that looks like one is prefixed with `'`.

    Numbers, also negative ones, are not changed.
    """
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    text = say.printable(value)
    return f"'{text}" if value[:1] in _BLANK or value.lstrip()[:1] in _FORMULA else text
