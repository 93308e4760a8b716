"""The command line of a text turn on a plan: the CLI without tools, settings, sessions and attachments."""

from __future__ import annotations

from pathlib import Path

from farmhand.core import claude
from farmhand.core.errors import Refused


def command(program: str, model: str, system_file: Path) -> list[str]:
    """Return the argv. The system prompt is in a file: an argument could be read by other users of the machine.

    Raise Refused for anything that makes the CLI leave its login aside: `--bare` never reads it.
    """
    argv = claude.arguments(program, model=model, system_file=system_file)
    argv += ["--restricted", "--permission-prompts", "none"]
    if any(argument.partition("=")[0] == "--bare" for argument in argv) or model.startswith("-"):
        raise Refused("the CLI of a plan is never started with --bare", hint="name a model", code="subscription_off")
    return argv
