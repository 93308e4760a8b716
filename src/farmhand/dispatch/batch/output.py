"""The output of a batch: JSON Lines, a line per task, appended as results come, and how it agrees with the journal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import msgspec

from farmhand.dispatch.batch.journal import CANCELLED, FAILED, STATE_NAMES, Journal
from farmhand.errors import FarmhandError, UsageError

_ENCODER = msgspec.json.Encoder()
PICO = 10**12
_BEGINNING = b'{"n":'
_ANOTHER = "choose another --out, or --restart to write it anew"


class _Head(msgspec.Struct):
    """What of a line of output its agreement with the journal needs."""

    n: int
    id: str
    state: str
    cost_usd: float | None = None


def pico(cost_usd: Any) -> int | None:
    """A result's cost in pico-dollars; None where it is not known."""
    # The text of a float is the amount that was meant; the float itself is off by less than it shows.
    return None if cost_usd is None else int((Decimal(str(cost_usd)) * PICO).to_integral_value())


def line_of(n: int, task_id: str, host: str, result: dict[str, Any]) -> bytes:
    """The line for a result."""
    rest = {name: value for name, value in result.items() if name not in ("id", "n", "host", "done_no", "batch")}
    return _ENCODER.encode({"n": n, "id": task_id, "host": host, **rest}) + b"\n"


class Output:
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
        end = self._whole() if self.path.exists() else 0
        if not end and self.path.exists():
            with self.path.open("rb") as file:
                if not _BEGINNING.startswith(file.read(len(_BEGINNING))):
                    raise UsageError(f"{self.path} was not written by farmhand batch", hint=_ANOTHER)
        self._agree(end)
        if self.path.exists():
            # A last line that was not written to its end; only now it is certain that the file is ours.
            os.truncate(self.path, end)
        try:
            self._file = self.path.open("ab")
        except OSError as error:
            raise UsageError(f"--out {self.path}: {error.strerror}") from None
        self.flush_held()

    def _whole(self) -> int:
        """Where the last line ends that was written to its end."""
        with self.path.open("rb") as file:
            at = file.seek(0, os.SEEK_END)
            while at > 0:
                start = max(0, at - 65536)
                file.seek(start)
                newline = file.read(at - start).rfind(b"\n")
                if newline >= 0:
                    return start + newline + 1
                at = start
        return 0

    def _heads(self, end: int) -> Iterator[tuple[_Head, bytes]]:
        with self.path.open("rb") as file:
            at = 0
            for number, line in enumerate(file, start=1):
                at += len(line)
                if at > end:
                    return
                try:
                    yield msgspec.json.decode(line, type=_Head), line
                except (msgspec.DecodeError, UnicodeDecodeError):
                    what = f"{self.path}, line {number}, was not written by farmhand batch"
                    raise UsageError(what, hint=_ANOTHER) from None

    def _agree(self, end: int) -> None:
        """What is in the output is done; what is done and in neither output nor `held` is asked for again."""
        db = self._journal.db
        with self._journal.transaction():
            db.execute("CREATE TEMP TABLE seen (n INTEGER PRIMARY KEY)")
            for head, _ in self._heads(end) if end else ():
                row = db.execute("SELECT id, state, host FROM line WHERE n = ?", (head.n,)).fetchone()
                if row is None or row[0] != head.id or head.state not in STATE_NAMES:
                    what = f"{self.path} has a result for line {head.n}, {head.id!r:.80}, which is not in this batch"
                    raise UsageError(what, hint=_ANOTHER)
                db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (head.n,))
                self._written = max(self._written, head.n)
                if row[1] < 2:
                    cost = pico(head.cost_usd)
                    self._journal.finish(head.n, STATE_NAMES[head.state], row[2], cost)
                    if row[2] is not None:
                        self._journal.advance(row[2], 0, cost=cost or 0)
            db.execute("DELETE FROM held WHERE n IN (SELECT n FROM seen)")
            lost = "state >= 2 AND n NOT IN (SELECT n FROM seen) AND n NOT IN (SELECT n FROM held)"
            # The host still has the result under the same id; a line without host was refused and is sent anew.
            db.execute(f"UPDATE line SET state = iif(host IS NULL, 0, 1), sure = 0 WHERE {lost}")  # noqa: S608  (ours)
            db.execute("DROP TABLE seen")

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
        copy = self.path.with_name(self.path.name + ".new")
        with journal.transaction():
            first = journal.db.execute("SELECT min(n) FROM line WHERE state IN (3, 4)").fetchone()[0]
            with copy.open("wb") as file:
                for head, line in self._heads(self._whole()):
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
