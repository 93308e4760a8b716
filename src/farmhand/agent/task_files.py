"""Files of repository tasks beside the ledger: the bundle that goes in, the patch and what else comes out.

They are in `state_dir/files/TASK`. What a sandbox sends is bounded; a task can send anything.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterable
from pathlib import Path

from farmhand.core.errors import FarmhandError, UsageError
from farmhand.core.task import MAX_BUNDLE_BYTES, TASK_ID, TASK_OUTPUTS

BUNDLE = "source.bundle"
#: Free space that must be left for the ledger.
_SPARE = 512 * 1024**2


class TaskFiles:
    """The directory of all tasks' files."""

    def __init__(self, state_dir: str) -> None:
        self._root = Path(state_dir, "files")

    def bundle(self, task_id: str) -> Path:
        """Return the path of a task's bundle."""
        return self._root / task_id / BUNDLE

    def output(self, task_id: str, name: str) -> Path:
        """Return the path of a file that the task has left. Raise UsageError `no_such_file`."""
        path = self._root / task_id / name
        if not TASK_ID.fullmatch(task_id) or name not in TASK_OUTPUTS or not path.is_file():
            raise UsageError(f"task {task_id!r:.80} has left no {name!r:.40}", code="no_such_file")
        return path

    async def receive(self, task_id: str, pieces: AsyncIterable[bytes]) -> int:
        """Keep a task's bundle. Return its size. Raise UsageError `too_large`, FarmhandError `no_space`."""
        if not TASK_ID.fullmatch(task_id):
            raise UsageError(f"the id does not match {TASK_ID.pattern}", code="invalid_task")
        path = self.bundle(task_id)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        incoming, size = path.with_suffix(".new"), 0
        try:
            with incoming.open("wb") as file:
                async for piece in pieces:
                    size += len(piece)
                    if size > MAX_BUNDLE_BYTES:
                        raise UsageError(f"the bundle is larger than {MAX_BUNDLE_BYTES} bytes", code="too_large")
                    if shutil.disk_usage(self._root).free - len(piece) < _SPARE:
                        raise FarmhandError("the host's disk has no room for the bundle", code="no_space")
                    file.write(piece)
            os.replace(incoming, path)
        finally:
            incoming.unlink(missing_ok=True)
        return size

    def begin(self, task_id: str) -> TaskOutputs:
        """Return an empty set of outputs for an attempt; those of an earlier one are removed."""
        return TaskOutputs(self._root / task_id)

    def remove(self, task_id: str) -> None:
        """Remove all files of a task."""
        shutil.rmtree(self._root / task_id, ignore_errors=True)

    def age_s(self, task_id: str, now: float) -> float:
        """Return the seconds since a task's files last changed; 0 if there are none."""
        try:
            return now - (self._root / task_id).stat().st_mtime
        except OSError:
            return 0.0

    def shrink(self, tasks: list[str], most: int) -> None:
        """Remove the files of some of these tasks, oldest first, until the files of all have `most` bytes or less."""
        found = []
        for task_id in tasks:
            with contextlib.suppress(OSError, ValueError):  # it has no files
                status = [entry.stat() for entry in os.scandir(self._root / task_id)]
                found.append((max(s.st_mtime for s in status), sum(s.st_size for s in status), task_id))
        total = sum(size for _, size, _ in found)
        for _, size, task_id in sorted(found):
            if total <= most:
                return
            self.remove(task_id)
            total -= size

    def tasks(self) -> list[str]:
        """Return the ids of the tasks that have files."""
        return [entry.name for entry in os.scandir(self._root)] if self._root.is_dir() else []


class TaskOutputs:
    """What one attempt leaves. What is more than a file may have is dropped."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._left = dict(TASK_OUTPUTS)
        for name in TASK_OUTPUTS:
            (directory / name).unlink(missing_ok=True)

    def add(self, name: str, data: bytes) -> None:
        """Append to a file; other names are ignored. Raise OSError."""
        if (room := self._left.get(name, 0)) > 0:
            self._left[name] = room - len(data)
            with (self._directory / name).open("ab") as file:
                file.write(data[:room])
