"""The output of a batch: JSON Lines, one line per task, appended as results arrive. It is written from the journal."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec

from farmhand.batch.journal import FINAL, Journal
from farmhand.core import money
from farmhand.core.errors import FarmhandError, UsageError

_ENCODER = msgspec.json.Encoder()
_BEGINNING = b'{"n":'
_ANOTHER = "choose another --out"


class _Head(msgspec.Struct):
    """The fields that identify a line of the output and its batch."""

    n: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    id: str
    state: str


def pico(cost_usd: float | None) -> int | None:
    """Return a result's cost in pico-dollars, or None if it is unknown."""
    # The decimal text of a float is the intended amount; the binary value differs slightly.
    return None if cost_usd is None else money.pico(Decimal(str(cost_usd)))


def line_of(n: int, task_id: str, worker: str, result: dict[str, Any]) -> bytes:
    """Return the output line for a result."""
    rest = {name: value for name, value in result.items() if name not in ("id", "n", "host", "done_no", "batch")}
    return _ENCODER.encode({"n": n, "id": task_id, "host": worker, **rest}) + b"\n"


class OutputFile:
    """The output file with the journal's results, in the input's order if `ordered`."""

    def __init__(self, path: Path, journal: Journal, *, ordered: bool) -> None:
        self.path = path
        self._journal = journal
        self._ordered = ordered
        self._file: IO[bytes] | None = None
        #: The position of the last of the journal's results in the file.
        self._position = 0

    def open(self) -> None:
        """Bring the file up to date with the journal. Raise UsageError for an unrelated file, leaving it unchanged."""
        self.check(any_batch=False)
        try:
            self._file = self.path.open("a+b")
            self._file.seek(0)
            end = 0
            for position, line in self._journal.results(0, ordered=self._ordered):
                if self._file.readline() != line:
                    break
                end += len(line)
                self._position = position
            self._file.truncate(end)
        except OSError as error:
            raise UsageError(f"--out {self.path}: {error.strerror}") from None
        self.write()

    def check(self, *, any_batch: bool) -> None:
        """Raise UsageError if the file is not the output of this batch, or with `any_batch` of any batch.

        A last line that is cut off may be the beginning of a valid line; a power cut also leaves zero bytes.
        """
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    head = msgspec.json.decode(line, type=_Head)
                except (msgspec.DecodeError, ValueError, RecursionError):
                    if line.endswith(b"\n") or not _BEGINNING.startswith(line.rstrip(b"\0")[: len(_BEGINNING)]):
                        what = f"{self.path}, line {number}, was not written by farmhand batch"
                        raise UsageError(what, hint=_ANOTHER) from None
                    continue
                if not any_batch and (head.state not in FINAL or self._journal.id_of(head.n) != head.id):
                    what = f"{self.path} has a result for line {head.n}, {head.id!r:.80}, which is not in this batch"
                    raise UsageError(what, hint=_ANOTHER)

    def write(self) -> None:
        """Append the journal's new results and sync them to disk. Raise FarmhandError if the disk is full."""
        assert self._file is not None  # noqa: S101  (open comes first)
        before = self._position
        try:
            for position, line in self._journal.results(self._position, ordered=self._ordered):
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
        if self._file is not None:
            self._file.close()
            self._file = None
