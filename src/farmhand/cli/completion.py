"""Write the shells' completion of `claude-cheap` and `farmhand`, as the role workstation has it done.

`python -m farmhand.cli.completion --bash DIRECTORY --zsh DIRECTORY --fish DIRECTORY`: one line for each file that
differs, and was written unless `--check` is given. The text is click's own.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

from click.shell_completion import BashComplete, FishComplete, ZshComplete

_COMMANDS = ("claude-cheap", "farmhand")
_SHELLS = {"bash": (BashComplete, ""), "zsh": (ZshComplete, ".zsh"), "fish": (FishComplete, ".fish")}


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    for shell in _SHELLS:
        parser.add_argument(f"--{shell}", type=Path, metavar="DIRECTORY")
    parser.add_argument("--check", action="store_true", help="write nothing")
    given = parser.parse_args(argv)
    asked_for = [shell for shell in _SHELLS if getattr(given, shell) is not None]
    try:
        for shell, command in itertools.product(asked_for, _COMMANDS):
            kind, suffix = _SHELLS[shell]
            path = getattr(given, shell) / f"{command}{suffix}"
            variable = f"_{command.replace('-', '_').upper()}_COMPLETE"
            complete = kind(None, {}, command, variable)  # type: ignore[arg-type]  # the command is not looked at here
            text = complete.source_template % complete.source_vars() + "\n"
            if path.is_file() and path.read_text("utf-8") == text:
                continue
            if not given.check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
            sys.stdout.write(f"{path}\n")
    except OSError as error:
        sys.stderr.write(f"{error.filename}: {error.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
