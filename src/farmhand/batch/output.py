"""The output of a batch, appended as results arrive: JSON Lines, a table, or lines in the form of others.

It is written from the journal.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from farmhand.batch.journal import FINAL, Journal
from farmhand.batch.output_table import ResultTable
from farmhand.batch.sources import OTHERS, form_of
from farmhand.core.errors import FarmhandError, UsageError

if TYPE_CHECKING:
    from farmhand.batch.answer_files import OthersLines

#: How each line begins, by the form of the input; the usual one is "".
_BEGINNINGS = {"": b'{"n":', "openai": b'{"id":"batch_req_', "anthropic": b'{"custom_id":"'}
_ANOTHER = "choose another --out"
_LOOK = 64
_T = TypeVar("_T")


class _Head(msgspec.Struct):
    """The fields that identify a line of the output and its batch."""

    n: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    id: str
    state: str


class _OthersHead(msgspec.Struct):
    """The fields of a line in the form of others: its request's name, and one of how it ended."""

    custom_id: str
    result: dict[str, Any] | None = None
    response: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


def check_output(path: Path, journal: Journal | None) -> None:
    """Raise UsageError if the file is not the output of the journal's batch, or with None of any batch.

    A last line that is cut off may be the beginning of a valid line; a power cut also leaves zero bytes.
    """
    if not path.exists():
        return
    form = _form(path, journal)
    if form in OTHERS:
        _check_others(path, journal, form)
        return
    heads = _table_heads(path) if ResultTable.is_one(path) else _line_heads(path, _Head, _BEGINNINGS[""])
    for number, found in enumerate(heads, start=1):
        if found is None:
            raise _not_ours(path, number)
        if journal is not None and (found.state not in FINAL or journal.id_of(found.n) != found.id):
            what = f"{path} has a result for line {found.n}, {found.id!r:.80}, which is not in this batch"
            raise UsageError(what, hint=_ANOTHER)


def _form(path: Path, journal: Journal | None) -> str:
    """Return the form of the output's lines by the input of its journal, or without one by how the file begins."""
    if ResultTable.is_one(path):
        return ""
    if journal is not None:
        return form_of(journal)
    with path.open("rb") as file:
        start = file.read(_LOOK)
    return next((form for form in OTHERS if start.startswith(_BEGINNINGS[form])), "")


def _check_others(path: Path, journal: Journal | None, form: str) -> None:
    """Raise UsageError if the file is not the output in the form of others, as `check_output` does."""
    known = None if journal is None else {json.loads(columns)["custom_id"] for columns in journal.all_columns()}
    for number, found in enumerate(_line_heads(path, _OthersHead, _BEGINNINGS[form]), start=1):
        if found is None or not any((found.result, found.response, found.error)):
            raise _not_ours(path, number)
        if known is not None and found.custom_id not in known:
            what = f"{path} has a result for {found.custom_id!r:.80}, which is not in this batch"
            raise UsageError(what, hint=_ANOTHER)


def _not_ours(path: Path, number: int) -> UsageError:
    return UsageError(f"{path}, line {number}, was not written by farmhand batch", hint=_ANOTHER)


def _line_heads(path: Path, kind: type[_T], beginning: bytes) -> list[_T | None]:
    """Return the heads of the lines; None for one that is not ours. A last line that is cut off is left out."""
    found: list[_T | None] = []
    with path.open("rb") as file:
        for line in file:
            try:
                found.append(msgspec.json.decode(line, type=kind))
            except (msgspec.DecodeError, ValueError, RecursionError):
                if line.endswith(b"\n") or not beginning.startswith(line.rstrip(b"\0")[: len(beginning)]):
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


def _lines_of(path: Path, journal: Journal) -> ResultTable | OthersLines | None:
    """Return what makes the output's lines of the journal's, None if they are the same."""
    if ResultTable.is_one(path):
        return ResultTable(path, journal)
    form = form_of(journal)
    if form not in OTHERS:
        return None
    from farmhand.batch.answer_files import OthersLines  # not at the top: it takes a moment

    return OthersLines(form)


class OutputFile:
    """The output file with the journal's results, in the input's order if `ordered`."""

    def __init__(self, path: Path, journal: Journal, *, ordered: bool) -> None:
        """Bring the file up to date with the journal. Raise UsageError for an unrelated file, leaving it unchanged."""
        self.path = path
        self._journal = journal
        self._ordered = ordered
        self._lines = _lines_of(path, journal)
        #: The position of the last of the journal's results in the file.
        self._position = 0
        check_output(path, journal)
        head = b"" if self._lines is None else self._lines.head
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
        return result if self._lines is None else self._lines.row(result)

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
