"""What a trace tells, whatever shell it is of."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from .verdict import Location

#: No files of the operator's: what a command printed for the file that reads it; what comes with fish or the asking.
GENERATED = re.compile(r"(/dev/|/proc/|-$|Standard input|.*/\.psub\.)")
SHIPPED = re.compile(r".*/share/fish/|.*/farmhand-ask-[^/]*/")


@dataclass
class Event:
    """A watched name was set (or, with `unset`, taken away). `location` None: the trace does not tell where."""

    name: str
    location: Location | None
    through: Location | None = None
    value: str | None = None
    unset: bool = False
    typed: bool = False
    prompt: bool = False


@dataclass
class Trace:
    """The events in their order; `stopped` is the last line that the shell was seen at.

    `files` are those that the shell may have read; `sourced` those of them that it was seen to read.
    """

    events: list[Event] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    sourced: list[Path] = field(default_factory=list)
    stopped: Location | None = None
    #: Where the words that were typed are defined: the last alias, abbreviation or function of that name.
    defined: dict[str, Location] = field(default_factory=dict)
    #: Where a start-up file asks a question, which nobody answers here.
    question: Location | None = None
    #: The last line of a file at which the command `claude` was called.
    called: Location | None = None


def is_file(path: str) -> bool:
    """Whether a trace's word for where it is names a file of the operator's."""
    return path.startswith("/") and not GENERATED.match(path) and not SHIPPED.match(path) and Path(path).is_file()
