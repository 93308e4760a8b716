"""Parsing of fish's trace: `fish_trace` shows files and commands, variable events show lines."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from .ask import ShellAnswer
from .events import GENERATED, SHIPPED, Event, Trace, is_file
from .kinds import DEFINED, FIELD
from .names import WATCHED
from .reading import lines_of
from .verdict import Location

_COMMAND = re.compile(r"(-*)> (.*)")
_FRAME = re.compile(r"called on line (\d+) of file ([^\x1e]+)")


@dataclass
class _SourcedFile:
    """A file that is being sourced. `path` is None for a command's output."""

    depth: int
    path: Path | None
    #: Where it is sourced, for a command's output.
    at: Location | None = None

    @property
    def own(self) -> Path | None:
        """Return the path, if the file is the operator's."""
        return None if self.path is None or SHIPPED.match(str(self.path)) else self.path


class _FishReader:
    def __init__(self, answer: ShellAnswer, home: Path) -> None:
        self.home = home
        self.cwd = Path(answer.before.get("PWD", "/")) if answer.before else home
        self.trace = Trace()
        self.open: list[_SourcedFile] = []
        self.before = ""
        self.pending: Event | None = None
        self.typed = self.prompting = False
        #: Locations of prompt hooks that were printed by a command: fish does not trace what they do.
        self.hooks: list[Location] = []
        #: Locations of the commands being run, by depth.
        self.lines: list[tuple[int, Location, str]] = []

    def record(self, text: str) -> Location | None:
        """Process one record. Return its location, as far as it is known."""
        text = text.partition(FIELD)[2]
        if text.startswith("\x1d"):
            self._event(text[1:])
            return None
        match = _COMMAND.match(text)
        if match is None:
            return None
        depth, said = len(match[1]), match[2]
        while self.open and self.open[-1].depth >= depth:
            self.open.pop()
        while self.lines and self.lines[-1][0] >= depth:
            self.lines.pop()
        if said.startswith("emit fish_prompt"):
            self.prompting = True
        if "farmhand-before" in said:
            self.typed = True
        self.pending = None
        location = self._command(depth, said)
        self.before = said
        return location

    def _command(self, depth: int, said: str) -> Location | None:
        words = _split(said)
        head = words[0] if words else ""
        location = self._location(said)
        if location is not None:
            self.lines.append((depth, location, said))
        if head == "function" and "fish_prompt" in words and location:
            self.hooks.append(location)
        if head == "source" or said.startswith("builtin source"):
            self._source(depth, [word for word in words[1:] if word != "source"], location)
        elif head == "set":
            self._set(words[1:], location)
        elif head in ("alias", "abbr", "function") and (word := _defined(words)):
            if head == "function" and not (self.open and self.open[-1].path):
                location = self._enclosing() or location
            if location and not (head == "function" and word in self.trace.defined):
                self.trace.defined[word] = location
        elif head in ("env", "command") or "=" in head:
            for word in words:
                name, equals, value = word.partition("=")
                if equals and name in WATCHED:
                    self._add(Event(name, location, value=value, typed=self.typed))
        if head == "read" and not self.typed and location and {"-p", "-P", "--prompt", "--prompt-str"} & set(words):
            self.trace.question = location
        if self.typed and "claude" in words and location:
            self.trace.called = location
        return location

    def _source(self, depth: int, words: list[str], location: Location | None) -> None:
        path = Path(words[0]) if words else None
        if path is not None and not path.is_absolute():
            path = self.cwd / path
        if path is not None and GENERATED.match(str(path)):
            path = None
        self.open.append(_SourcedFile(depth, path, location))
        if (own := self.open[-1].own) and own not in self.trace.files:
            self.trace.files.append(own)

    def _set(self, words: list[str], location: Location | None) -> None:
        flags = "".join(word for word in words if word.startswith("-") and not word.startswith("--"))
        long = {word for word in words if word.startswith("--")}
        rest = [word for word in words if not word.startswith("-")]
        if not rest or rest[0] not in WATCHED or {"q", "S"} & set(flags) or {"--query", "--show"} & long:
            return
        unset = "e" in flags or "--erase" in long
        if "l" in flags and "x" not in flags:
            return
        value = " ".join(rest[1:]) if len(rest) > 1 else None
        self._add(
            Event(rest[0], location, self._through(), value, unset, self.typed, self.prompting and not self.typed)
        )

    def _add(self, event: Event) -> None:
        self.trace.events.append(event)
        self.pending = event

    def _event(self, text: str) -> None:
        """Process a variable's event, which has the line if the file is one that can be edited."""
        name, _, said = text.partition(FIELD)
        frames = [(int(line), path.strip()) for line, path in _FRAME.findall(said.partition("in event handler")[2])]
        event = self.pending if self.pending and self.pending.name == name else None
        self.pending = None
        if not frames:
            return
        line, path = frames[0]
        full = Path(path.replace("~", str(self.home), 1) if path.startswith("~") else path)
        prompt = self.prompting and not self.typed
        if not is_file(str(full)):
            if event is None and prompt and self.hooks:
                self.trace.events.append(Event(name, self.hooks[-1], typed=False, prompt=True))
            return
        text = "".join(lines_of(full)[line - 1 : line])
        if name not in text and self.before.startswith("eval "):  # line within the text of the `eval`
            line = line_of(full, self.before, "") or line
        if event is None:  # NAME=value before a command: fish traces no `set` for it
            if name in text or self.before.startswith("eval "):
                self.trace.events.append(Event(name, Location(full, line), typed=self.typed, prompt=prompt))
        else:
            event.location = Location(full, line)

    def _enclosing(self) -> Location | None:
        """Return the location at which the innermost sourced file with a known location was sourced."""
        return next((each.at for each in reversed(self.open) if each.at), None)

    def _through(self) -> Location | None:
        files = [each for each in self.open if each.own]
        return files[-1].at if files else None

    def _location(self, said: str) -> Location | None:
        outer = self.lines[-1] if self.lines else None
        if outer and outer[2].startswith(("export ", "eval ")) and any(n in said and n in outer[2] for n in WATCHED):
            return outer[1]  # fish's own function, or the arguments of an eval
        for each in reversed(self.open):
            if each.path is None:
                return each.at
            if each.own:
                line = line_of(each.own, said, self.before)
                return Location(each.own, line) if line else self.lines[-1][1] if self.lines else None
        return self.lines[-1][1] if self.lines else None


