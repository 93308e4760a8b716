"""The output of a batch, appended as results arrive: JSON Lines, or a table. It is written from the journal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec

from farmhand.batch.journal import FINAL, Journal
from farmhand.batch.output_table import ResultTable
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
    for number, found in enumerate(_table_heads(path) if ResultTable.is_one(path) else _line_heads(path), start=1):
        if found is None:
            what = f"{path}, line {number}, was not written by farmhand batch"
            raise UsageError(what, hint=_ANOTHER)
        if journal is not None and (found.state not in FINAL or journal.id_of(found.n) != found.id):
            what = f"{path} has a result for line {found.n}, {found.id!r:.80}, which is not in this batch"
            raise UsageError(what, hint=_ANOTHER)


def _line_heads(path: Path) -> list[_Head | None]:
    """Return the heads of the lines; None for one that is not ours. A last line that is cut off is left out."""
    found: list[_Head | None] = []
    with path.open("rb") as file:
        for line in file:
            try:
                found.append(msgspec.json.decode(line, type=_Head))
            except (msgspec.DecodeError, ValueError, RecursionError):
                if line.endswith(b"\n") or not _BEGINNING.startswith(line.rstrip(b"\0")[: len(_BEGINNING)]):
                    return [*found, None]
    return found


def _table_heads(path: Path) -> list[_Head | None]:
    """Return the heads of the table's rows, as `_line_heads` does."""
    found: list[_Head | None] = []
    for head in ResultTable.heads(path):
        try:
            found.append(msgspec.convert(head, _Head, strict=False))
        except msgspec.ValidationError:
            return [*found, None]
    return found


class OutputFile:
    """The output file with the journal's results, in the input's order if `ordered`."""

    def __init__(self, path: Path, journal: Journal, *, ordered: bool) -> None:
        """Bring the file up to date with the journal. Raise UsageError for an unrelated file, leaving it unchanged."""
        self.path = path
        self._journal = journal
        self._ordered = ordered
        self._table = ResultTable(path, journal) if ResultTable.is_one(path) else None
        #: The position of the last of the journal's results in the file.
        self._position = 0
        check_output(path, journal)
        head = b"" if self._table is None else self._table.head
        try:
            self._file = path.open("a+b")
            self._file.seek(0)
            end = 0
            if self._file.read(len(head)) == head:
                end = len(head)
                for position, result in journal.results(0, ordered=ordered):
                    line = self._line(result)
                    if self._file.read(len(line)) != line:
                        break
                    end += len(line)
                    self._position = position
            self._file.truncate(end)
            if head and not end:
                self._file.write(head)
                self._file.flush()
        except OSError as error:
            raise UsageError(f"--out {path}: {error.strerror}") from None
        self.write()

    def _line(self, result: bytes) -> bytes:
        return result if self._table is None else self._table.row(result)

    def write(self) -> None:
        """Append the journal's new results and sync them to disk. Raise FarmhandError if the disk is full."""
        before = self._position
        try:
            for position, result in self._journal.results(before, ordered=self._ordered):
                self._file.write(self._line(result))
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
