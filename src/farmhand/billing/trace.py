"""Parsing of a trace of bash, zsh or sh: where each watched name was set, and where the shell stopped."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from .ask import ShellAnswer
from .kinds import DEFINED, FIELD
from .names import ANY, WATCHED
from .reading import lines_of, text_at
from .verdict import Location, Setting

#: Files that are not the operator's: output of a command that is sourced; files of fish or of the query itself.
GENERATED = re.compile(r"(/dev/|/proc/|-$|Standard input|.*/\.psub\.)")
SHIPPED = re.compile(r".*/share/fish/|.*/farmhand-ask-[^/]*/")
_WORD = re.compile(rf"(?<![\w$])({ANY})(?!\w)(=?)")
_DECLARING = {"export", "typeset", "declare", "local", "readonly", "integer", "setenv"}
_READING = {"read", "printf", "mapfile", "readarray", "getopts", "vared"}
_RUNNING = {"env", "exec", "command", "sudo", "nohup", "noglob", "time", "builtin", "nice"}
_SOURCES = re.compile(r"\\?(?:builtin |command |\\)?(?:source|\.) (?:-- )?(.+)")
#: Fields of a shell's trace record before the command, at least.
_FIELDS = {"bash": 4, "zsh": 4, "sh": 2}

#: Maximum number of lines of a command substitution in the search for its beginning.
_LONGEST = 40
#: Commands that read a person's input. With a prompt, or from the terminal itself, it is not known here.
_INPUT = re.compile(r"(builtin )?read |vared |select ")
_QUESTION = re.compile(r"(builtin )?read (\S+ )*(-\w*[pqk]\b|'?\?|[\"']?\w+\?)|vared |select ")
#: zsh's message when a command would read from the terminal.
_NO_TTY = re.compile(r"\n(/[^\n:]+):(\d+): [^\n]*: /dev/tty")


@dataclass
class Trace:
    """What a shell did, in order. `stopped` is the last line at which it was seen.

    `events` are settings of watched names; a text of "" is a removal. Their `via` is export, prompt, or typed (run for
    the typed `claude`); their path is None if the trace does not show it. `files` are those that the shell may have
    read, `sourced` those that it was seen to read.
    """

    events: list[Setting] = field(default_factory=list)
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


def split(said: str) -> list[str]:
    """Return the words of a traced command."""
    try:
        return shlex.split(said)
    except ValueError:
        return said.split()


def events_of(said: str) -> list[tuple[str, str | None]]:
    """Return the watched names that a traced command sets, with the value: None if unknown, "" if it is removed."""
    if not _WORD.search(said):
        return []
    words = [word.removeprefix("$") if "=" in word else word for word in split(said)]
    while len(words) > 1 and words[0] in ("builtin", "command", "noglob", "\\export"):
        words = words[1:]
    head = words[0].lstrip("\\") if words else ""
    if head == "unset" or head in _READING:
        return [(word, "" if head == "unset" else None) for word in words[1:] if word in WATCHED]
    if head in _DECLARING or head in _RUNNING:
        words = words[1:]
    elif re.match(r"\w+\+?=", head):  # a command may follow its own assignments
        words = list(takewhile(lambda word: "=" in word, words))
    else:
        return []
    gone = head in _DECLARING and bool({"-n", "+x", "+gx"} & set(words))
    parts = [word.partition("=") for word in words if "=" in word or head in _DECLARING]
    found = [(name.rstrip("+"), value if equals else None) for name, equals, value in parts]
    return [(name, "" if gone else value) for name, value in found if name in WATCHED]


@dataclass(frozen=True)
class _Eval:
    """A command that runs its arguments as commands: they are in no file, so they get its location."""

    depth: int
    text: str
    location: Location
    frame: list[str]


class _Reader:
    """A parser for the trace of bash, zsh or sh, record by record."""

    def __init__(self, answer: ShellAnswer, starts: Iterable[Path]) -> None:
        self.shell = answer.kind.shell
        self.cwd = Path(answer.before.get("PWD", "/")) if answer.before else Path("/")
        self.trace = Trace()
        self.via = "export"
        self.evals: list[_Eval] = []
        self.active: list[_Eval] = []
        self.callers: dict[str, Location] = {}
        self.mentions: dict[str, Location] = {}
        self.sourced: list[Path] = list(starts)

    def place(self, record: str) -> tuple[str, list[Location]]:
        """Return a record's command and its location, as far as it is known, followed by those of its callers."""
        depth_text, _, rest = record.partition(FIELD)
        depth = int(depth_text) if depth_text.isdigit() else 0
        *fields, said = rest.split(FIELD)
        said = said.split("\n")[0].rstrip() if self.shell == "zsh" else said.rstrip("\n")
        places: list[Location] = []
        if len(fields) >= _FIELDS[self.shell]:
            places = getattr(self, f"_{self.shell}")(depth, fields, said)
        if source := _SOURCES.match(said):
            self._source(source[1], places[:1])
        if said.startswith(("eval ", "emulate ")) and places:
            if said.startswith("eval "):
                places[0] = _beginning(places[0])
            self.active.append(_Eval(depth, said.replace("\\n", "\n"), places[0], fields[:3:2]))
            self.evals.append(self.active[-1])
        if "farmhand-before" in said:
            self.via = "typed"
        elif "__farmhand" in said and self.via == "export":
            self.via = "prompt"
        return said, places

    def note(self, record: str) -> None:
        """Take what a record shows into the trace."""
        said, places = self.place(record)
        location = places[0] if places else None
        typed = self.via == "typed"
        if (tty := _NO_TTY.search(record)) and is_file(tty[1]):
            self._input(Location(Path(tty[1]), int(tty[2])))
        through = next((place for place in places[1:] if place.path != places[0].path), None)
        for name, value in events_of(said):
            at = location or (None if typed else self.mentions.get(name))
            at = named_line(at, name) if at else Location(None)
            self.trace.events.append(Setting(name, value, at, self.via, through=through))
        if location is None:
            return
        if _QUESTION.match(said):
            self.trace.question = self.trace.question or location
        elif _INPUT.match(said):
            self._input(location)
        self.mentions |= {match[0]: location for match in _WORD.findall(said)}
        for word in DEFINED:
            if re.match(rf"\\?alias (?:[^=]* )?['\"]?{word}=", said):
                self.trace.defined[word] = location
        if typed and re.search(r"\bclaude\b", said):
            self.trace.called = location
        if location.path and location.path not in self.trace.files:
            self.trace.files.append(location.path)

    def _input(self, location: Location) -> None:
        """Record a `read` from the terminal itself."""
        line = "" if self.trace.question else text_at(location)
        if "/dev/tty" in line and re.search(r"\b(read|vared|select)\b", line):
            self.trace.question = location

    def _made(self, function: str, places: list[Location]) -> list[Location]:
        """Return the locations of a command in a function: the first is that of the `eval` that defined it, if any."""
        if not function:
            return places
        name = re.escape(function)
        pattern = re.compile(rf"(?<![\w-]){name}\s*\(\)|function {name}(?![\w-])")
        near = (each for each in reversed(self.evals) if function in each.text)  # cheap test first; there may be many
        made = next((each.location for each in near if pattern.search(each.text)), None)
        return [made, *places[1:]] if made else places

    def _source(self, argument: str, places: list[Location]) -> None:
        path = next(iter(split(argument)), argument)
        full = self._absolute(path)
        for location in places:
            self.callers[str(full)] = self.callers[path] = location
        if is_file(str(full)):
            self.sourced.append(full)

    def _absolute(self, path: str) -> Path:
        near = (directory / path for directory in (self.cwd, *(file.parent for file in reversed(self.sourced))))
        return Path(path) if path.startswith("/") else next((each for each in near if each.is_file()), Path(path))

    def _with_callers(self, location: Location | None) -> list[Location]:
        places = [location] if location else []
        while places and (caller := self.callers.get(str(places[-1].path))) and caller not in places:
            places.append(caller)
        return places

    def _bash(self, depth: int, fields: list[str], said: str) -> list[Location]:
        while self.active and self.active[-1].depth >= depth:
            self.active.pop()
        frames = [(fields[0], fields[1]), *zip(fields[4::2], fields[5::2], strict=False)]
        paths = [(self._absolute(path), line) for path, line in frames if path and line.isdigit()]
        places = [Location(path, int(line)) for path, line in paths if is_file(str(path))]
        if self.active and self.active[-1].frame == fields[:3:2]:
            return [self.active[-1].location, *places[1:]]
        return self._made("" if fields[3] in ("source", "main") else fields[3], places)

    def _zsh(self, _: int, fields: list[str], said: str) -> list[Location]:
        file, file_line, name, line = fields[:4]
        if name == "(eval)" and self.evals:
            return self._with_callers(self.evals[-1].location)
        if not is_file(file):
            return self._with_callers(self.callers.get(file))
        number = line if name == file else file_line
        location = _corrected(Location(Path(file), int(number) if number.isdigit() else 0), said)
        return self._made("" if name in (file, "(eval)") else name, self._with_callers(location))

    def _sh(self, _: int, fields: list[str], said: str) -> list[Location]:
        path, line = fields[:2]
        if path and line.isdigit() and is_file(str(self._absolute(path))):
            return self._with_callers(Location(self._absolute(path), int(line)))
        # dash does not report the file: use the last one with such a command
        return self._with_callers(None if self.via == "typed" else find_statement(said, reversed(self.sourced)))


