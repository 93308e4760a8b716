"""The output of a batch: JSON Lines, a line per task, appended as results come, and how it agrees with the journal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec

from farmhand.batch.journal import CANCELLED, FAILED, STATE_NAMES, Journal
from farmhand.core.errors import FarmhandError, UsageError

_ENCODER = msgspec.json.Encoder()
PICO = 10**12
_BEGINNING = b'{"n":'
_ANOTHER = "choose another --out"


class _Head(msgspec.Struct):
    """What of a line of output its agreement with the journal needs."""

    n: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    id: str
    state: str
    cost_usd: Annotated[float, msgspec.Meta(ge=0, le=1e6)] | None = None


def pico(cost_usd: Any) -> int | None:
    """A result's cost in pico-dollars; None where it is not known."""
    # The text of a float is the amount that was meant; the float itself is off by less than it shows.
    return None if cost_usd is None else int((Decimal(str(cost_usd)) * PICO).to_integral_value())


def _is_beginning(line: bytes) -> bool:
    """Whether a line of ours may have begun like this, and was cut off; a power cut leaves zeros as well."""
    return _BEGINNING.startswith(line.rstrip(b"\0")[: len(_BEGINNING)])


def line_of(n: int, task_id: str, host: str, result: dict[str, Any]) -> bytes:
    """The line for a result."""
    rest = {name: value for name, value in result.items() if name not in ("id", "n", "host", "done_no", "batch")}
    return _ENCODER.encode({"n": n, "id": task_id, "host": host, **rest}) + b"\n"


class OutputFile:
    """Appends lines; in the input's order if `ordered`, what comes early waiting in the journal."""

    def __init__(self, path: Path, journal: Journal, *, ordered: bool) -> None:
        self.path = path
        self._journal = journal
        self._ordered = ordered
        self._file: IO[bytes] | None = None
        #: The last line of the input whose result is written, where they are ordered.
        self._written = 0

    def open(self) -> None:
        """Bring output and journal into agreement, then open for appending. Raises UsageError for a foreign file."""
        end = self._agree()
        try:
            self._file = self.path.open("ab")
            if end is not None:
                # A last line that was cut off; only now it is certain that the file is ours.
                self._file.truncate(end)
            elif self._lacks_line_end():
                self._file.write(b"\n")
        except OSError as error:
            raise UsageError(f"--out {self.path}: {error.strerror}") from None
        self.flush_held()

    def _lacks_line_end(self) -> bool:
        with self.path.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return False
            file.seek(-1, os.SEEK_END)
            return file.read() != b"\n"

    def _heads(self) -> Iterator[tuple[_Head, bytes]]:
        """What each line is about, and the line. Raises UsageError for one that is none of ours.

        What follows the last line end is a line if it is whole. It is passed over if it is the beginning of one.
        """
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield msgspec.json.decode(line, type=_Head), line
                except (msgspec.DecodeError, ValueError, RecursionError):
                    if line.endswith(b"\n") or not _is_beginning(line):
                        what = f"{self.path}, line {number}, was not written by farmhand batch"
                        raise UsageError(what, hint=_ANOTHER) from None

    def _known(self, head: _Head) -> tuple[int, int | None]:
        """State and host of the line of the batch that `head` is of. Raises UsageError where there is none."""
        row = self._journal.db.execute("SELECT id, state, host FROM line WHERE n = ?", (head.n,)).fetchone()
        if row is None or row[0] != head.id or head.state not in STATE_NAMES:
            what = f"{self.path} has a result for line {head.n}, {head.id!r:.80}, which is not in this batch"
            raise UsageError(what, hint=_ANOTHER)
        return int(row[1]), row[2]

    def check(self, *, any_batch: bool) -> None:
        """Raise UsageError where the file is not the output of this batch; with `any_batch` where it is of none."""
        for head, _ in self._heads():
            if not any_batch:
                self._known(head)

    def _agree(self) -> int | None:
        """What is in the output is done; what is done and in neither output nor `held` is asked for again.

        Where a last line that was cut off begins; None if none was.
        """
        db = self._journal.db
        end = 0
        with self._journal.transaction():
            db.execute("CREATE TEMP TABLE seen (n INTEGER PRIMARY KEY)")
            for head, line in self._heads():
                end += len(line)
                state, host = self._known(head)
                db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (head.n,))
                self._written = max(self._written, head.n)
                if state < 2:
                    cost = pico(head.cost_usd)
                    self._journal.finish(head.n, STATE_NAMES[head.state], host, cost)
                    if host is not None:
                        self._journal.advance(host, 0, cost=cost or 0)
            db.execute("DELETE FROM held WHERE n IN (SELECT n FROM seen)")
            lost = "state >= 2 AND n NOT IN (SELECT n FROM seen) AND n NOT IN (SELECT n FROM held)"
            # The host still has the result under the same id; a line without host was refused and is sent anew.
            db.execute(f"UPDATE line SET state = iif(host IS NULL, 0, 1), sure = 0 WHERE {lost}")  # noqa: S608  (ours)
            db.execute("DROP TABLE seen")
        size = self.path.stat().st_size if self.path.exists() else 0
        return end if end < size else None

    def put(self, n: int, line: bytes) -> None:
        """Take a result's line. It is safe once `sync` has returned."""
        if self._ordered:
            self._journal.hold(n, line)
        else:
            self._write(line)

    def flush_held(self) -> None:
        """Write held lines whose turn it is."""
        if not self._ordered:
            return
        while due := self._journal.due(self._written):
            for _, line in due:
                self._write(line)
            self._written = due[-1][0]

    def sync(self) -> None:
        """Everything written so far survives a power cut."""
        assert self._file is not None  # noqa: S101  (open comes first)
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._full(error) from None

    def release(self) -> None:
        """Forget held lines that are written and safe; inside a transaction after `sync`."""
        if self._ordered:
            self._journal.release(self._written)

    def _write(self, line: bytes) -> None:
        assert self._file is not None  # noqa: S101  (open comes first)
        try:
            self._file.write(line)
        except OSError as error:
            raise self._full(error) from None

    def _full(self, error: OSError) -> FarmhandError:
        hint = "make room and give the same command: it goes on from here"
        return FarmhandError(f"{self.path}: {error.strerror}", hint=hint, code="output")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def drop_failed(self) -> int:
        """Take out the lines that failed or were cancelled, so that they run again under new ids: how many.

        Before `open`.
        """
        journal = self._journal
        counts = journal.counts()
        failed = counts[FAILED] + counts[CANCELLED]
        if not failed or not self.path.exists():
            return 0
        copy = self.path.with_name(f".{self.path.name}.farmhand-new")
        with journal.transaction():
            first = journal.db.execute("SELECT min(n) FROM line WHERE state IN (3, 4)").fetchone()[0]
            with copy.open("wb") as file:
                for head, bare in self._heads():
                    self._known(head)
                    line = bare if bare.endswith(b"\n") else bare + b"\n"
                    if head.state != "succeeded":
                        continue
                    if self._ordered and head.n > first:
                        journal.hold(head.n, line)
                    else:
                        file.write(line)
                file.flush()
                os.fsync(file.fileno())
            rows = journal.unsuccessful()
            journal.db.execute("DELETE FROM held WHERE n IN (SELECT n FROM line WHERE state IN (3, 4))")
            for row in rows:
                journal.put_back(row)
        copy.replace(self.path)
        return failed
