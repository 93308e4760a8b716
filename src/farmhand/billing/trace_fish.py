"""Parsing of fish's trace: `fish_trace` shows files and commands, variable events show lines."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .ask import ShellAnswer
from .kinds import DEFINED, FIELD, RECORD
from .names import WATCHED
from .reading import lines_of, text_at
from .trace import GENERATED, SHIPPED, Trace, find_statement, is_file, split
from .verdict import Location, Setting

_COMMAND = re.compile(r"(-*)> (.*)")
_FRAME = re.compile(r"called on line (\d+) of file ([^\x1e]+)")


@dataclass
class _SourcedFile:
    """A file that is being sourced. `path` is None for a command's output; `at` is where that is sourced."""

    depth: int
    path: Path | None
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
        self.via = "export"
        self.open: list[_SourcedFile] = []
        self.before = ""
        self.pending: Setting | None = None
        #: Locations of prompt hooks that were printed by a command: fish does not trace what they do.
        self.hooks: list[Location] = []
        #: Locations of the commands being run, by depth.
        self.lines: list[tuple[int, Location, str]] = []

    def note(self, record: str) -> None:
        """Take what a record shows into the trace."""
        text = record.partition(FIELD)[2]
        if text.startswith(RECORD):
            self._event(text[1:])
        elif match := _COMMAND.match(text):
            depth, said = len(match[1]), match[2]
            while self.open and self.open[-1].depth >= depth:
                self.open.pop()
            while self.lines and self.lines[-1][0] >= depth:
                self.lines.pop()
            if "farmhand-before" in said:
                self.via = "typed"
            elif said.startswith("emit fish_prompt") and self.via == "export":
                self.via = "prompt"
            self.pending = None
            self._command(depth, said)
            self.before = said

    def _command(self, depth: int, said: str) -> None:
        words = split(said)
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
                # it is in the output of a command: take where that is sourced
                location = next((each.at for each in reversed(self.open) if each.at), location)
            if location and not (head == "function" and word in self.trace.defined):
                self.trace.defined[word] = location
        elif head in ("env", "command") or "=" in head:
            for name, equals, value in (word.partition("=") for word in words):
                if equals and name in WATCHED:
                    self._add(name, value, location, None, "typed" if self.via == "typed" else "export")
        typed = self.via == "typed"
        if head == "read" and not typed and location and {"-p", "-P", "--prompt", "--prompt-str"} & set(words):
            self.trace.question = location
        if typed and "claude" in words and location:
            self.trace.called = location

    def _source(self, depth: int, words: list[str], location: Location | None) -> None:
        path = self.cwd / words[0] if words else None
        if path is not None and GENERATED.match(str(path)):
            path = None
        self.open.append(_SourcedFile(depth, path, location))
        if (own := self.open[-1].own) and own not in self.trace.files:
            self.trace.files.append(own)

    def _set(self, words: list[str], location: Location | None) -> None:
        flags = "".join(word for word in words if word.startswith("-") and not word.startswith("--"))
        long = {word for word in words if word.startswith("--")}
        name, *values = [word for word in words if not word.startswith("-")] or [""]
        shows = {"q", "S"} & set(flags) or {"--query", "--show"} & long
        if name not in WATCHED or shows:
            return
        unset = "e" in flags or "--erase" in long
        if "l" in flags and "x" not in flags:
            return
        through = next((each.at for each in reversed(self.open) if each.own), None)
        self._add(name, "" if unset else " ".join(values) if values else None, location, through, self.via)

    def _add(self, name: str, value: str | None, at: Location | None, through: Location | None, via: str) -> None:
        self.pending = Setting(name, value, at or Location(None), via, through=through)
        self.trace.events.append(self.pending)

    def _event(self, text: str) -> None:
        """Process a variable's event, which has the line if the file is one that can be edited."""
        name, _, said = text.partition(FIELD)
        pending = self.pending if self.pending and self.pending.name == name else None
        self.pending = None
        frame = _FRAME.search(said.partition("in event handler")[2])
        if frame is None:
            return
        path = frame[2].strip()
        full = Path(path.replace("~", str(self.home), 1) if path.startswith("~") else path)
        at = Location(full, int(frame[1]))
        if not is_file(str(full)):
            if pending is None and self.via == "prompt" and self.hooks:
                self.trace.events.append(Setting(name, None, self.hooks[-1], "prompt"))
            return
        named, in_eval = name in text_at(at), self.before.startswith("eval ")
        if in_eval and not named:  # line within the text of the `eval`
            at = find_statement(self.before, [full]) or at
        if pending is not None:
            pending.location = at
        elif named or in_eval:  # NAME=value before a command: fish traces no `set` for it
            self.trace.events.append(Setting(name, None, at, self.via))

    def _location(self, said: str) -> Location | None:
        _, outer, running = self.lines[-1] if self.lines else (0, None, "")
        if running.startswith(("export ", "eval ")) and any(n in said and n in running for n in WATCHED):
            return outer  # fish's own function, or the arguments of an eval
        for each in reversed(self.open):
            if each.path is None:
                return each.at
            if each.own:
                return find_statement(said, [each.own], self.before) or outer
        return outer


def _defined(words: list[str]) -> str:
    """Return the word of DEFINED that a command redefines; "" if none."""
    name = next((word for word in words[1:] if not word.startswith("-")), "").partition("=")[0]
    return name if name in DEFINED else ""


def read(answer: ShellAnswer, _: Iterable[Path], home: Path) -> Trace:
    """Parse the trace of fish's answer."""
    reader = _FishReader(answer, home)
    for record in answer.trace:
        reader.note(record)
    done = reader.trace
    stack = [each.own for each in reader.open if each.own]
    seen = [match[2] for record in answer.last if (match := _COMMAND.match(record.partition(FIELD)[2]))]
    if stack and seen and stack[-1].is_file():
        at = find_statement(seen[-1], stack[-1:]) or Location(stack[-1])
        # `exec` is never traced: if fish has ended, it is the next `exec` line.
        lines = enumerate(lines_of(at.path), 1)
        after = [number for number, text in lines if number >= at.line and re.search(r"\bexec\b", text)]
        done.stopped = Location(at.path, after[0]) if after and answer.ended.startswith("exit") else at
    return done
