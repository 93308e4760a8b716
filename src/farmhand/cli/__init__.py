"""The commands `farmhand` and `claude-cheap`. Verbs are imported when they are called, since every call starts up."""

from __future__ import annotations


def main() -> None:
    """`farmhand VERB …`."""
    from farmhand.cli.app import execute, farmhand

    execute(farmhand, "farmhand")


def claude_cheap() -> None:
    """`claude-cheap …`, which is `farmhand run …`."""
    from farmhand.cli.app import execute
    from farmhand.cli.run import command

    execute(command, "claude-cheap")
