"""A planned version of a file: the original and the current changes to it; and whether it may be changed at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from .edit import Change, Script
from .names import HELPER

_BLANK = re.compile(r"[ \t\r\n]*")
_value_at = json.JSONDecoder().raw_decode


class Draft:
    """The file at `path` (resolved). `shell` gives its syntax; "" for lines of KEY=VALUE and for JSON.

    `known` is what this run has last read or written. Raises OSError if the file cannot be read.
    """

    def __init__(self, path: Path, shell: str) -> None:
        self.path = path
        self.original = self.known = path.read_bytes()
        self.json = path.suffix == ".json"
        self.script = Script(self.original.decode("utf-8", "surrogateescape"), shell)
        self.changes: dict[Change, dict[str, str]] = {}
        self._origins = list(range(1, len(self.script.lines) + 1))

    def add(self, change: Change, name: str, note: str) -> bool:
        """Add `change` for `name`.

        Return False, with nothing changed, if the file would become invalid or somebody else has changed it.
        """
        with contextlib.suppress(OSError):
            if self.path.read_bytes() == self.known:
                self.changes.setdefault(change, {})[name] = note
                if self.render() is not None:
                    return True
                self.remove(change, name)
        return False

    def remove(self, change: Change, name: str) -> None:
        """Remove `change` for `name`."""
        notes = self.changes.get(change, {})
        notes.pop(name, None)
        if not notes:
            self.changes.pop(change, None)

    def _rendered(self) -> tuple[str, list[int]] | None:
        if not self.json:
            return self.script.render(self.changes)
        text: str | None = self.script.text
        for name in (name for notes in self.changes.values() for name in notes):
            text = text and without_member(text, (HELPER,) if name == HELPER else ("env", name))
        return None if text is None else (text, self._origins)

    def render(self) -> bytes | None:
        """Return the content with the changes; None if its shell would not accept it."""
        made = self._rendered()
        return None if made is None else made[0].encode("utf-8", "surrogateescape")

    def written(self, content: bytes) -> None:
        """Record the file's new content."""
        self.known = content
        if made := self._rendered():
            self._origins = made[1]

    def original_line(self, line: int) -> int:
        """Return the line in the original that corresponds to `line` of the current file."""
        return self._origins[min(line, len(self._origins)) - 1] if line > 0 else 0

    def said(self) -> list[str]:
        """Return a description of each change: the name, the change and the line of the original."""
        found = []
        for change, notes in self.changes.items():
            done = "taken out of" if self.json else "commented out in" if change.shown is not None else "unset after"
            found += [f"{name} {done} {self.path}:{change.first}" for name in sorted(notes)]
        return found


def refusal(path: Path, home: Path) -> str | None:
    """Return why the file at `path` must not be changed; None if it may be. A link may lead within the same home."""
    target = path.resolve()
    try:
        status = target.stat()
    except OSError as error:
        return f"it cannot be looked at: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    inside = target.is_relative_to(home.resolve())
    if path.is_relative_to(home) and not inside:
        return f"it is a link to {target}, outside of the home directory"
    if status.st_uid != os.geteuid():
        return f"it belongs to another user (uid {status.st_uid})"
    if not status.st_mode & stat.S_IWUSR:
        return f"it is read-only (mode {stat.S_IMODE(status.st_mode):04o})"
    if status.st_nlink > 1:
        return f"it has {status.st_nlink} hard links, which a new file would break"
    if not os.access(target.parent, os.W_OK):
        return f"its directory {target.parent} cannot be written to"
    return None


def without_member(text: str, path: tuple[str, ...]) -> str | None:
    """Return `text` (valid JSON) without the member at `path` (("env", "NAME")); None if there is none.

    Everything else stays byte for byte, including formatting.
    """
    start = end = 0
    at = _skip(text, len(text) - len(text.removeprefix("\ufeff")))
    for name in path:
        if text[at] != "{":
            return None
        found = [span for key, *span in _members(text, at) if key == name]
        if not found:
            return None
        start, at, end = found[-1]  # the last one counts
    after, before = _skip(text, end), text[:start].rstrip(" \t\r\n")
    if text[after] == ",":
        return text[:start] + text[_skip(text, after + 1) :]
    return before[:-1] + text[end:] if before.endswith(",") else before + text[after:]


def _members(text: str, at: int) -> Iterator[tuple[str, int, int, int]]:
    """Yield (name, start, start of the value, end) for each member of the object at `at`."""
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, colon = _value_at(text, at)
        value = _skip(text, _skip(text, colon) + 1)
        _, end = _value_at(text, value)
        yield key, at, value, end
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    """Return the position of the first character from `at` that is not blank."""
    found = _BLANK.match(text, at)
    return found.end() if found else at
