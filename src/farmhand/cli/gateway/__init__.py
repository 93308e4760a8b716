"""`farmhand gateway`: the group of the gateway's verbs. Each is `command` in a module of this package."""

from __future__ import annotations

import click

from farmhand.cli.lazy import LazyGroup

#: Verb → its help line. Each verb is `command` in the module cli/gateway/VERB.py.
VERBS = {
    "serve": "Run the gateway on this machine's loopback, until SIGTERM.",
    "status": "Show what it runs, which local servers it sees, and what became of its turns.",
    "explain": "Show why a turn went where it went, or where one would go.",
    "allow": "Let turns be paid for, for a time and up to an amount; or close that again.",
    "connect": "Print how a coding harness is pointed at it; nothing is edited.",
    "token": "Print the token that clients send, or put another in its place.",
    "reload": "Let it read its settings again; wrong ones leave the old in force.",
}


@click.group("gateway", cls=LazyGroup, verbs=VERBS, modules="farmhand.cli.gateway.")
def command() -> None:
    """Serve coding harnesses local-first (docs/gateway.md). Each verb has --json and --config."""
