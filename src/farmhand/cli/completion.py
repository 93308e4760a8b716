"""Write the shells' completion of `claude-cheap` and `farmhand`, as the role workstation has it done.

`python -m farmhand.cli.completion --bash DIRECTORY --zsh DIRECTORY --fish DIRECTORY`: one line for each file that
differs, and was written unless `--check` is given. The text is click's own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from click.shell_completion import get_completion_class

COMMANDS = ("claude-cheap", "farmhand")
_SUFFIX = {"bash": "", "zsh": ".zsh", "fish": ".fish"}


def script(shell: str, command: str) -> str:
    """Return the script that `shell` loads to complete `command`."""
    kind = get_completion_class(shell)
    assert kind is not None, f"click completes no {shell}"  # noqa: S101 - the arguments name only shells that it knows
    variable = f"_{command.replace('-', '_').upper()}_COMPLETE"
    complete = kind(None, {}, command, variable)  # type: ignore[arg-type]  # the command itself is not looked at here
    return complete.source_template % complete.source_vars() + "\n"


def write(directories: dict[str, Path], *, check: bool) -> list[Path]:
    """Update the completion files in each shell's directory and return those that differed."""
    differing = []
    for shell, directory in directories.items():
        for command in COMMANDS:
            path = directory / f"{command}{_SUFFIX[shell]}"
            text = script(shell, command)
            if path.is_file() and path.read_text("utf-8") == text:
                continue
            differing.append(path)
            if not check:
                directory.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
    return differing


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    for shell in _SUFFIX:
        parser.add_argument(f"--{shell}", type=Path, metavar="DIRECTORY")
    parser.add_argument("--check", action="store_true", help="write nothing")
    given = parser.parse_args(argv)
    directories = {shell: path for shell in _SUFFIX if (path := getattr(given, shell)) is not None}
    try:
        for path in write(directories, check=given.check):
            sys.stdout.write(f"{path}\n")
    except OSError as error:
        sys.stderr.write(f"{error.filename}: {error.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
