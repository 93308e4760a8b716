"""`farmhand down`: remove the containers of the place `docker`."""

from __future__ import annotations

import click

from farmhand.cli.verb import VerbResult, verb
from farmhand.core.settings import Settings
from farmhand.places import docker


@verb("down")
@click.option("--delete-data", is_flag=True, help="Remove their ledger too: results, usage and cost of their tasks.")
def command(conf: Settings, *, as_json: bool, delete_data: bool) -> VerbResult:
    """Stop and remove the containers of --place docker. Their ledger stays for the next start."""
    pair = docker.existing(conf)
    pair.down(delete_data=delete_data)
    document = {
        "place": docker.NAME,
        "containers": [pair.agent, pair.worker],
        "data": "removed" if delete_data else "kept",
    }
    return VerbResult(document, f"{pair.agent} and {pair.worker} are gone; their ledger is {document['data']}")
