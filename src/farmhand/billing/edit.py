"""Taking settings out of a shell's file by lines; everything else stays as it is, byte for byte.

There is no parser of shells here. Where a statement begins and ends, whether a value is one word and whether a file is
still whole is asked of the shell itself, which reads without running anything (`-n`).

A statement that is nothing but the setting of watched names becomes a comment. After every other one an `unset` is put,
where the shell is at top level again, or at the end of the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ..core.keys import redact
from . import guard

#: Longest statement, in lines, whose ends are looked for; behind that the end of the file has to do.
MAX_LINES = 200
#: Most places at which a word's end is looked for.
MAX_WORDS = 40
_DECLARING = re.compile(
    r"(?:(?:builtin|command)[ \t]+)?(?:export|declare|typeset|readonly)(?:[ \t]+(?:-[gxrU]+|--))*[ \t]+"
)
_FISH_SET = re.compile(
    r"(?:builtin[ \t]+)?set(?:[ \t]+(?:-[gxUufl]+|--(?:export|global|universal|path|unpath)))+[ \t]+"
)
_FISH_EXPORT = re.compile(r"export[ \t]+")
_NAME = re.compile(r"([A-Za-z_]\w*)(=?)")
#: Words that are one in every shell, so that none has to be asked.
_PLAIN = re.compile(r"[\w./:@%+,-]*|'[^']*'|\"[^\"\\$`]*\"")
_BOUNDARY = re.compile(r"[ \t]*;?[ \t]*\r?$|[ \t]*;[ \t]*(?=#)|[ \t]+(?=\S)")
#: What no shell takes for a command wherever it stands; in a text it is nothing special.
_NEVER = "done then end )"
_CONTINUED = re.compile(r"[ \t]+\\\r?\n[ \t]*")
_GOES_ON = re.compile(r"(?:&&|(?<!&)(?:\|\|?|!))[ \t]*(?:#.*)?\r?$|(?<!\\)(?:\\\\)*\\\r?$")
_LOOKS_BACK = re.compile(r"\$\?|\$\{?(?:pipe)?status\b|^[ \t]*(?:and|or)\b")
_FUNCTION = re.compile(r"[ \t]*(?:function[ \t]|[^\s=\"'$;&|()]+[ \t]*\([ \t]*\))")


@dataclass(frozen=True)
class Assignment:
    """A statement that does nothing but set `names`. `shown`: it without values; `comment`: the one behind it.

    `constant`: the values stand there themselves; nothing is expanded or run for them.
    """

    names: tuple[str, ...]
    shown: str
    comment: str
    constant: bool


@dataclass(frozen=True)
class Change:
    """One change: lines `first` to `last` (1-based) become the comment `shown`; None: an `unset` behind `last`."""

    first: int
    last: int
    shown: str | None = None


#: What is to be changed, and of each change the names that it is for with their notes.
Changes = Mapping[Change, Mapping[str, str]]


class Script:
    """A shell's file before any change, and the questions about its lines that are put to `shell`.

    `shell` "" stands for a file of KEY=VALUE lines, which no shell reads.
    """

    def __init__(self, text: str, shell: str) -> None:
        self.text = text
        self.shell = shell
        self.lines = text.split("\n")
        self.ending = "\r\n" if "\r\n" in text else "\n"
        # Lines of KEY=VALUE are no shell's: nobody has to be asked about them.
        self._options = () if not shell else guard.options_for(text, shell)
        self._whole: dict[int, bool] = {}

    @property
    def understood(self) -> bool:
        """Whether the shell accepts the file as it is."""
        return self._options is not None

    def accepts(self, text: str) -> bool:
        """Whether the shell accepts `text`, started as for this file."""
        return not self.shell or (self._options is not None and guard.accepts(text, self.shell, self._options))

    def refuses(self, text: str) -> bool:
        """Whether the shell says that `text` is not valid."""
        return self._options is not None and guard.refuses(text, self.shell, self._options)

    def at_top(self, count: int) -> bool:
        """Whether after the first `count` lines every construct, quote and here-document is closed."""
        if count not in self._whole:
            self._whole[count] = self._at_top(count)
        return self._whole[count]

    def _at_top(self, count: int) -> bool:
        if count == 0:
            return True
        before = "\n".join(self.lines[:count]) + "\n"
        if _goes_on(self.lines[:count]) or not self.accepts(before):
            return False
        # Inside of a here-document the shell takes anything.
        return self.shell == "fish" or self.refuses(f"{before}{_NEVER}\n")

    def statement(self, line: int) -> tuple[int, int] | None:
        """The first and the last line of the statement at top level that holds `line`; None if that cannot be told."""
        if not 1 <= line <= len(self.lines) or not self.understood:
            return None
        first = next((n + 1 for n in range(line - 1, max(-1, line - 1 - MAX_LINES), -1) if self.at_top(n)), None)
        last = next((n for n in range(line, min(len(self.lines), line + MAX_LINES) + 1) if self.at_top(n)), None)
        return None if first is None or last is None else (first, last)

    def defines(self, first: int) -> bool:
        """Whether the statement at line `first` defines a function: what it holds runs elsewhere."""
        return _FUNCTION.match(self.lines[first - 1]) is not None

    def assignment(self, line: int) -> tuple[int, int, Assignment] | None:
        """The assignment that `line` belongs to, with its first and last line, if it is all that stands on them."""
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
        """Whether the shell takes `line` for a command: nonsense in its place is refused, but not in a text."""
        return self.refuses("\n".join([*self.lines[: line - 1], _NEVER, *self.lines[line:]]))

    def _stands_alone(self, first: int, last: int) -> bool:
        lines = self.lines[first - 1 : last]
        return not _goes_on(lines) and self.accepts("\n".join(lines) + "\n")

    def _sole(self, first: int, last: int) -> Assignment | None:
        """The assignment that the lines are; none where what follows looks at how it went."""
        following = next((text for text in self.lines[last:] if text.strip() and not text.lstrip().startswith("#")), "")
        if _LOOKS_BACK.search(following):
            return None
        return assignment("\n".join(self.lines[first - 1 : last]), self.shell, self.accepts)

    def render(self, changes: Changes) -> tuple[str, list[int]] | None:
        """The text with the changes, and of each of its lines the one that it was; None if the shell refuses it."""
        if not changes:
            return self.text, list(range(1, len(self.lines) + 1))
        made = self._render(changes)
        if self.accepts(made[0]):
            return made
        # A block must not be left with nothing in it.
        filled = [change.first for change in changes if not self.accepts(self._render({change: changes[change]})[0])]
        for fill in (filled, [change.first for change in changes]):
            made = self._render(changes, fill)
            if self.accepts(made[0]):
                return made
        return None

    def _render(self, changes: Changes, fill: Collection[int] = ()) -> tuple[str, list[int]]:
        """`fill`: the lines at which `:` stands for what became a comment."""
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
                if last == len(self.lines):  # without a line end: it gets one, as what is added has
                    text, origin = out.pop()
                    out += [*([(text + cr, origin)] if text else []), *block, ("", last)]
                else:
                    out += block
            number = last + 1
        return "\n".join(text for text, _ in out), [origin for _, origin in out]

    @property
    def end(self) -> Change:
        """The change at the end of the file."""
        last = len(self.lines) - (self.lines[-1] == "" and len(self.lines) > 1)
        return Change(last, last)

    def unset(self, notes: Mapping[str, str]) -> list[str]:
        """The lines that unset names; `notes` says why, by name."""
        said = [f"# {note}" for note in dict.fromkeys(notes.values())]
        names = sorted(notes)
        return said + ([f"set -e {name}" for name in names] if self.shell == "fish" else [f"unset {' '.join(names)}"])

    def unset_already(self, line: int, name: str) -> bool:
        """Whether `line` is followed by an `unset` of the name: another one would not help."""
        verb = "set -e " if self.shell == "fish" else "unset "
        for text in self.lines[line:]:
            if text.strip() and not text.lstrip().startswith("#"):
                if not text.strip().startswith(verb):
                    return False
                if name in text.split():
                    return True
        return False

    def masked(self, line: int, names: Collection[str]) -> str:
        """A line of KEY=VALUE as it may be shown: without the value."""
        pattern = rf"\b({'|'.join(map(re.escape, names))})([ \t]*[=:]|[ \t]+(?:DEFAULT|OVERRIDE)=).*"
        return redact(re.sub(pattern, r"\1\2…", self.lines[line - 1].strip()))


def assignment(text: str, shell: str, accepts: Callable[[str], bool]) -> Assignment | None:
    """What `text` sets, if it is one statement that does nothing else. `accepts` asks `shell`."""
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
    """(end of the word at `start`, start of what follows); None if what stands there is no single word."""
    for number, boundary in enumerate(_BOUNDARY.finditer(text, start)):
        value = text[start : boundary.start()]
        if number > MAX_WORDS or (shell != "fish" and value.startswith("(")):
            return None
        if value.endswith(";"):  # fish and zsh overlook it below
            continue
        if _PLAIN.fullmatch(value) or accepts((_FISH_WORD if shell == "fish" else _POSIX_WORD).format(value)):
            return boundary.start(), boundary.end()
    return None


#: Each takes exactly one word, so that the shell tells what is one.
_POSIX_WORD = "case {} in x) ;; esac\n"
_FISH_WORD = "switch {};case x;end\n"


def _goes_on(lines: list[str]) -> bool:
    """Whether the last of the lines that is no comment joins what it says to the next one."""
    for line in reversed(lines):
        if line.strip() and not line.lstrip().startswith("#"):
            return _GOES_ON.search(line) is not None
    return False
