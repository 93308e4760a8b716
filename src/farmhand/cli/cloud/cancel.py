"""`farmhand cloud cancel`: end a task, a job, or all of a batch."""

from __future__ import annotations

import click

from farmhand.aws.client import Aws
from farmhand.aws.environment import running
from farmhand.cli.cloud.verb import cloud_verb
from farmhand.cli.verb import VerbResult
from farmhand.core.settings import Settings


@cloud_verb("cancel")
@click.argument("name", metavar="TASK|BATCH")
def command(conf: Settings, *, as_json: bool, name: str) -> VerbResult:
    """End what runs of a task or batch. Its containers get SIGTERM, and bring away what is done."""
    aws = Aws(conf)
    found = running.named(aws, name)
    ended = [one for one in found if one.active]
    for one in ended:
        running.end(aws, one, "farmhand cloud cancel")
    document = {"ended": [one.id for one in ended], "over": [one.id for one in found if not one.active]}
    text = f"ending {', '.join(one.id for one in ended)}" if ended else f"{name} has ended already: {found[-1].status}"
    return VerbResult(document, text)
