"""`farmhand prices`: the group of the verbs on the price table. Each is `command` in a module of this package."""

from __future__ import annotations

import click

from farmhand.cli.lazy import LazyGroup

#: Verb → its help line. Each verb is `command` in the module cli/prices/VERB.py.
VERBS = {"check": "Compare the price table with the provider's price page; it edits nothing."}


@click.group("prices", cls=LazyGroup, verbs=VERBS, modules="farmhand.cli.prices.")
def command() -> None:
    """Look after the prices by which everything is counted (docs/cost.md). Each verb has --json and --config."""
