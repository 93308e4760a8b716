"""Several files that are replaced together: all of them, or none."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from farmhand.cli.signals import caught
from farmhand.core import files
from farmhand.core.errors import NotConfigured


@dataclass(frozen=True)
class SetupFile:
    """A text file before ("" if there is none) and after. `adds`: what was there stays, so nobody has to be asked."""

    path: str
    before: str
    after: str
    adds: bool = False

    @classmethod
    def of(cls, path: Path, after: str) -> SetupFile:
        """Return the change of `path`. Raise NotConfigured if it cannot be read."""
        try:
            before = path.read_text("utf-8", "surrogateescape")
        except FileNotFoundError:
            before = ""
        except OSError as error:
            raise NotConfigured(f"{path} cannot be read: {error.strerror}") from None
        return cls(str(path), before, after)

    @property
    def changed(self) -> bool:
        """Whether there is anything to write."""
        return self.before != self.after

    def diff(self) -> str:
        """Return what would change, as diff -u shows it."""
        before, after = self.before.splitlines(keepends=True), self.after.splitlines(keepends=True)
        return "".join(difflib.unified_diff(before, after, self.path, self.path))


def write_all(changes: Sequence[SetupFile]) -> None:
    """Write the changes. If one fails, those before it are taken back. A signal waits. Raise NotConfigured."""
    done: list[SetupFile] = []
    stopped: list[int] = []
    with caught(lambda number, _frame: stopped.append(number)):
        try:
            for change in changes:
                _put(change.path, change.after)
                done.append(change)
        except OSError as error:
            for change in reversed(done):
                with contextlib.suppress(OSError):
                    _put(change.path, change.before)
            raise NotConfigured(
                f"{changes[len(done)].path} cannot be written: {error.strerror}", hint="nothing was changed"
            ) from None
    if stopped:
        raise KeyboardInterrupt


def _put(path: str, text: str) -> None:
    target = os.path.realpath(path)
    if not text:
        os.unlink(target)
        return
    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
    files.replace(target, text.encode("utf-8", "surrogateescape"))
