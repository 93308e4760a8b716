"""`farmhand cloud`: the group of the verbs for AWS. Each is `command` in a module of this package."""

from __future__ import annotations

import click

from farmhand.cli.lazy import LazyGroup

#: Verb → its help line. Each verb is `command` in the module cli/cloud/VERB.py.
VERBS = {
    "up": "Make or update the place on AWS; says first what it costs.",
    "down": "Remove it, or only the network; what holds data stays.",
    "credential": "Bring a credential to AWS, renew it, see when it ends, take it out.",
    "push": "Bring the image to the account's registry.",
    "status": "Show the stacks, what runs, and what the network has cost.",
    "logs": "Show what a task or batch writes, also live.",
    "cancel": "End a task or batch.",
    "verify": "Check in your account what was never verified on real AWS; says first what it costs.",
    "cost": "Show what tasks cost: model and Fargate.",
}


@click.group("cloud", cls=LazyGroup, verbs=VERBS, modules="farmhand.cli.cloud.")
def command() -> None:
    """Work on AWS (docs/aws.md). Each verb has --json and --config."""
