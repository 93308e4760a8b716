"""The click group of all verbs. Parse errors are printed as one line on stderr."""

from __future__ import annotations

import sys
from importlib import import_module
from itertools import takewhile
from typing import NoReturn

import click

from farmhand import __version__
from farmhand.cli import completes
from farmhand.cli.colour import coloured
from farmhand.cli.lazy import LazyGroup
from farmhand.cli.render import errors_as_json
from farmhand.cli.say import end, one_line
from farmhand.core.errors import UsageError

#: Alias → the arguments that it stands for.
ALIASES = {"top": ("status", "--watch")}
#: Verb → its help line. Each verb is `command` in the module of the same name.
VERBS = {
    "run": "Run one task on the farm host (also: claude-cheap).",
    "code": "Let Claude work on a repository in a sandbox; a patch comes back.",
    "doctor": "Check everything, green or red, each red with its fix.",
    "flush": "Send what was queued while no farm host answered; show the answers.",
    "batch": "Run a file of tasks on all farm hosts; it can be stopped and goes on.",
    "status": "Show what the farm hosts are doing.",
    "top": "The same, live: status --watch.",
    "list": "List the last tasks of all hosts; search in their prompts.",
    "show": "Show one task: what was asked, what was answered, what it cost.",
    "logs": "Print what a task has answered so far; -f follows it.",
    "wait": "Wait until tasks have ended.",
    "cancel": "End tasks, whether they wait or run.",
    "again": "Run a task once more under a new id, with changed options.",
    "statusline": "One short line for a prompt, or for the claude CLI's status line.",
    "cost": "Show what the farm spent, and what that saved.",
    "prices": "Compare the price table with the provider's price page.",
    "rotate": "Put another API key in the place of the one in use, without downtime.",
    "report": "Draw it: one HTML page, or on the terminal.",
    "up": "Build or update the farm hosts (site.yml), or the containers here.",
    "init": "Set this workstation up: host, login, key; then offer to build the host.",
    "playbook": "Run another of Farmhand's playbooks: verify, upgrade, drain, remove …",
    "down": "Remove the containers of --place docker.",
    "gateway": "Serve coding harnesses on this machine, local models first.",
    "mcp": "Serve the farm's tools to an interactive session (MCP).",
    "cloud": "Work on AWS: stacks, image, credentials, what runs and what it costs.",
}


@click.group("farmhand", cls=LazyGroup, verbs=VERBS, modules="farmhand.cli.", aliases=ALIASES)
@click.version_option(__version__, message="%(prog)s %(version)s")
def farmhand() -> None:
    """Farm easy tasks out to a cheap, metered box of your own."""


def execute(command: click.Command, program: str) -> NoReturn:
    """Run `command` with this process's arguments, then exit. A failure is one line on stderr."""
    if completes(program):
        import_module("farmhand.cli.completion")  # its classes answer the shells
    end(program, lambda: _main(command, program))


def _main(command: click.Command, program: str) -> int | None:
    """Run the command and return its exit status. Raises click's errors as FarmhandError."""
    try:
        status: int | None = command.main(prog_name=program, standalone_mode=False, color=coloured(sys.stdout))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        ours = UsageError(one_line(error.format_message()), hint=_hint(error))
        ours.exit_code = error.exit_code
        with errors_as_json("--json" in takewhile(lambda word: word != "--", sys.argv[1:])):
            raise ours from None
    except click.Abort:
        raise KeyboardInterrupt from None
    return status


def _hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return ""
    has_prompt = any(param.name == "prompt" for param in context.command.params)
    if isinstance(error, click.NoSuchOption):
        dash = "; put -- before a prompt that begins with a dash" if has_prompt else ""
        return f"options: {context.command_path} --help{dash}"
    if "unexpected extra argument" in error.message and has_prompt:
        return "quote the prompt, so that it is one argument"
    if error.message.startswith("No such command"):
        return f"{context.command_path} --help lists them"
    return ""
