"""What a shell that is asked cannot show: settings behind a test for what the asking itself makes different.

An asked shell has no terminal and no line editor, is given TMUX and ZELLIJ (ask.py), and is told by `-c` what is typed.
The files are only read for this, so what is found is no fact but a reason for not being certain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from .edit import Script
from .names import METERED, counts
from .reading import Reader
from .verdict import Location, Setting

_TEST = re.compile(
    r"(?<!read )-t\s+[\"']?[0-2]\b|\btty\b|\bisatty\b|\b(?:TMUX|ZELLIJ|TTY)\b|_EXECUTION_STRING\b"
    r"|-o\s+zle\b|\boptions\[zle\]"
)
#: What tells gpg its terminal is no test.
_GPG_TTY = re.compile(r"\bGPG_TTY(?:=|\s)[\"']?(?:\$?\(tty\)|`tty`|\$\{?TTY\b)")
_LEAVES = re.compile(r"\b(?:return|exit|exec)\b")
_OTHER_SHELL = re.compile(r"\bexec\s+(?:-\w+\s+)*(?:\S*/)?(?:fish|zsh|bash|nu|xonsh|elvish|pwsh)\b(?!.*\s-\w*c\b)")
WHY = "a metered credential is set there only on a terminal, outside of tmux or the like"
WHY_OTHER = "another shell takes over there, only on a terminal, outside of tmux or the like"


def find(
    settings: Iterable[Setting], files: Iterable[Path], shell: str, env: Mapping[str, str], reader: Reader
) -> tuple[str, Location] | None:
    """Why it cannot be told who pays, and where, though nothing metered has reached `claude`; None if it can.

    `settings` is what reading shows, `files` are those that the shell reads, `env` is what `claude` got.
    """
    scripts: dict[Path, _Tests] = {}

    def at(path: Path) -> _Tests:
        return scripts.setdefault(path, _Tests(reader.text(path) or "", shell))

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
    """A start-up file, and the statements in it that hold such a test. Comments do not count."""

    def __init__(self, text: str, shell: str) -> None:
        self.lines = ["" if line.lstrip().startswith("#") else line for line in text.split("\n")]
        self.tests = [number for number, line in enumerate(self.lines, 1) if _TEST.search(_GPG_TTY.sub("", line))]
        self.script = Script(text, shell) if self.tests else None

    def _span(self, line: int) -> tuple[int, int] | None:
        """The statement at top level that holds a line; None if that is a function, or cannot be told."""
        span = self.script.statement(line) if self.script else None
        return span if span and self.script and not self.script.defines(span[0]) else None

    def decide(self, line: int) -> bool:
        """Whether a test stands around `line`, or before it in a statement that may leave the file."""
        span = self._span(line)
        if span is None:
            return False
        around = any(span[0] <= test <= span[1] for test in self.tests)
        return around or bool((left := self.first(_LEAVES.search)) and left < span[0])

    def first(self, wanted: Callable[[str], object]) -> int | None:
        """The first line that is `wanted` in a statement with a test."""
        for test in self.tests:
            first, last = self._span(test) or (1, 0)
            for number in range(first, last + 1):
                if wanted(self.lines[number - 1]):
                    return number
        return None
