"""`farmhand run`, which is `claude-cheap`, as a click command. The work is done in run_task."""

from __future__ import annotations

import click

from farmhand.cli.arguments import OPTIONS
from farmhand.cli.manual import VerbCommand
from farmhand.cli.run_task import main
from farmhand.cli.verb import HELP_NAMES, click_option

command = VerbCommand(
    "run",
    callback=lambda **given: main(given),
    params=[click.Argument(["prompt"], required=False, metavar="[PROMPT]"), *map(click_option, OPTIONS)],
    context_settings=HELP_NAMES,
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
