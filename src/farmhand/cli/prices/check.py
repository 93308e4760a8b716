"""`farmhand prices check`: how the provider's price page differs from the price table."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path

import click
import msgspec

from farmhand.cli.sheet import Sheet
from farmhand.cli.verb import VerbResult, verb
from farmhand.core.addresses import is_safe
from farmhand.core.errors import FarmUnreachable, UsageError
from farmhand.core.keys import redact
from farmhand.core.prices import price_table
from farmhand.core.readable import counted
from farmhand.core.settings import Settings
from farmhand.cost.price_page import PriceCheck, compare_page, read_page

_TIMEOUT_S = 30.0
_MOST_BYTES = 16 * 1024 * 1024


@verb(
    "check",
    epilog="Exit status: 0 no difference, 1 there are differences, 2 usage, 4 the page cannot be had, or cannot be "
    "understood (prices_unread).",
)
@click.argument("page", required=False, metavar="[FILE]")
@click.option("--url", metavar="URL", help="The price page. Default: the source that the price table names.")
def command(conf: Settings, *, as_json: bool, page: str | None, url: str | None) -> VerbResult:
    """Compare the price table that comes with farmhand with the provider's price page, or with a copy of it in FILE.

    FILE is the page as saved by a browser (HTML), or its table in Markdown. Nothing is edited.
    """
    if page is not None and url is not None:
        raise UsageError("FILE and --url: choose one")
    table = price_table()
    source = page or url or table.source
    found = compare_page(read_page(_of_file(page) if page else _of_web(source)), table, source)
    document = {"ok": not found.differences, **msgspec.to_builtins(found)}
    return VerbResult(document, lambda: write(found), 1 if found.differences else 0)


def _of_file(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            return file.read(_MOST_BYTES).decode()
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{name} is not UTF-8 text", hint="save the page as HTML, or its table as Markdown") from None


def _of_web(url: str) -> str:
    if not is_safe(url):
        raise UsageError(f"--url {url!r:.100} is neither https nor on this machine")
    # No key goes there.
    asked = urllib.request.Request(url, headers={"accept": "text/markdown, text/html;q=0.9", "user-agent": "farmhand"})  # noqa: S310
    try:
        with urllib.request.urlopen(asked, timeout=_TIMEOUT_S) as answer:  # noqa: S310  (checked above)
            return str(answer.read(_MOST_BYTES).decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException, ValueError) as error:
        # Words of http.client repeat the address, which may have a password in it.
        why = getattr(error, "reason", "") if isinstance(error, OSError) else "no answer of a web server, or no address"
        why = f"HTTP {error.code}" if isinstance(error, urllib.error.HTTPError) else why or error
        raise FarmUnreachable(
            f"the prices could not be looked at: {url}: {redact(str(why))}",
            hint="save the page and give its file",
            code="prices_unread",
        ) from None


def write(found: PriceCheck) -> None:
    """Print the differences, dated."""
    sheet = Sheet()
    sheet.line(f"{found.source}, read {found.read}, against the price table of {found.table}:")
    if found.differences:
        rows = [(one.model, one.figure, one.ours or "-", one.page or "not there") for one in found.differences]
        sheet.table(("model", "US$ per MTok", "table", "page"), rows)
    count = counted(len(found.differences), "difference") if found.differences else "no difference"
    sheet.line(f"{count} in {counted(found.models, 'model')}.")
    if not found.batches:
        sheet.line("The page has no prices of Message Batches: half price was not looked at.")
    if found.apart:
        sheet.line(f"Not here, and not for everybody there: {', '.join(found.apart)}.")
    if found.differences:
        sheet.line("Until a farmhand with these prices is there, put them into your own prices.toml (docs/cost.md).")
