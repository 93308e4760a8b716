"""A planned version of a file: the original and the current changes to it."""

from __future__ import annotations

from pathlib import Path

from . import jsontext
from .edit import Change, Script
from .names import HELPER


class Draft:
    """The file at `path` (resolved). `shell` gives its syntax; "" for lines of KEY=VALUE and for JSON.

    Raises OSError if it cannot be read.
    """

    def __init__(self, path: Path, shell: str) -> None:
        self.path = path
        self.original = path.read_bytes()
        self.known = self.original
        self.json = path.suffix == ".json"
        self.script = Script(self.original.decode("utf-8", "surrogateescape"), shell)
        self.changes: dict[Change, dict[str, str]] = {}
        self._origins = list(range(1, len(self.script.lines) + 1))

    def add(self, change: Change, name: str, note: str) -> bool:
        """Add `change` for `name`. Return False, with nothing changed, if the file would become invalid."""
        before = self.changes.get(change, {})
        self.changes[change] = {**before, name: note}
        if self.render() is not None:
            return True
        self.remove(change, name)
        return False

    def remove(self, change: Change, name: str) -> None:
        """Remove `change` for `name`."""
        kept = {n: note for n, note in self.changes.get(change, {}).items() if n != name}
        if kept:
            self.changes[change] = kept
        else:
            self.changes.pop(change, None)

    def render(self) -> bytes | None:
        """Return the content with the changes; None if its shell would not accept it."""
        if self.json:
            text: str | None = self.script.text
            for notes in self.changes.values():
                for name in notes:
                    text = text and jsontext.without(text, (HELPER,) if name == HELPER else ("env", name))
            return None if text is None else text.encode("utf-8", "surrogateescape")
        made = self.script.render(self.changes)
        return None if made is None else made[0].encode("utf-8", "surrogateescape")

    def written(self, content: bytes) -> None:
        """Record the file's new content."""
        self.known = content
        if not self.json and (made := self.script.render(self.changes)):
            self._origins = made[1]

    @property
    def untouched(self) -> bool:
        """Return whether the file was not changed by anybody else."""
        try:
            return self.path.read_bytes() == self.known
        except OSError:
            return False

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
