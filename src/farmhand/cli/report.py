"""`farmhand report`: the figures of `farmhand cost` as charts, in one HTML file or on the terminal."""

from __future__ import annotations

from pathlib import Path

import click

from farmhand.cli import render
from farmhand.cli.cost import ledger_options
from farmhand.cli.say import note
from farmhand.cli.verb import VerbResult, verb
from farmhand.core import files
from farmhand.core.errors import NotConfigured, UsageError
from farmhand.core.settings import Settings
from farmhand.cost.merged import merged
from farmhand.cost.report import as_document


@verb("report", "connect_timeout_s", json_help="Print one JSON object: what the page is made of.")
@click.option("--html", metavar="FILE", help="Write one self-contained page instead; - is stdout.")
@ledger_options
def command(conf: Settings, *, html: str | None, as_json: bool, since: str | None, no_merge: bool) -> VerbResult:
    """Show where the money went, drawn. The exit status is 4 if a host could not be asked."""
    if as_json and html is not None:
        raise UsageError("--json and --html: choose one")
    with merged(conf, since, note, ask=not no_merge) as ledgers:
        found = ledgers.report()
    document = as_document(found)

    def show() -> None:
        if html is None:
            from farmhand.cli import report_view

            report_view.write(found)
        else:
            from farmhand.cost.report_html import page

            _write(html, page(document))

    return VerbResult(document, show, ledgers.status)


def _write(name: str, text: str) -> None:
    """Write the page to stdout (`-`), or atomically to a file that only its owner can read."""
    if name == "-":
        render.write_bytes(text)
        return
    path = Path(name).expanduser()
    try:
        files.replace(path, text.encode(), mode=0o600)
    except OSError as error:
        raise NotConfigured(f"{path} cannot be written: {error.strerror}", hint="name another file") from None
