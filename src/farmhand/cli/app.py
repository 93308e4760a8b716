"""The group of verbs, and the one place where an error becomes a line on stderr and an exit status."""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import NoReturn

import click

from farmhand import __version__
from farmhand.errors import FarmhandError, UsageError
from farmhand.wire.keys import redact

#: C0 without tab and line feed, DEL, C1: see `printable` in farmhand.cli.render.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: Verb → what its module is for; each lives in the module of its name as `command`.
VERBS = {
    "run": "Run one task on the farm host (also: claude-cheap).",
    "doctor": "Check everything, green or red, each red with its fix.",
    "flush": "Send what was queued while no farm host answered; show the answers.",
    "status": "Show what the farm hosts are doing.",
    "cost": "Show what the farm spent, and what that saved.",
    "up": "Build or update the farm hosts: site.yml.",
}


class _Lazy(click.Group):
    """A group that imports a verb's module when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, imported now."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"farmhand.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs with their one line, without importing any."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group("farmhand", cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def farmhand() -> None:
    """Farm easy tasks out to a cheap, metered box of your own."""


def execute(command: click.Command, program: str) -> NoReturn:
    """Run `command` with this process's arguments and end the process. Failures are one line on stderr."""
    try:
        if sys.stdout is None:
            raise UsageError("stdout is closed: there is nowhere to write to")
        status = command.main(prog_name=program, standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        line, status = _one_line(error.format_message()) + _hint(error, program), error.exit_code
    except FarmhandError as error:
        line, status = _one_line(str(error)), error.exit_code
    except (KeyboardInterrupt, click.Abort):
        line, status = "stopped", 130
    except BrokenPipeError:
        # Whoever read our output has gone; Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(1)
    except Exception as error:
        if os.environ.get("FARMHAND_DEBUG"):
            raise
        what = f"{type(error).__name__}: {redact(str(error))}"
        _say(program, what if isinstance(error, OSError) else f"{what} (FARMHAND_DEBUG=1 shows where)")
        # Not sys.exit: flushing a stdout that is full would fail a second time.
        os._exit(1)
    else:
        sys.exit(status or 0)
    _say(program, line)
    sys.exit(status)


def _say(program: str, text: str) -> None:
    print(f"{program}: {_one_line(text)}", file=sys.stderr, flush=True)  # noqa: T201  (the commands' own stderr)


def note(text: str) -> None:
    """One line on stderr under the program's name."""
    context = click.get_current_context(silent=True)
    program = context.find_root().info_name if context is not None else None
    _say(program or "farmhand", text)


def _one_line(text: str) -> str:
    """`text` in one line. Some of it comes from afar, and on a terminal control characters are commands."""
    return _CONTROL.sub("\ufffd", " ".join(text.split()))


def _hint(error: click.ClickException, program: str) -> str:
    if isinstance(error, click.NoSuchOption):
        return f" (options: {program} --help; put -- before a prompt that begins with a dash)"
    if isinstance(error, click.UsageError) and "unexpected extra argument" in error.message:
        return " (quote the prompt, so that it is one argument)"
    return ""
