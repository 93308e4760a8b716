"""Settings that a query cannot reveal, because they depend on a test whose result the query itself changes.

An asked shell has no terminal and no line editor, has TMUX and ZELLIJ set (ask.py), and gets the typed commands by
`-c`. The files are only read here, so a match is not a fact but a reason for uncertainty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path

from .edit import Script
from .names import METERED, counts
from .reading import Problems, lines_of
from .verdict import Location, Setting

_TEST = re.compile(
    r"(?<!read )-t\s+[\"']?[0-2]\b|\btty\b|\bisatty\b|\b(?:TMUX|ZELLIJ|TTY)\b|_EXECUTION_STRING\b"
    r"|-o\s+zle\b|\boptions\[zle\]"
)
#: Setting gpg's terminal is not a test.
_GPG_TTY = re.compile(r"\bGPG_TTY(?:=|\s)[\"']?(?:\$?\(tty\)|`tty`|\$\{?TTY\b)")
_LEAVES = re.compile(r"\b(?:return|exit|exec)\b")
_OTHER_SHELL = re.compile(r"\bexec\s+(?:-\w+\s+)*(?:\S*/)?(?:fish|zsh|bash|nu|xonsh|elvish|pwsh)\b(?!.*\s-\w*c\b)")
WHY = "a metered credential is set there only on a terminal, outside of tmux or the like"
WHY_OTHER = "another shell takes over there, only on a terminal, outside of tmux or the like"


def find(
    settings: Iterable[Setting], files: Iterable[Path], shell: str, env: Mapping[str, str], problems: Problems
) -> tuple[str, Location] | None:
    """Return why and where the billed account is uncertain although nothing metered was seen; None if it is certain.

    `settings` come from reading, `files` are those the shell reads, `env` is the environment of `claude`.
    """

    @cache
    def at(path: Path) -> _Tests:
        return _Tests(lines_of(path, problems), shell)

    for setting in settings:
        name = setting.name
        if name in METERED and setting.via == "export" and not env.get(name) and counts(name, setting.text):
            for place in (setting.through, setting.location):
                if place and place.path and at(place.path).decide(place.line):
                    return WHY, setting.location
    for path in files:
        if line := at(path).first(_OTHER_SHELL.search):
            return WHY_OTHER, Location(path, line)
    return None


class _Tests:
    """A start-up file and its statements with such a test. Comments are ignored."""

    def __init__(self, lines: list[str], shell: str) -> None:
        self.lines = ["" if line.lstrip().startswith("#") else line for line in lines]
        self.tests = [number for number, line in enumerate(self.lines, 1) if _TEST.search(_GPG_TTY.sub("", line))]
        self.script = Script("\n".join(lines), shell) if self.tests else None

    def _span(self, line: int) -> tuple[int, int] | None:
        """Return the top-level statement that contains a line; None if it is a function or unknown."""
        span = self.script.statement(line) if self.script else None
        return span if span and self.script and not self.script.defines(span[0]) else None

    def decide(self, line: int) -> bool:
        """Return whether a test is around `line`, or in an earlier statement that may leave the file."""
        span = self._span(line)
        if span is None:
            return False
        around = any(span[0] <= test <= span[1] for test in self.tests)
        return around or bool((left := self.first(_LEAVES.search)) and left < span[0])

    def first(self, wanted: Callable[[str], object]) -> int | None:
        """Return the first line matched by `wanted` in a statement with a test."""
        for test in self.tests:
            first, last = self._span(test) or (1, 0)
            for number in range(first, last + 1):
                if wanted(self.lines[number - 1]):
                    return number
        return None