def _corrected(location: Location, said: str) -> Location:
    """Return the location, or the line before if only that has the name: zsh counts one too many in `emulate sh -c`."""
    before = Location(location.path, location.line - 1)
    named = re.compile("|".join(rf"\b{name}\b" for name, _ in events_of(said)) or "(?!)")
    here = text_at(location)
    wrong = named.search(text_at(before)) and not named.search(here) and not re.search(r"[$`]", here)
    return before if wrong else location


def _beginning(location: Location) -> Location:
    """Return the line with the word `eval`: of an `eval` over several lines bash reports the last one."""
    lines = lines_of(location.path)
    above = range(min(location.line, len(lines)), 0, -1)
    found = next((number for number in above if re.search(r"\beval\b", lines[number - 1])), location.line)
    return Location(location.path, found)


def named_line(location: Location, name: str) -> Location:
    """Return the line with the name, for a statement over several lines whose reported line does not have it."""
    lines = lines_of(location.path)
    here = location.line - 1
    if not 0 <= here < len(lines) or name in lines[here]:
        return location
    first = last = here
    while first > 0 and lines[first - 1].endswith("\\"):
        first -= 1
    while last + 1 < len(lines) and lines[last].endswith("\\"):
        last += 1
    found = next((number for number in range(first, last + 1) if name in lines[number]), None)
    if found is None:  # of a `$(…)` over several lines bash reports the last one
        opens = re.compile(rf"\b{name}=[\"']?(\$\([^)]*|`[^`]*)$")
        above = range(here - 1, max(-1, here - 1 - _LONGEST), -1)
        found = next((number for number in above if opens.search(lines[number])), here)
    return Location(location.path, found + 1)


