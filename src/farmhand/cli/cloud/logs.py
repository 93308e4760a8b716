"""`farmhand cloud logs`: what a task or batch writes."""

from __future__ import annotations

import sys
import time

import click

from farmhand.aws.client import Aws
from farmhand.aws.environment import running
from farmhand.aws.environment.logs import LogLine, LogReader, follow
from farmhand.cli import render
from farmhand.cli.cloud.verb import cloud_verb
from farmhand.cli.say import note
from farmhand.core.readable import printable
from farmhand.core.settings import Settings


@cloud_verb("logs", json_help="Print one JSON object for each line.")
@click.option("-f", "--follow", "live", is_flag=True, help="Go on until it has ended.")
@click.argument("name", metavar="TASK|BATCH")
def command(conf: Settings, *, as_json: bool, live: bool, name: str) -> int:
    """Show what the containers of a task or batch write. TASK or BATCH is an id of farmhand's or of AWS."""
    aws = Aws(conf)
    reader = LogReader(aws)

    def look() -> bool:
        found = running.named(aws, name)
        for one in found:
            for part in running.children(aws, one) if one.kind == "array" else [one]:
                reader.add(part.streams)
        return live and any(one.active for one in found)

    lines = 0
    for line in follow(reader, look, time.sleep):
        lines += 1
        _show(line, as_json=as_json)
    if not lines:
        note(f"{name} has written nothing")
    return 0


def _show(line: LogLine, *, as_json: bool) -> None:
    if as_json:
        render.write_json({"at": line.at / 1000, "stream": line.stream, "text": line.text})
        return
    at = time.strftime("%H:%M:%S", time.localtime(line.at / 1000))
    text = line.text if line.task_text is None else line.task_text.rstrip("\n")
    render.write_bytes(f"{at} {line.container} {printable(text)}")
    sys.stdout.flush()
