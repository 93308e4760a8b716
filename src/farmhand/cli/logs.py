"""`farmhand logs`: what a task has answered so far, and with --follow as it comes."""

from __future__ import annotations

import sys

import click

from farmhand.cli import render
from farmhand.cli.past import gone, history, one_id
from farmhand.cli.say import note
from farmhand.cli.signals import Stoppable
from farmhand.cli.verb import VerbResult, verb
from farmhand.cli.watching import follow
from farmhand.core.errors import UsageError
from farmhand.core.settings import Settings
from farmhand.wire.follow import FINAL_STATES


@verb("logs", "connect_timeout_s", json_help="Print the task's result so far as one JSON object.")
@one_id
@click.option("-f", "--follow", "following", is_flag=True, help="Follow the task until it has ended.")
def command(conf: Settings, *, as_json: bool, task_id: str | None, following: bool) -> VerbResult | int:
    """Print what a task has answered so far.

    ID is an id, or the beginning of one; without it, the newest task is meant. The exit status is the task's own once
    it has ended: 0 done, 1 failed. Ctrl-C ends the following and not the task.
    """
    with Stoppable(), history(conf) as past:
        task = past.whole(past.find(task_id))
        result = task.result
        for line in past.notes() if task.host in past.errors else ():
            note(line)
        if result["content"] == "gone":
            raise UsageError(gone(task), code="pruned")
        if result["state"] in FINAL_STATES or not following:
            printer = render.Printer(stream=False)
        else:
            printer = render.Printer(stream=not as_json and sys.stdout.isatty())
            result = follow(past, task, printer)
    if result["state"] in FINAL_STATES:
        return printer.report(result, as_json=as_json)
    return VerbResult(dict(result), render.answer_text(result), notes=[f"task {task.id} is {result['state']}"])
