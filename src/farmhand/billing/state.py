"""What a shell knows while its start-up files are followed: variables, functions, aliases, and where each was set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .syntax import Function, Script, Simple, Word

#: How a name is set: `environment` of the session; `file` of KEY=VALUE lines; `settings` of the CLI.
Via = str


@dataclass(frozen=True)
class Place:
    """Where a name is set. `script`, `command` and `word` are there for a shell's file, to edit it by."""

    path: Path | None
    line: int
    script: Script | None = field(default=None, compare=False, repr=False)
    command: Simple | None = field(default=None, compare=False, repr=False)
    word: Word | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" if self.path else "the session's environment"


@dataclass(frozen=True)
class Value:
    """A variable. `text` None: only known when the file is run, by the command `ran`.

    `certain` is false where it depends on a condition that cannot be told without running something. `through` is the
    command of a shell's file that brings a value in which stands elsewhere: `source`, `export $(…)`.
    """

    text: str | None
    place: Place | None = None
    exported: bool = False
    certain: bool = True
    via: Via = "export"
    ran: str = ""
    through: Place | None = None


@dataclass(frozen=True)
class Alias:
    """An alias or a fish abbreviation."""

    text: str
    place: Place
    certain: bool = True


@dataclass
class State:
    """A shell of one kind."""

    shell: str
    login: bool
    interactive: bool
    home: Path
    variables: dict[str, Value] = field(default_factory=dict)
    functions: dict[str, tuple[Function, Path, Script]] = field(default_factory=dict)
    aliases: dict[str, Alias] = field(default_factory=dict)
    allexport: bool = False
    direnv: bool = False
    #: Every setting of a watched name that was passed, in order, whatever became of it later.
    passed: list[tuple[str, Value]] = field(default_factory=list)
    #: Of each watched name the exported settings since it was last unset: the last is in force, and once that is taken
    #: away the one before it would be.
    live: dict[str, list[Value]] = field(default_factory=dict)

    def text(self, name: str) -> str | None:
        """The variable's value, "" if it is not set, None if that cannot be told."""
        value = self.variables.get(name)
        return "" if value is None else value.text

    def environment(self) -> dict[str, Value]:
        """What a command started now would get."""
        return {name: value for name, value in self.variables.items() if value.exported}


def inherited(environ: Mapping[str, str]) -> dict[str, Value]:
    """The session's environment as variables."""
    return {name: Value(text, Place(None, 0), exported=True, via="environment") for name, text in environ.items()}
