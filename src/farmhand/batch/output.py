"""The output of a batch: JSON Lines, one line per task, appended as results arrive. It is written from the journal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec

from farmhand.batch.journal import FINAL, Journal
from farmhand.core.errors import FarmhandError, UsageError

_BEGINNING = b'{"n":'
_ANOTHER = "choose another --out"


class _Head(msgspec.Struct):
    """The fields that identify a line of the output and its batch."""

    n: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    id: str
    state: str


def check_output(path: Path, journal: Journal | None) -> None:
    """Raise UsageError if the file is not the output of the journal's batch, or with None of any batch.

    A last line that is cut off may be the beginning of a valid line; a power cut also leaves zero bytes.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                head = msgspec.json.decode(line, type=_Head)
            except (msgspec.DecodeError, ValueError, RecursionError):
                if line.endswith(b"\n") or not _BEGINNING.startswith(line.rstrip(b"\0")[: len(_BEGINNING)]):
                    what = f"{path}, line {number}, was not written by farmhand batch"
                    raise UsageError(what, hint=_ANOTHER) from None
                continue
            if journal is not None and (head.state not in FINAL or journal.id_of(head.n) != head.id):
                what = f"{path} has a result for line {head.n}, {head.id!r:.80}, which is not in this batch"
                raise UsageError(what, hint=_ANOTHER)


class OutputFile:
    """The output file with the journal's results, in the input's order if `ordered`."""

    def __init__(self, path: Path, journal: Journal, *, ordered: bool) -> None:
        """Bring the file up to date with the journal. Raise UsageError for an unrelated file, leaving it unchanged."""
        self.path = path
        self._journal = journal
        self._ordered = ordered
        #: The position of the last of the journal's results in the file.
        self._position = 0
        check_output(path, journal)
        try:
            self._file = path.open("a+b")
            self._file.seek(0)
            end = 0
            for position, line in journal.results(0, ordered=ordered):
                if self._file.readline() != line:
                    break
                end += len(line)
                self._position = position
            self._file.truncate(end)
        except OSError as error:
            raise UsageError(f"--out {path}: {error.strerror}") from None
        self.write()

    def write(self) -> None:
        """Append the journal's new results and sync them to disk. Raise FarmhandError if the disk is full."""
        before = self._position
        try:
            for position, line in self._journal.results(before, ordered=self._ordered):
                self._file.write(line)
                self._position = position
            if self._position > before:
                self._file.flush()
                os.fsync(self._file.fileno())
        except OSError as error:
            hint = "make room and give the same command: it goes on from here"
            raise FarmhandError(f"{self.path}: {error.strerror}", hint=hint, code="output") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()
