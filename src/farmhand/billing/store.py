"""Writing of a plan, with backups, and its complete reversal.

`directory` (0700) has `journal.json`, which names every written file, and the originals (0600). The journal is written
before the first file is changed, so that an interrupted run can also be reverted.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core import envfile
from ..core.files import replace
from ..core.keys import fingerprint

_LINE = re.compile(rb"[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)=")
#: Path → content before (None: no file) and after.
Files = Mapping[Path, tuple[bytes | None, bytes]]
#: An entry of the journal: run, path, backup, digests before and after and of the contents between, and what is ours.
Entry = dict[str, Any]


@dataclass
class Undo:
    """The writes of a reversal (None: delete the file), and what it cannot revert."""

    files: dict[Path, tuple[bytes, bytes | None]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    done: list[Entry] = field(default_factory=list)


class Store:
    """The backups and the journal of changes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.journal = directory / "journal.json"
        self.remembered = directory / "tried.json"

    def entries(self) -> list[Entry]:
        """Return the changes not yet reverted, oldest first. Raises OSError, or ValueError for a damaged journal."""
        try:
            found = json.loads(self.journal.read_bytes())
        except FileNotFoundError:
            return []
        if not isinstance(found, list):
            raise ValueError("it is not a list")
        return found

    def undo(self, run: str = "") -> Undo:
        """Return the reversal of everything; of files changed since, only of our own lines, if they still exist.

        `run` limits it to the changes of that run.
        """
        undo = Undo()
        current: dict[Path, bytes | None] = {}
        for entry in reversed(self.entries()):
            if run and entry.get("run") != run:
                continue
            path = Path(entry["path"])
            now = current[path] if path in current else _read(path)
            before = _read(Path(entry["backup"])) if entry["backup"] else None
            if _digest(now) == entry["before"]:
                undo.done.append(entry)
                continue
            if entry["backup"] and before is None:
                undo.left.append(f"{path}: its backup {entry['backup']} is gone")
                continue
            if now is None:
                undo.left.append(f"{path} is gone; its original is {entry['backup']}")
                continue
            exact = _digest(now) in (entry["after"], *entry.get("earlier", []))
            restored = before if exact else _taken_back(now, before or b"", entry)
            if restored is None and not (exact and before is None):
                undo.left.append(f"{path} was changed since; take it back by hand from {entry['backup']}")
                continue
            current[path] = restored
            undo.done.append(entry)
        undo.files = {
            path: (was, content)
            for path, content in current.items()
            if (was := _read(path)) is not None and was != content
        }
        return undo

    def take_back(self, undo: Undo) -> None:
        """Apply `undo`, and delete the reverted entries and their backups."""
        for path, (_, content) in undo.files.items():
            if content is None:
                path.unlink()
            else:
                replace(path, content)
        self.drop(undo.done)

    def drop(self, gone: list[Entry]) -> None:
        """Delete the entries of changes that no longer exist, with their backups."""
        if gone:
            self.write([entry for entry in self.entries() if entry not in gone])
        for entry in gone:
            if entry["backup"]:
                Path(entry["backup"]).unlink(missing_ok=True)
        self.tidy()

    def tidy(self) -> None:
        """Remove an empty journal and an empty directory."""
        if self.journal.exists() and not self.entries():
            self.journal.unlink()
        with contextlib.suppress(OSError):
            self.directory.rmdir()

    def memory(self) -> dict[str, str]:
        """Return what was tried in vain: digest of place and files → reason. Empty if it is missing or unreadable."""
        try:
            found = json.loads(self.remembered.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def remember(self, memory: Mapping[str, str]) -> None:
        """Save `memory`, unless it is unchanged."""
        if not memory and self.remembered.exists():
            self.remembered.unlink()
            self.tidy()
        elif memory != self.memory():
            self._save(self.remembered, memory)

    def prepare(self) -> None:
        """Create the directory, accessible only to its owner."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)

    def write(self, entries: list[Entry]) -> None:
        """Write the journal."""
        self._save(self.journal, entries)

    def _save(self, path: Path, content: object) -> None:
        self.prepare()
        replace(path, json.dumps(content, indent=1).encode() + b"\n", mode=0o600)


class Run:
    """The writes of one run. A file written several times has one backup and one journal entry.

    A file that has its content from the start of the run again has no entry.
    """

    def __init__(self, store: Store, key_file: Path) -> None:
        self.store = store
        self.key_file = key_file.resolve()
        self.stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self.name = ""

    def apply(self, files: Files) -> None:
        """Write `files` (path → before the run, new), the key file first, so that the key always exists somewhere.

        Raises OSError, which names the file, ValueError for a damaged journal.
        """
        entries = self.store.entries()
        self.name = self.name or f"{self.stamp}.{len(entries)}"
        self.store.prepare()
        ours = {entry["path"]: entry for entry in self._ours(entries)}
        for path, (old, new) in files.items():
            entry = ours.get(str(path))
            if entry is None:
                backup = None if old is None else self._back_up(path, old)
                entry = {"run": self.name, "path": str(path), "backup": backup, "before": _digest(old), "earlier": []}
                entries.append(entry)
            else:
                entry["earlier"].append(entry["after"])
            # Do not record the key file's values, only fingerprints that identify ours.
            found = {"set": _added(old, new)} if path == self.key_file else {"hunks": _changes(old or b"", new)}
            entry |= {"after": _digest(new), **found}
        self.store.write(entries)
        for path in sorted(files, key=lambda path: path != self.key_file):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace(path, files[path][1], mode=0o600 if path == self.key_file else None)
        self.store.drop([entry for entry in self._ours(entries) if entry["before"] == entry["after"]])

    def _ours(self, entries: list[Entry]) -> list[Entry]:
        return [entry for entry in entries if self.name and entry.get("run") == self.name]

    def _back_up(self, path: Path, content: bytes) -> str:
        """Save an original. Return the path of its backup."""
        name = str(path).strip("/").replace("/", "%")[-150:]
        handle, backup = tempfile.mkstemp(prefix=f"{name}.{self.stamp}.", dir=self.store.directory)
        with open(handle, "wb") as out:
            out.write(content)
        return backup

    def take_back(self) -> None:
        """Revert all that this run has written."""
        if self.name:
            self.store.take_back(self.store.undo(self.name))

    def backups(self) -> list[str]:
        """Return the backups made by this run."""
        return [entry["backup"] for entry in self._ours(self.store.entries()) if entry["backup"]]


def hunks(old: bytes, new: bytes) -> list[tuple[int, list[bytes], list[bytes]]]:
    """Return (line, lines before, lines after) for each difference."""
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    found = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return [(a + 1, before[a:b], after[c:d]) for tag, a, b, c, d in found if tag != "equal"]


def _changes(old: bytes, new: bytes) -> list[list[Any]]:
    """Return [[start, end] lines of the backup, replacement text] for each change, enough to find ours again."""
    return [
        [[line - 1, line - 1 + len(before)], b"".join(after).decode("utf-8", "surrogateescape")]
        for line, before, after in hunks(old, new)
    ]


def _added(old: bytes | None, new: bytes) -> dict[str, str]:
    """Return name → fingerprint of the values added to the key file."""
    before = envfile.parse((old or b"").decode("utf-8", "surrogateescape"))
    after = envfile.parse(new.decode("utf-8", "surrogateescape"))
    return {name: fingerprint(value) for name, value in after.items() if before.get(name) != value}


def _taken_back(now: bytes, before: bytes, entry: Entry) -> bytes | None:
    """Return `now` with each of our changes reversed; None unless each of them occurs exactly once."""
    if "set" in entry:
        return _without(now, before, entry["set"])
    for (start, end), new in entry.get("hunks", []):
        ours = new.encode("utf-8", "surrogateescape")
        original = b"".join(before.splitlines(keepends=True)[start:end])
        if now.count(ours) == 1:
            now = now.replace(ours, original)
        elif entry["path"].endswith("/fish_variables") and original.partition(b":")[0] not in now:
            now += original  # fish rewrote the file without our comment; it ignores the order
        else:
            return None
    return now if entry.get("hunks") else None


def _without(now: bytes, before: bytes, ours: dict[str, str]) -> bytes | None:
    """Return the key file with our lines restored to their old content; None if one of them has another value now."""
    try:
        values = envfile.parse(now.decode("utf-8", "surrogateescape"))
        old = {match[1]: line for line in before.splitlines(keepends=True) if (match := _LINE.match(line))}
    except envfile.EnvFileError:
        return None
    if any(name not in values or fingerprint(values[name]) != print_ for name, print_ in ours.items()):
        return None
    kept = []
    for line in now.splitlines(keepends=True):
        match = _LINE.match(line)
        kept.append(old.get(match[1], b"") if match and match[1].decode() in ours else line)
    return b"".join(kept)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _digest(content: bytes | None) -> str:
    return "" if content is None else hashlib.sha256(content).hexdigest()
