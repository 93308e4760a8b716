"""Line-based removal of settings from a shell's file; everything else stays byte for byte.

There is no shell parser here. The shell itself, which reads without running anything (`-n`), decides where a statement
begins and ends, whether a value is one word, and whether a file is still valid.

A statement that only sets watched names becomes a comment. After any other statement an `unset` is added, at the next
line at top level or at the end of the file.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..core.keys import redact
from .names import WATCHED

_ERROR_LINE = re.compile(rb"(?:line |:)(\d+)[:) ]|^\S+: (\d+):", re.MULTILINE)
_CHECK_S = 10.0
#: bash: a start-up file may enable extglob before the line that needs it, which `-n` does not detect. zsh continues
#: after an error when it reads commands from stdin, and exits with 0; from a file it stops.
_READ_ONLY = {
    "bash": ("-O", "extglob", "-n"),
    "zsh": ("-f", "-n", "/dev/stdin"),
    "fish": ("--no-config", "-n"),
}
#: Maximum number of lines of a statement. Its ends are not searched farther away; then the end of the file is used.
_MAX_LINES = 200
#: Maximum number of positions tried as the end of a word.
_MAX_WORDS = 40
_DECLARING = re.compile(
    r"(?:(?:builtin|command)[ \t]+)?(?:export|declare|typeset|readonly)(?:[ \t]+(?:-[gxrU]+|--))*[ \t]+"
)
_FISH_SET = re.compile(
    r"(?:builtin[ \t]+)?set(?:[ \t]+(?:-[gxUufl]+|--(?:export|global|universal|path|unpath)))+[ \t]+"
)
_FISH_EXPORT = re.compile(r"export[ \t]+")
_NAME = re.compile(r"([A-Za-z_]\w*)(=?)")
#: Each template takes exactly one word, so the shell decides whether the value is one.
_POSIX_WORD = "case {} in x) ;; esac\n"
_FISH_WORD = "switch {};case x;end\n"
#: Text that is one word in every shell, so no shell has to be asked.
_PLAIN = re.compile(r"[\w./:@%+,-]*|'[^']*'|\"[^\"\\$`]*\"")
_BOUNDARY = re.compile(r"[ \t]*;?[ \t]*\r?$|[ \t]*;[ \t]*(?=#)|[ \t]+(?=\S)")
#: Words that no shell accepts as a command anywhere; inside a text they are ordinary.
_NEVER = "done then end )"
_CONTINUED = re.compile(r"[ \t]+\\\r?\n[ \t]*")
_GOES_ON = re.compile(r"(?:&&|(?<!&)(?:\|\|?|!))[ \t]*(?:#.*)?\r?$|(?<!\\)(?:\\\\)*\\\r?$")
_LOOKS_BACK = re.compile(r"\$\?|\$\{?(?:pipe)?status\b|^[ \t]*(?:and|or)\b")
_FUNCTION = re.compile(r"[ \t]*(?:function[ \t]|[^\s=\"'$;&|()]+[ \t]*\([ \t]*\))")
_FILE_LINE = re.compile(rf"\b({'|'.join(WATCHED)})([ \t]*[=:]|[ \t]+(?:DEFAULT|OVERRIDE)=).*")


@dataclass(frozen=True)
class Assignment:
    """Lines `first` to `last` (1-based), which only set `names`.

    `shown` is the statement without values; `comment` is the comment after it. `constant` means that the values are
    literal: nothing is expanded or run for them.
    """

    first: int
    last: int
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
        #: The line that the shell rejects in the unchanged file; None if it accepts the file, 0 if it gave no answer.
        self.error = syntax_error(text, shell) if shell else None
        self._at_top = {0: True}

    def accepts(self, text: str) -> bool:
        """Return whether the shell accepts `text`."""
        return not self.shell or syntax_error(text, self.shell) is None

    def refuses(self, text: str) -> bool:
        """Return whether the shell reports `text` as invalid; False also if it gave no answer."""
        return bool(syntax_error(text, self.shell))

    def at_top(self, count: int) -> bool:
        """Return whether every construct, quote and here-document is closed after the first `count` lines."""
        if count not in self._at_top:
            before = "\n".join(self.lines[:count]) + "\n"
            whole = not _goes_on(self.lines[:count]) and self.accepts(before)
            # Inside a here-document the shell accepts anything.
            self._at_top[count] = whole and (self.shell == "fish" or self.refuses(f"{before}{_NEVER}\n"))
        return self._at_top[count]

    def statement(self, line: int) -> tuple[int, int] | None:
        """Return the first and last line of the top-level statement that contains `line`; None if that is unknown."""
        if not 1 <= line <= len(self.lines) or self.error is not None:
            return None
        first = next((n + 1 for n in range(line - 1, max(-1, line - 1 - _MAX_LINES), -1) if self.at_top(n)), None)
        last = next((n for n in range(line, min(len(self.lines), line + _MAX_LINES) + 1) if self.at_top(n)), None)
        return None if first is None or last is None else (first, last)

    def assignment(self, line: int) -> Assignment | None:
        """Return the assignment that contains `line`, if nothing else is on its lines."""
        span = self.statement(line)
        if span is None:
            return None
        if (found := self._sole(*span)) or span[0] == span[1] or not self._runs(line):
            return found
        first = line
        while first > span[0] and _goes_on(self.lines[first - 2 : first - 1]):
            first -= 1
        last = next((n for n in range(line, span[1] + 1) if self._stands_alone(first, n)), None)
        if last is None or _goes_on(self.lines[span[0] - 1 : first - 1]):
            return None
        return self._sole(first, last)

    def _runs(self, line: int) -> bool:
        """Return whether `line` is run as a command: there an invalid word is an error, but inside a text it is not."""
        return self.refuses("\n".join([*self.lines[: line - 1], _NEVER, *self.lines[line:]]))

    def _stands_alone(self, first: int, last: int) -> bool:
        lines = self.lines[first - 1 : last]
        return not _goes_on(lines) and self.accepts("\n".join(lines) + "\n")

    def _sole(self, first: int, last: int) -> Assignment | None:
        """Return the assignment on these lines, if they are one statement that does nothing else.

        Return None also if the following statement uses its exit status.
        """
        if _LOOKS_BACK.search(next(_code(self.lines[last:]), "")):
            return None
        fish = self.shell == "fish"
        rest = _CONTINUED.sub(" ", "\n".join(self.lines[first - 1 : last]).strip(" \t\r\n"))
        head = (_FISH_SET.match(rest) or _FISH_EXPORT.match(rest)) if fish else _DECLARING.match(rest)
        if fish and head is None:
            return None
        one_name = head is not None and head.re is _FISH_SET  # the words after it are its values
        at = head.end() if head else 0
        names: list[str] = []
        shown = [" ".join(head[0].split())] if head else []
        constant = True
        while at < len(rest) and rest[at] != "#":
            name = None if one_name and names else _NAME.match(rest, at)
            if name is None and not (one_name and names):
                return None
            start = name.end() if name else at
            end = self._word_end(rest, start)
            if end is None:
                return None
            value, at = rest[start : end[0]], end[1]
            if name:
                if name[2] != "=" and (value or head is None):
                    return None
                names.append(name[1])
                constant = constant and (name[2] == "=" or one_name)
                more = one_name and at < len(rest) and rest[at] != "#"
                shown.append(f"{name[1]}=…" if name[2] else f"{name[1]} …" if more else name[1])
            if not _PLAIN.fullmatch(value):
                constant = constant and not re.search(r"[$`(]", re.sub(r"'[^']*'", "", value))
        if not names:
            return None
        return Assignment(first, last, tuple(names), " ".join(shown), redact(rest[at:].rstrip()), constant)

    def _word_end(self, text: str, start: int) -> tuple[int, int] | None:
        """Return (end of the word at `start`, start of the rest); None if there is no single word."""
        template = _FISH_WORD if self.shell == "fish" else _POSIX_WORD
        for boundary in itertools.islice(_BOUNDARY.finditer(text, start), _MAX_WORDS):
            value = text[start : boundary.start()]
            if self.shell != "fish" and value.startswith("("):
                return None
            if value.endswith(";"):  # fish and zsh would ignore it below
                continue
            if _PLAIN.fullmatch(value) or self.accepts(template.format(value)):
                return boundary.span()
        return None

    def render(self, changes: Changes) -> tuple[str, list[int]] | None:
        """Return the changed text, and for each of its lines the original line; None if the shell rejects it."""
        made = self._render(changes)
        if not changes or self.accepts(made[0]):
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
        cr = self.ending.removesuffix("\n")
        made = [[line] for line in self.lines]  # for each line what takes its place
        for change in sorted(changes, key=lambda change: change.shown is None):
            notes = changes[change]
            said = [f"# {note}" for note in dict.fromkeys(notes.values())]
            at_end = change.last == len(self.lines)  # there is no line end
            if change.shown is None:
                block = [text + cr for text in (*said, *self._unset(sorted(notes)))]
                if at_end:  # add a line end, as the added text has one
                    *above, text = made[-1]
                    block = [*above, *([text + cr] if text else []), *block, ""]
                    made[-1] = []
                made[change.last - 1] += block
            else:
                line = self.lines[change.first - 1]
                indent = line[: len(line) - len(line.lstrip(" \t"))]
                comment = f"{indent}{': ' if change.first in fill else ''}# {change.shown}{'' if at_end else cr}"
                made[change.first - 1 : change.last] = [[] for _ in range(change.first, change.last + 1)]
                made[change.first - 1] = [*(f"{indent}{text}{cr}" for text in said), comment]
        origins = [number for number, texts in enumerate(made, 1) for _ in texts]
        return "\n".join(itertools.chain.from_iterable(made)), origins

    def _unset(self, names: list[str]) -> list[str]:
        return [f"set -e {name}" for name in names] if self.shell == "fish" else [f"unset {' '.join(names)}"]

    def defines(self, first: int) -> bool:
        """Return whether the statement at line `first` defines a function, whose body runs elsewhere."""
        return _FUNCTION.match(self.lines[first - 1]) is not None

    def unset_after(self, line: int, name: str) -> Change | None:
        """Return the change that unsets the name after the statement at `line`; None if it would not help."""
        span = self.statement(line)
        if span is None or self.defines(span[0]) or self._unset_already(span[1], name):
            return None
        return Change(span[1], span[1])

    def unset_at_end(self, name: str) -> Change | None:
        """Return the change that unsets the name at the end of the file; None if it would not help."""
        statement = max((number for number, text in enumerate(self.lines) if text.strip()), default=0)
        if not self.shell or self._unset_already(statement, name):
            return None
        last = len(self.lines) - (self.lines[-1] == "" and len(self.lines) > 1)
        return Change(last, last)

    def _unset_already(self, line: int, name: str) -> bool:
        """Return whether `line` is followed by an `unset` of the name, so that another one would not help."""
        verb = "set -e " if self.shell == "fish" else "unset "
        block = itertools.takewhile(lambda text: text.strip().startswith(verb), _code(self.lines[line:]))
        return any(name in text.split() for text in block)

    def masked(self, line: int) -> str:
        """Return a line of KEY=VALUE with its value hidden."""
        return redact(_FILE_LINE.sub(r"\1\2…", self.lines[line - 1].strip()))


def _code(lines: Iterable[str]) -> Iterator[str]:
    """Return the lines that are neither blank nor a comment."""
    return (text for text in lines if text.strip() and not text.lstrip().startswith("#"))


def _goes_on(lines: list[str]) -> bool:
    """Return whether the last line of code continues on the next line."""
    return _GOES_ON.search(next(_code(reversed(lines)), "")) is not None


def syntax_error(text: str, shell: str) -> int | None:
    """Return the line of `text` that `shell` rejects, None if it accepts the text as complete and valid.

    Return 0 if there is no answer: no such shell, not started, too slow, or killed.
    """
    program = shutil.which(shell)
    if program is None:
        return 0
    try:
        done = subprocess.run(
            [program, *_READ_ONLY.get(shell, ("-n",))],
            input=text.encode("utf-8", "surrogateescape"),
            env={"PATH": os.environ.get("PATH", ""), "HOME": "/nonexistent", "LC_ALL": "C"},
            capture_output=True,
            timeout=_CHECK_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    if done.returncode <= 0:  # below 0: killed by a signal
        return 0 if done.returncode else None
    found = _ERROR_LINE.search(done.stderr)
    return max(1, int(found[1] or found[2])) if found else 1


def no_answer(shell: str, path: Path) -> str:
    """Return why `shell` did not check the file at `path`, and what to do."""
    if shutil.which(shell) is None:
        return f"there is no {shell} on PATH to check {path} with; take it out by hand"
    return f"{shell} did not say in time whether {path} is valid; run this again"
