"""Line-based removal of settings from a shell's file; everything else stays byte for byte.

There is no shell parser here. The shell itself, which reads without running anything (`-n`), decides where a statement
begins and ends, whether a value is one word, and whether a file is still valid.

A statement that only sets watched names becomes a comment. After any other statement an `unset` is added, at the next
line at top level or at the end of the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ..core.keys import redact
from . import guard

#: Maximum number of lines of a statement. Its ends are not searched farther away; then the end of the file is used.
MAX_LINES = 200
#: Maximum number of positions tried as the end of a word.
MAX_WORDS = 40
_DECLARING = re.compile(
    r"(?:(?:builtin|command)[ \t]+)?(?:export|declare|typeset|readonly)(?:[ \t]+(?:-[gxrU]+|--))*[ \t]+"
)
_FISH_SET = re.compile(
    r"(?:builtin[ \t]+)?set(?:[ \t]+(?:-[gxUufl]+|--(?:export|global|universal|path|unpath)))+[ \t]+"
)
_FISH_EXPORT = re.compile(r"export[ \t]+")
_NAME = re.compile(r"([A-Za-z_]\w*)(=?)")
#: Text that is one word in every shell, so no shell has to be asked.
_PLAIN = re.compile(r"[\w./:@%+,-]*|'[^']*'|\"[^\"\\$`]*\"")
_BOUNDARY = re.compile(r"[ \t]*;?[ \t]*\r?$|[ \t]*;[ \t]*(?=#)|[ \t]+(?=\S)")
#: Words that no shell accepts as a command anywhere; inside a text they are ordinary.
_NEVER = "done then end )"
_CONTINUED = re.compile(r"[ \t]+\\\r?\n[ \t]*")
_GOES_ON = re.compile(r"(?:&&|(?<!&)(?:\|\|?|!))[ \t]*(?:#.*)?\r?$|(?<!\\)(?:\\\\)*\\\r?$")
_LOOKS_BACK = re.compile(r"\$\?|\$\{?(?:pipe)?status\b|^[ \t]*(?:and|or)\b")
_FUNCTION = re.compile(r"[ \t]*(?:function[ \t]|[^\s=\"'$;&|()]+[ \t]*\([ \t]*\))")


@dataclass(frozen=True)
class Assignment:
    """A statement that only sets `names`. `shown` is the statement without values; `comment` is the comment after it.

    `constant` means that the values are literal: nothing is expanded or run for them.
    """

    names: tuple[str, ...]
    shown: str
    comment: str
    constant: bool


@dataclass(frozen=True)
class Change:
    """One change: lines `first` to `last` (1-based) become the comment `shown`; if None, an `unset` follows `last`."""

    first: int
    last: int
    shown: str | None = None


#: Planned changes; for each change, the notes by name.
Changes = Mapping[Change, Mapping[str, str]]


class Script:
    """A shell's file before any change, and queries about its lines, answered by `shell`.

    `shell` "" means a file of KEY=VALUE lines, which no shell reads.
    """

    def __init__(self, text: str, shell: str) -> None:
        self.text = text
        self.shell = shell
        self.lines = text.split("\n")
        self.ending = "\r\n" if "\r\n" in text else "\n"
        # No shell reads KEY=VALUE lines, so none has to be asked.
        self._options = () if not shell else guard.options_for(text, shell)
        self._whole: dict[int, bool] = {}

    @property
    def understood(self) -> bool:
        """Return whether the shell accepts the unchanged file."""
        return self._options is not None

    def accepts(self, text: str) -> bool:
        """Return whether the shell accepts `text`, with the options chosen for this file."""
        return not self.shell or (self._options is not None and guard.accepts(text, self.shell, self._options))

    def refuses(self, text: str) -> bool:
        """Return whether the shell reports `text` as invalid."""
        return self._options is not None and guard.refuses(text, self.shell, self._options)

    def at_top(self, count: int) -> bool:
        """Return whether every construct, quote and here-document is closed after the first `count` lines."""
        if count not in self._whole:
            self._whole[count] = self._at_top(count)
        return self._whole[count]

    def _at_top(self, count: int) -> bool:
        if count == 0:
            return True
        before = "\n".join(self.lines[:count]) + "\n"
        if _goes_on(self.lines[:count]) or not self.accepts(before):
            return False
        # Inside a here-document the shell accepts anything.
        return self.shell == "fish" or self.refuses(f"{before}{_NEVER}\n")

    def statement(self, line: int) -> tuple[int, int] | None:
        """Return the first and last line of the top-level statement that contains `line`; None if that is unknown."""
        if not 1 <= line <= len(self.lines) or not self.understood:
            return None
        first = next((n + 1 for n in range(line - 1, max(-1, line - 1 - MAX_LINES), -1) if self.at_top(n)), None)
        last = next((n for n in range(line, min(len(self.lines), line + MAX_LINES) + 1) if self.at_top(n)), None)
        return None if first is None or last is None else (first, last)

    def defines(self, first: int) -> bool:
        """Return whether the statement at line `first` defines a function, whose body runs elsewhere."""
        return _FUNCTION.match(self.lines[first - 1]) is not None

    def assignment(self, line: int) -> tuple[int, int, Assignment] | None:
        """Return the first line, last line and assignment that contains `line`, if nothing else is on those lines."""
        span = self.statement(line)
        if span is None:
            return None
        if found := self._sole(*span):
            return (*span, found)
        if span[0] == span[1] or not self._runs(line):
            return None
        first = line
        while first > span[0] and _goes_on(self.lines[first - 2 : first - 1]):
            first -= 1
        last = next((n for n in range(line, span[1] + 1) if self._stands_alone(first, n)), None)
        if last is None or _goes_on(self.lines[span[0] - 1 : first - 1]):
            return None
        found = self._sole(first, last)
        return None if found is None else (first, last, found)

    def _runs(self, line: int) -> bool:
        """Return whether `line` is run as a command: there an invalid word is an error, but inside a text it is not."""
        return self.refuses("\n".join([*self.lines[: line - 1], _NEVER, *self.lines[line:]]))

    def _stands_alone(self, first: int, last: int) -> bool:
        lines = self.lines[first - 1 : last]
        return not _goes_on(lines) and self.accepts("\n".join(lines) + "\n")

    def _sole(self, first: int, last: int) -> Assignment | None:
        """Return the assignment on these lines; None if the following statement uses its exit status."""
        following = next((text for text in self.lines[last:] if text.strip() and not text.lstrip().startswith("#")), "")
        if _LOOKS_BACK.search(following):
            return None
        return assignment("\n".join(self.lines[first - 1 : last]), self.shell, self.accepts)

    def render(self, changes: Changes) -> tuple[str, list[int]] | None:
        """Return the changed text, and for each of its lines the original line; None if the shell rejects it."""
        if not changes:
            return self.text, list(range(1, len(self.lines) + 1))
        made = self._render(changes)
        if self.accepts(made[0]):
            return made
        # A block must not become empty.
        filled = [change.first for change in changes if not self.accepts(self._render({change: changes[change]})[0])]
        for fill in (filled, [change.first for change in changes]):
            made = self._render(changes, fill)
            if self.accepts(made[0]):
                return made
        return None

    def _render(self, changes: Changes, fill: Collection[int] = ()) -> tuple[str, list[int]]:
        """Apply the changes. `fill` lists lines where `:` replaces a statement that became a comment."""
        commented = {change.first: change for change in changes if change.shown is not None}
        after = {change.last: change for change in changes if change.shown is None}
        cr = self.ending.removesuffix("\n")
        out: list[tuple[str, int]] = []
        number = 1
        while number <= len(self.lines):
            line, change = self.lines[number - 1], commented.get(number)
            last = change.last if change else number
            if change:
                indent = line[: len(line) - len(line.lstrip(" \t"))]
                notes = dict.fromkeys(changes[change].values())
                out += [(f"{indent}# {note}{cr}", number) for note in notes]
                close = "" if last == len(self.lines) else cr
                out.append((f"{indent}{': ' if number in fill else ''}# {change.shown}{close}", number))
            else:
                out.append((line, number))
            for follow in [after[n] for n in range(number, last + 1) if n in after]:
                block = [(f"{text}{cr}", last) for text in self.unset(changes[follow])]
                if last == len(self.lines):  # no line end: add one, as the added text has one
                    text, origin = out.pop()
                    out += [*([(text + cr, origin)] if text else []), *block, ("", last)]
                else:
                    out += block
            number = last + 1
        return "\n".join(text for text, _ in out), [origin for _, origin in out]

    @property
    def end(self) -> Change:
        """Return the change at the end of the file."""
        last = len(self.lines) - (self.lines[-1] == "" and len(self.lines) > 1)
        return Change(last, last)

    def unset(self, notes: Mapping[str, str]) -> list[str]:
        """Return the lines that unset names; `notes` gives the reason by name."""
        said = [f"# {note}" for note in dict.fromkeys(notes.values())]
        names = sorted(notes)
        return said + ([f"set -e {name}" for name in names] if self.shell == "fish" else [f"unset {' '.join(names)}"])

    def unset_already(self, line: int, name: str) -> bool:
        """Return whether `line` is followed by an `unset` of the name, so that another one would not help."""
        verb = "set -e " if self.shell == "fish" else "unset "
        for text in self.lines[line:]:
            if text.strip() and not text.lstrip().startswith("#"):
                if not text.strip().startswith(verb):
                    return False
                if name in text.split():
                    return True
        return False

    def masked(self, line: int, names: Collection[str]) -> str:
        """Return a line of KEY=VALUE with its value hidden."""
        pattern = rf"\b({'|'.join(map(re.escape, names))})([ \t]*[=:]|[ \t]+(?:DEFAULT|OVERRIDE)=).*"
        return redact(re.sub(pattern, r"\1\2…", self.lines[line - 1].strip()))


def assignment(text: str, shell: str, accepts: Callable[[str], bool]) -> Assignment | None:
    """Return the assignment in `text`, if it is one statement that does nothing else. `accepts` asks `shell`."""
    rest = _CONTINUED.sub(" ", text.strip(" \t\r\n"))
    heads = (_FISH_SET, _FISH_EXPORT) if shell == "fish" else (_DECLARING,)
    head = next((found for pattern in heads if (found := pattern.match(rest))), None)
    if head is None and shell == "fish":
        return None
    listed = bool(head and _FISH_SET.match(rest) and shell == "fish")
    at = head.end() if head else 0
    names: list[str] = []
    shown = [" ".join(head[0].split())] if head else []
    constant = True
    while at < len(rest) and rest[at] != "#":
        name = None if listed and names else _NAME.match(rest, at)
        start = name.end() if name else at
        if name is None and not (listed and names):
            return None
        end = _word_end(rest, start, shell, accepts)
        if end is None:
            return None
        value = rest[start : end[0]]
        if name:
            if name[2] != "=" and (value or head is None):
                return None
            names.append(name[1])
            constant = constant and (name[2] == "=" or listed)
            more = listed and end[1] < len(rest) and rest[end[1]] != "#"
            shown.append(f"{name[1]}=…" if name[2] else f"{name[1]} …" if more else name[1])
        if not _PLAIN.fullmatch(value):
            constant = constant and not re.search(r"[$`(]", re.sub(r"'[^']*'", "", value))
        at = end[1]
    if not names:
        return None
    return Assignment(tuple(names), " ".join(shown), redact(rest[at:].rstrip()), constant)


def _word_end(text: str, start: int, shell: str, accepts: Callable[[str], bool]) -> tuple[int, int] | None:
    """Return (end of the word at `start`, start of the rest); None if there is no single word."""
    for number, boundary in enumerate(_BOUNDARY.finditer(text, start)):
        value = text[start : boundary.start()]
        if number > MAX_WORDS or (shell != "fish" and value.startswith("(")):
            return None
        if value.endswith(";"):  # fish and zsh would ignore it below
            continue
        if _PLAIN.fullmatch(value) or accepts((_FISH_WORD if shell == "fish" else _POSIX_WORD).format(value)):
            return boundary.start(), boundary.end()
    return None


#: Each template takes exactly one word, so the shell decides whether the value is one.
_POSIX_WORD = "case {} in x) ;; esac\n"
_FISH_WORD = "switch {};case x;end\n"


def _goes_on(lines: list[str]) -> bool:
    """Return whether the last line that is not a comment continues on the next line."""
    for line in reversed(lines):
        if line.strip() and not line.lstrip().startswith("#"):
            return _GOES_ON.search(line) is not None
    return False
