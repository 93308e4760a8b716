"""Parsing of a shell's trace: where each watched name was set, and where the shell stopped."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import trace_fish
from .ask import ShellAnswer
from .events import Event, Trace, is_file
from .kinds import DEFINED, FIELD
from .names import ANY, WATCHED
from .reading import lines_of
from .verdict import Location

_WORD = re.compile(rf"(?<![\w$])({ANY})(?!\w)(=?)")
_DECLARING = {"export", "typeset", "declare", "local", "readonly", "integer", "setenv"}
_READING = {"read", "printf", "mapfile", "readarray", "getopts", "vared"}
_RUNNING = {"env", "exec", "command", "sudo", "nohup", "noglob", "time", "builtin", "nice"}
_SOURCES = re.compile(r"\\?(?:builtin |command |\\)?(?:source|\.) (?:-- )?(.+)")

#: Maximum number of lines of a command substitution in the search for its beginning.
_LONGEST = 40
#: `read` with a prompt: the input of a person is not known here.
_QUESTION = re.compile(r"(builtin )?read (\S+ )*(-\w*[pqk]\b|'?\?|[\"']?\w+\?)|vared |select ")
#: zsh's message when a command would read from the terminal.
_NO_TTY = re.compile(r"\n(/[^\n:]+):(\d+): [^\n]*: /dev/tty")


def events_of(said: str) -> list[tuple[str, str | None, bool]]:
    """Return the watched names that a traced command sets: name, value if known, whether it is unset."""
    if not _WORD.search(said):
        return []
    try:
        words = shlex.split(said)
    except ValueError:
        words = said.split()
    words = [word.removeprefix("$") if word.startswith("$") and "=" in word else word for word in words]
    while len(words) > 1 and words[0] in ("builtin", "command", "noglob", "\\export"):
        words = words[1:]
    if not words:
        return []
    head = words[0].lstrip("\\")
    found: list[tuple[str, str | None, bool]] = []
    if head == "unset":
        return [(word, None, True) for word in words[1:] if word in WATCHED]
    gone = head in _DECLARING and bool({"-n", "+x", "+gx"} & set(words))
    if head in _DECLARING or head in _RUNNING or re.match(r"\w+\+?=", head):
        for word in words if head not in _DECLARING | _RUNNING else words[1:]:
            name, equals, value = word.partition("=")
            name = name.rstrip("+")
            if name in WATCHED and (equals or head in _DECLARING):
                found.append((name, value if equals else None, gone))
            elif head not in _DECLARING | _RUNNING and not equals:
                break  # the command after its own assignments
    elif head in _READING:
        found += [(word, None, False) for word in words[1:] if word in WATCHED]
    return found


@dataclass(frozen=True)
class _Eval:
    """A command that runs its arguments as commands: they are in no file, so they get its location."""

    depth: int
    text: str
    location: Location
    frame: tuple[str, ...] = ()


class _Reader:
    """A parser for the trace of bash, zsh or sh, record by record."""

    def __init__(self, answer: ShellAnswer, starts: Iterable[Path]) -> None:
        self.shell = answer.kind.shell
        self.cwd = Path(answer.before.get("PWD", "/")) if answer.before else Path("/")
        self.trace = Trace()
        self.evals: list[_Eval] = []
        self.active: list[_Eval] = []
        self.callers: dict[str, Location] = {}
        self.mentions: dict[str, Location] = {}
        self.sourced: list[Path] = list(starts)
        self.read_at: set[Location] = set()
        self.prompting = self.typed = False

    def record(self, text: str) -> Location | None:
        """Process one record. Return its location, as far as it is known."""
        depth_text, _, rest = text.partition(FIELD)
        depth = int(depth_text) if depth_text.isdigit() else 0
        fields = rest.split(FIELD)
        said = fields[-1].rstrip("\n") if self.shell != "zsh" else fields[-1].split("\n")[0].rstrip()
        places, function, frame = getattr(self, f"_{self.shell}")(depth, fields, said)
        if function and (made := self._made_by(function)):
            places = [made, *places[1:]]
        location = places[0] if places else None
        if source := _SOURCES.match(said):
            self._source(source[1], location)
        if said.startswith("eval ") and location:
            location, places = _beginning(location), [_beginning(location), *places[1:]]
        if said.startswith(("eval ", "emulate ")) and location:
            self.evals.append(_Eval(depth, said.replace("\\n", "\n"), location, frame))
            self.active.append(self.evals[-1])
        if (tty := _NO_TTY.search(fields[-1])) and is_file(tty[1]):
            self._ask(Location(Path(tty[1]), int(tty[2])))
        self.prompting = self.prompting or "__farmhand" in said
        self.typed = self.typed or "farmhand-before" in said
        self._note(said, places)
        return location

    def _note(self, said: str, places: list[Location]) -> None:
        location = places[0] if places else None
        through = next((place for place in places[1:] if place.path != places[0].path), None)
        for name, value, unset in events_of(said):
            at = location or (None if self.typed else self.mentions.get(name))
            prompt = self.prompting and not self.typed
            at = named_line(at, name) if at else None
            self.trace.events.append(Event(name, at, through, value, unset, self.typed, prompt))
        if location is None:
            return
        if said.startswith(("read ", "builtin read ", "vared ", "select ")) and _QUESTION.match(said):
            self.trace.question = self.trace.question or location
        elif said.startswith(("read ", "builtin read ")):
            self._ask(location)
        for found in _WORD.findall(said):
            self.mentions[found[0]] = location
        for word in DEFINED:
            if re.match(rf"\\?alias (?:[^=]* )?['\"]?{word}=", said):
                self.trace.defined[word] = location
        if self.typed and re.search(r"\bclaude\b", said):
            self.trace.called = location
        if location.path and location.path not in self.trace.files:
            self.trace.files.append(location.path)

    def _ask(self, location: Location) -> None:
        """Record a `read` from the terminal itself."""
        if location in self.read_at:  # in a loop
            return
        self.read_at.add(location)
        lines = lines_of(location.path)
        line = lines[location.line - 1] if 0 < location.line <= len(lines) else ""
        if "/dev/tty" in line and re.search(r"\b(read|vared|select)\b", line):
            self.trace.question = self.trace.question or location

    def _made_by(self, function: str) -> Location | None:
        """Return the location of the `eval` that defined a function."""
        name = re.escape(function)
        pattern = re.compile(rf"(?<![\w-]){name}\s*\(\)|function {name}(?![\w-])")
        near = (each for each in reversed(self.evals) if function in each.text)  # cheap test first; there may be many
        return next((each.location for each in near if pattern.search(each.text)), None)

    def _source(self, argument: str, location: Location | None) -> None:
        try:
            path = shlex.split(argument)[0]
        except (ValueError, IndexError):
            path = argument.split()[0] if argument.split() else argument
        full = self._absolute(path)
        if location:
            self.callers[str(full)] = self.callers[path] = location
        if is_file(str(full)):
            self.sourced.append(full)

    def _absolute(self, path: str) -> Path:
        near = [self.cwd, *(file.parent for file in reversed(self.sourced))]
        return (
            Path(path) if path.startswith("/") else next((d / path for d in near if (d / path).is_file()), Path(path))
        )

    def _with_callers(self, location: Location | None) -> list[Location]:
        places = [location] if location else []
        while places and (caller := self.callers.get(str(places[-1].path))) and caller not in places:
            places.append(caller)
        return places

    def _bash(self, depth: int, fields: list[str], said: str) -> tuple[list[Location], str, tuple[str, ...]]:
        if len(fields) < 5:
            return [], "", ()
        frame = (fields[0], fields[2])
        while self.active and self.active[-1].depth >= depth:
            self.active.pop()
        frames = [(fields[0], fields[1]), *zip(fields[4:-1:2], fields[5:-1:2], strict=False)]
        paths = [(self._absolute(path), line) for path, line in frames if path and line.isdigit()]
        places = [Location(path, int(line)) for path, line in paths if is_file(str(path))]
        if self.active and self.active[-1].frame == frame:
            return [self.active[-1].location, *places[1:]], "", frame
        return places, fields[3] if fields[3] not in ("source", "main") else "", frame

    def _zsh(self, depth: int, fields: list[str], said: str) -> tuple[list[Location], str, tuple[str, ...]]:
        if len(fields) < 5:
            return [], "", ()
        file, file_line, name, line = fields[:4]
        function = ""
        if name == "(eval)" and self.evals:
            location: Location | None = self.evals[-1].location
        elif is_file(file):
            number = line if name == file else file_line
            location = _corrected(Path(file), int(number) if number.isdigit() else 0, said)
            function = "" if name in (file, "(eval)") else name
        else:
            location = self.callers.get(file)
        return self._with_callers(location), function, ()

    def _sh(self, depth: int, fields: list[str], said: str) -> tuple[list[Location], str, tuple[str, ...]]:
        if len(fields) < 3:
            return [], "", ()
        path, line = fields[:2]
        if path and line.isdigit() and is_file(str(self._absolute(path))):
            location: Location | None = Location(self._absolute(path), int(line))
        else:  # dash does not report the file: use the last one with such a command
            location = None if self.typed else find_statement(said, reversed(self.sourced))
        return self._with_callers(location), "", ()


def _corrected(path: Path, line: int, said: str) -> Location:
    """Return the location, or the line before if only that has the name: zsh counts one too many in `emulate sh -c`."""
    names = {name for name, _, _ in events_of(said)}
    if names:
        lines = lines_of(path)
        text = lines[line - 1] if 0 < line <= len(lines) else ""
        before = lines[line - 2] if 1 < line <= len(lines) + 1 else ""
        named = [any(re.search(rf"\b{name}\b", each) for name in names) for each in (text, before)]
        if named == [False, True] and not re.search(r"[$`]", text):
            line -= 1
    return Location(path, line)


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


def find_statement(said: str, files: Iterable[Path]) -> Location | None:
    """Find the most likely line of a traced command: it begins alike, and has the same name or an expansion."""
    head = said.split(" ")[0].split("=")[0]
    names = {match[0] for match in _WORD.findall(said)}
    looser: Location | None = None
    for path in files:
        for number, line in enumerate(lines_of(path), 1):
            text = line.strip()
            if text.startswith("#") or not text:
                continue
            if names and any(re.search(rf"\b{name}\b", text) for name in names) and "unset" not in text:
                return Location(path, number)
            alike = head and re.search(rf"(^|[\s;&|({{]){re.escape(head)}(?![\w-])", text)
            if looser is None and alike and (not names or re.search(r"[$`]", text)):
                looser = Location(path, number)
    return looser


def read(answer: ShellAnswer, starts: Iterable[Path], home: Path) -> Trace:
    """Parse the trace of an answer. `starts` are the start-up files that this kind of shell may read, in order."""
    if answer.kind.shell == "fish":
        return trace_fish.read(answer, home)
    starts = list(starts)
    if answer.kind.shell == "sh" and (named := (answer.before or {}).get("ENV")):
        starts.append(Path(named.replace("$HOME", str(home)).replace("~", str(home), 1)))
    reader = _Reader(answer, starts)
    for record in answer.trace:
        reader.record(record)
    done = reader.trace
    last = _Reader(answer, starts)
    last.callers, last.evals, last.sourced = reader.callers, reader.evals, reader.sourced
    seen = [(last.record(record), record) for record in answer.last]
    plain = [at for at, _ in seen if at and at.path and "logout" not in at.path.name]
    left = [at for at, record in seen if at and re.search(rf"{FIELD}(exit|exec|logout)\b[^{FIELD}]*$", record)]
    best = left if left and answer.ended.startswith("exit") else plain
    done.stopped = best[-1] if best else None
    done.sourced = list(dict.fromkeys([*done.files, *reader.sourced[len(starts) :]]))
    done.files = list(dict.fromkeys([*done.files, *reader.sourced]))
    return done