def find_statement(said: str, files: Iterable[Path], before: str = "") -> Location | None:
    """Find the most likely line of a traced command: it begins alike, and has the same name, words or an expansion.

    `before` was run just before it.
    """
    words = split(said)
    head = words[0].partition("=")[0] if words else ""
    begins = re.compile(rf"(^|[^\w-]){re.escape(head)}(?![\w-])" if head else "(?!)")
    names = re.findall(rf"\b(?:{ANY})\b", said)
    named = re.compile(rf"\b(?:{'|'.join(names)})\b" if names else "(?!)")
    feeder = Path(before.split()[0]).name if before.split() else ""
    best, found = 0, None
    for path in files:
        for number, line in enumerate(lines_of(path), 1):
            text = line.strip()
            has_name, expands = named.search(text) is not None, re.search(r"[$`(]", text) is not None
            if text.startswith("#") or not begins.search(text) or (names and not has_name and not expands):
                continue
            if head == "set" and names and words[1] not in text:
                continue
            score = 1 + 3 * sum(len(word) > 2 and word in text for word in words[1:4])
            if names:
                score += 4 * has_name + 2 * expands
            if words == ["source"]:
                score += 3 * (feeder != "" and feeder in text) + 2 * ("|" in text)
            if score > best:
                best, found = score, Location(path, number)
    return found


def read(answer: ShellAnswer, starts: Iterable[Path], home: Path) -> Trace:
    """Parse the trace of an answer. `starts` are the start-up files that this kind of shell may read, in order."""
    starts = list(starts)
    if answer.kind.shell == "sh" and (named := (answer.before or {}).get("ENV")):
        starts.append(Path(named.replace("$HOME", str(home)).replace("~", str(home), 1)))
    reader = _Reader(answer, starts)
    for record in answer.trace:
        reader.note(record)
    reader.via, reader.active = "export", []
    last = [(said, places[0]) for said, places in map(reader.place, answer.last) if places]
    plain = [at for _, at in last if at.path and "logout" not in at.path.name]
    left = [at for said, at in last if re.match(r"(exit|exec|logout)\b", said)]
    best = left if left and answer.ended.startswith("exit") else plain
    done = reader.trace
    done.stopped = best[-1] if best else None
    done.sourced = list(dict.fromkeys([*done.files, *reader.sourced[len(starts) :]]))
    done.files = list(dict.fromkeys([*done.files, *reader.sourced]))
    return done
