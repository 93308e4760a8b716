"""Entry points of `farmhand` and `claude-cheap`. A verb is imported only when it is called: start-up time counts."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run `farmhand VERB …`."""
    with _Start("farmhand"):
        if sys.argv[1:2] == ["run"]:
            _run("farmhand", sys.argv[2:])
        from farmhand.cli.app import execute, farmhand

        execute(farmhand, "farmhand")


def claude_cheap() -> None:
    """Run `claude-cheap …`, which is `farmhand run …`."""
    with _Start("claude-cheap"):
        _run("claude-cheap", sys.argv[1:])
        from farmhand.cli.app import execute
        from farmhand.cli.run import command

        execute(command, "claude-cheap")


def claude_agent_aws() -> None:
    """Run `claude-agent-aws …`, which is `farmhand code …`."""
    with _Start("claude-agent-aws"):
        from farmhand.cli.app import execute
        from farmhand.cli.code import command

        execute(command, "claude-agent-aws")


class _Start:
    """A context in which Ctrl-C ends the program without a traceback, before there is anything that could say so."""

    def __init__(self, program: str) -> None:
        self._program = program

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is KeyboardInterrupt:
            try:
                os.write(2, f"{self._program}: stopped\n".encode())
            finally:
                os._exit(130)


def completes(program: str) -> bool:
    """Return whether a shell asks for completions."""
    return f"_{program.replace('-', '_').upper()}_COMPLETE" in os.environ


def _run(program: str, arguments: list[str]) -> None:
    """Run a task and exit if the arguments can be parsed without click, whose import takes 40 ms. Else return."""
    if completes(program):
        return
    # Imports make no garbage, but 5 % of their time is the search for it. `carry` turns it on again.
    gc.disable()
    from farmhand.cli.arguments import plain

    given = plain(arguments)
    if given is None:
        gc.enable()
        return
    from farmhand.cli.run_task import main
    from farmhand.cli.say import end

    end(program, lambda: main(given))
