"""The events of a trace, for all shells."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from .verdict import Location

#: Files that are not the operator's: output of a command that is sourced; files of fish or of the query itself.
GENERATED = re.compile(r"(/dev/|/proc/|-$|Standard input|.*/\.psub\.)")
SHIPPED = re.compile(r".*/share/fish/|.*/farmhand-ask-[^/]*/")


@dataclass
class Event:
    """A watched name was set (or removed, with `unset`). `location` is None if the trace does not show it."""

    name: str
    location: Location | None
    through: Location | None = None
    value: str | None = None
    unset: bool = False
    typed: bool = False
    prompt: bool = False


@dataclass
class Trace:
    """The events in order. `stopped` is the last line at which the shell was seen.

    `files` are those that the shell may have read; `sourced` those that it was seen to read.
    """

    events: list[Event] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    sourced: list[Path] = field(default_factory=list)
    stopped: Location | None = None
    #: Locations of the last alias, abbreviation or function with the name of each typed word.
    defined: dict[str, Location] = field(default_factory=dict)
    #: Location in a start-up file that prompts for input, which nobody gives here.
    question: Location | None = None
    #: The last line of a file that called the command `claude`.
    called: Location | None = None


def is_file(path: str) -> bool:
    """Return whether a path in a trace is one of the operator's files."""
    return path.startswith("/") and not GENERATED.match(path) and not SHIPPED.match(path) and Path(path).is_file()