def line_of(path: Path, said: str, before: str) -> int:
    """Return the most likely line of a traced command; 0 if there is none. `before` was run just before it."""
    words = _split(said)
    if not words:
        return 0
    names = [word for word in WATCHED if re.search(rf"\b{word}\b", said)]
    feeder = Path(before.split()[0]).name if before.split() else ""
    best, found = 0, 0
    for number, line in enumerate(lines_of(path), 1):
        text = line.strip()
        if text.startswith("#") or not re.search(rf"(^|[^\w-]){re.escape(words[0])}(?![\w-])", text):
            continue
        if words[0] == "set" and names and (words[1] not in text or not re.search(rf"[$(]|{'|'.join(names)}", text)):
            continue
        score = (
            1
            + 4 * any(re.search(rf"\b{name}\b", text) for name in names)
            + 2 * ("$" in text or "(" in text) * bool(names)
        )
        score += 3 * sum(len(word) > 2 and word in text for word in words[1:4])
        score += 3 * (words == ["source"] and bool(feeder) and feeder in text) + 2 * (
            words == ["source"] and "|" in text
        )
        if score > best:
            best, found = score, number
    return found


def _split(said: str) -> list[str]:
    try:
        return shlex.split(said)
    except ValueError:
        return said.split()


def _defined(words: list[str]) -> str:
    """Return the word of DEFINED that a command redefines; "" if none."""
    rest = [word for word in words[1:] if not word.startswith("-")]
    name = rest[0].partition("=")[0] if rest else ""
    return name if name in DEFINED else ""


def read(answer: ShellAnswer, home: Path) -> Trace:
    """Parse the trace of fish's answer."""
    reader = _FishReader(answer, home)
    for record in answer.trace:
        reader.record(record)
    done = reader.trace
    stack = [each.own for each in reader.open if each.own]
    seen = next((text for text in reversed(answer.last) if _COMMAND.match(text.partition(FIELD)[2])), "")
    match = _COMMAND.match(seen.partition(FIELD)[2])
    if stack and match and stack[-1].is_file():
        line = line_of(stack[-1], match[2], "")
        # `exec` is never traced: if fish has ended, it is the next `exec` line.
        lines = enumerate(lines_of(stack[-1]), 1)
        after = [number for number, text in lines if number >= line and re.search(r"\bexec\b", text)]
        done.stopped = Location(stack[-1], after[0] if after and answer.ended.startswith("exit") else line)
    return done
