"""The click group of all verbs. Parse errors are printed as one line on stderr."""

from __future__ import annotations

import importlib
from typing import NoReturn

import click

from farmhand import __version__
from farmhand.cli.say import end, one_line
from farmhand.core.errors import FarmhandError

#: Alias → the arguments that it stands for.
ALIASES = {"top": ("status", "--watch")}
#: Verb → its help line. Each verb is `command` in the module of the same name.
VERBS = {
    "run": "Run one task on the farm host (also: claude-cheap).",
    "doctor": "Check everything, green or red, each red with its fix.",
    "flush": "Send what was queued while no farm host answered; show the answers.",
    "batch": "Run a file of tasks on all farm hosts; it can be stopped and goes on.",
    "status": "Show what the farm hosts are doing.",
    "top": "The same, live: status --watch.",
    "cost": "Show what the farm spent, and what that saved.",
    "rotate": "Put another API key in the place of the one in use, without downtime.",
    "report": "Draw it: one HTML page, or on the terminal.",
    "up": "Build or update the farm hosts: site.yml.",
}


class _Lazy(click.Group):
    """A group that imports a verb's module only when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the verbs."""
        return list(VERBS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb that the arguments name; aliases are resolved."""
        return super().resolve_command(ctx, [*ALIASES.get(args[0], args[:1]), *args[1:]])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the verb's command; None for an unknown verb."""
        if cmd_name not in VERBS:
            return None
        name = ALIASES.get(cmd_name, (cmd_name,))[0]
        command: click.Command = importlib.import_module(f"farmhand.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs with their help lines, without importing any of them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group("farmhand", cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def farmhand() -> None:
    """Farm easy tasks out to a cheap, metered box of your own."""


def execute(command: click.Command, program: str) -> NoReturn:
    """Run `command` with this process's arguments, then exit. A failure is one line on stderr."""
    end(program, lambda: _main(command, program))


def _main(command: click.Command, program: str) -> int | None:
    """Run the command and return its exit status. Raises click's errors as FarmhandError."""
    try:
        status: int | None = command.main(prog_name=program, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        ours = FarmhandError(one_line(error.format_message()) + _hint(error, program))
        ours.exit_code = error.exit_code
        raise ours from None
    except click.Abort:
        raise KeyboardInterrupt from None
    return status


def _hint(error: click.ClickException, program: str) -> str:
    if isinstance(error, click.NoSuchOption):
        return f" (options: {program} --help; put -- before a prompt that begins with a dash)"
    if isinstance(error, click.UsageError) and "unexpected extra argument" in error.message:
        return " (quote the prompt, so that it is one argument)"
    return ""
