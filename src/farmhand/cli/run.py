"""`farmhand run`, which is `claude-cheap`: what click makes of its command line. The work is in run_task."""

from __future__ import annotations

from typing import Any

import click

from farmhand.cli.arguments import OPTIONS, Option
from farmhand.cli.run_task import RunOptions, main, read_schema

__all__ = ["command", "read_schema"]

_TYPES: dict[str, Any] = {"text": None, "number": float, "count": click.IntRange(min=1)}


def _option(option: Option) -> click.Option:
    """An option of the table as click has it."""
    if option.kind == "flag":
        return click.Option([*option.names, option.to], is_flag=True, help=option.about)
    if option.kind == "switch":
        on, off = option.names
        return click.Option([f"{on}/{off}", option.to], default=None, help=option.about)
    kind = click.Choice(option.kind) if isinstance(option.kind, tuple) else _TYPES[option.kind]
    return click.Option(
        [*option.names, option.to],
        type=kind,
        multiple=option.many,
        metavar=option.what or None,
        help=option.about,
    )


def _call(**given: Any) -> int:
    return main(RunOptions(**given))


command = click.Command(
    "run",
    callback=_call,
    params=[click.Argument(["prompt"], required=False), *map(_option, OPTIONS)],
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Run PROMPT as a task on the farm host and print the answer.

    The prompt is the argument, stdin, or both: the argument, a blank line, stdin. It is data: no shell and no command
    reads it. Stdin is read when there is no argument (or it is -), and beside one when it is a redirected file, or a
    pipe on which something comes within 3 seconds; -f - waits for it. In a `while read` loop that is fed by a pipe, use
    < /dev/null or --no-stdin.
    """,
    epilog="Put -- before a prompt that begins with a dash: claude-cheap -- '--help'. Exit status: 0 done, 1 the task "
    "failed, 2 usage, 3 not configured, 4 farm unreachable (also when the task was queued), 5 refused by policy or "
    "budget, 130 stopped by Ctrl-C.",
)
