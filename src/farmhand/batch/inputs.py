"""Where a batch's tasks come from: JSON Lines, CSV, or a list of files. Read in a stream, and again by offset.

A record's number is its line in the input (of files: its place in the list, from 1). Its offset says where to read it
again, so that neither the input nor a copy of it has to be kept.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from farmhand.batch.template import MissingColumn, Template
from farmhand.core.decoding import shown
from farmhand.core.task import MAX_PROMPT_BYTES

#: No line is longer: a prompt of the greatest size, each byte escaped.
MAX_LINE_BYTES = 8 * MAX_PROMPT_BYTES
csv.field_size_limit(MAX_LINE_BYTES)


class BadRecord(ValueError):
    """A record that cannot become a task: one line, without where it stands."""


@dataclass(frozen=True)
class InputRecord:
    """One record of the input: its number, its offset, and the task's fields or why there are none."""

    n: int
    at: int
    fields: dict[str, Any] | None
    problem: str = ""


@dataclass(frozen=True)
class TaskMaker:
    """Makes a task's fields out of a record. What the record says wins over `defaults`; labels are joined."""

    defaults: dict[str, Any] = field(default_factory=dict)
    template: Template | None = None

    def fields(self, record: Any) -> dict[str, Any]:
        """Raises BadRecord."""
        if self.template is not None:
            return self._filled(record)
        if isinstance(record, str):
            return {**self.defaults, "prompt": record}
        if not isinstance(record, dict):
            raise BadRecord("is neither an object (a task) nor a string (a prompt)")
        labels = record.get("labels")
        joined = {"labels": {**self.defaults.get("labels", {}), **labels}} if isinstance(labels, dict) else {}
        return {**self.defaults, **record, **joined}

    def _filled(self, record: Any) -> dict[str, Any]:
        assert self.template is not None  # noqa: S101  (for the type checker)
        if not isinstance(record, dict):
            raise BadRecord("is no object, so it has no columns for the template")
        try:
            made = {**self.defaults, "prompt": self.template.fill(record)}
        except MissingColumn as error:
            raise BadRecord(str(error)) from None
        if record.get("id") not in (None, ""):
            made["id"] = record["id"]
        return made


class InputSource(Protocol):
    """A stream of records that can be read again by number and offset."""

    digest: str

    def records(self) -> Iterator[InputRecord]:
        """All records; afterwards `digest` names the input's whole content."""

    def again(self, n: int, at: int) -> dict[str, Any]:
        """The fields of one record. Raises BadRecord where it is no longer what it was."""

    def fingerprint(self) -> str:
        """The digest, without making records."""


class JsonLines:
    """One JSON value a line: a task, a prompt, or with a template a record. Blank lines are passed over."""

    def __init__(self, file: IO[bytes], maker: TaskMaker) -> None:
        self._file = file
        self._maker = maker
        self.digest = ""

    def records(self) -> Iterator[InputRecord]:
        """See Source."""
        digest = hashlib.sha256()
        self._file.seek(0)
        at = n = 0
        while line := self._file.readline(MAX_LINE_BYTES + 1):
            n += 1
            digest.update(line)
            start, at = at, at + len(line)
            if len(line) > MAX_LINE_BYTES:
                yield InputRecord(n, start, None, f"is longer than {MAX_LINE_BYTES} bytes")
                return
            if line.strip():
                yield self._record(n, start, line)
        self.digest = digest.hexdigest()

    def _record(self, n: int, at: int, line: bytes) -> InputRecord:
        try:
            return InputRecord(n, at, self._maker.fields(_json(line)))
        except BadRecord as error:
            return InputRecord(n, at, None, str(error))

    def again(self, n: int, at: int) -> dict[str, Any]:
        """See Source."""
        self._file.seek(at)
        return self._maker.fields(_json(self._file.readline(MAX_LINE_BYTES + 1)))

    def fingerprint(self) -> str:
        """See Source."""
        return _digest(self._file)


class Csv:
    """CSV with a header line (RFC 4180; values may span lines); the template makes the prompts."""

    def __init__(self, file: IO[bytes], maker: TaskMaker, delimiter: str = ",") -> None:
        self._file = file
        self._maker = maker
        self._delimiter = delimiter
        self._header: list[str] | None = None
        self.digest = ""

    def records(self) -> Iterator[InputRecord]:
        """See Source."""
        self._file.seek(0)
        lines = _Lines(self._file)
        rows = csv.reader(lines, delimiter=self._delimiter, strict=True)
        while True:
            n, at = lines.n + 1, lines.at
            try:
                row = next(rows)
                if self._header is None:
                    self._header = _header(row)
                elif row:
                    yield self._record(n, at, row)
            except StopIteration:
                break
            except (csv.Error, BadRecord) as error:
                yield InputRecord(n, at, None, f"is not CSV: {error}")
                return
        self.digest = lines.digest.hexdigest()

    def _record(self, n: int, at: int, row: list[str]) -> InputRecord:
        try:
            return InputRecord(n, at, self._fields(row))
        except BadRecord as error:
            return InputRecord(n, at, None, str(error))

    def _fields(self, row: list[str]) -> dict[str, Any]:
        header = self._header or []
        if len(row) != len(header):
            raise BadRecord(f"has {len(row)} values, the header has {len(header)} columns")
        return self._maker.fields(dict(zip(header, row, strict=True)))

    def again(self, n: int, at: int) -> dict[str, Any]:
        """See Source."""
        try:
            if self._header is None:
                self._file.seek(0)
                self._header = _header(next(self._rows()))
            self._file.seek(at)
            return self._fields(next(self._rows()))
        except (csv.Error, StopIteration):
            raise BadRecord("is no longer there") from None

    def _rows(self) -> Iterator[list[str]]:
        return csv.reader(_Lines(self._file), delimiter=self._delimiter, strict=True)

    def fingerprint(self) -> str:
        """See Source."""
        return _digest(self._file)


class Files:
    """Text files, one task each: the columns are path, name (without directories) and text."""

    def __init__(self, paths: list[Path], maker: TaskMaker) -> None:
        self._paths = paths
        self._maker = maker
        self.digest = ""

    def records(self) -> Iterator[InputRecord]:
        """See Source."""
        digest = hashlib.sha256()
        for n, path in enumerate(self._paths, start=1):
            try:
                text = self._text(path)
                _add(digest, path, text)
                yield InputRecord(n, n, self._made(path, text))
            except BadRecord as error:
                yield InputRecord(n, n, None, str(error))
        self.digest = digest.hexdigest()

    def _made(self, path: Path, text: str) -> dict[str, Any]:
        made = self._maker.fields({"path": shown(path), "name": shown(path.name), "text": text})
        made["labels"] = {"path": shown(path), **made.get("labels", {})}
        return made

    def _text(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                data = file.read(MAX_PROMPT_BYTES + 1)
        except OSError as error:
            raise BadRecord(f"{shown(path)}: {error.strerror}") from None
        if len(data) > MAX_PROMPT_BYTES:
            raise BadRecord(f"{shown(path)} is larger than {MAX_PROMPT_BYTES} bytes")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise BadRecord(f"{shown(path)} is not valid UTF-8 at byte {error.start}, in line {line}") from None

    def again(self, n: int, at: int) -> dict[str, Any]:
        """See Source."""
        path = self._paths[n - 1]
        return self._made(path, self._text(path))

    def fingerprint(self) -> str:
        """See Source."""
        for _ in self.records():
            pass
        return self.digest


class _Lines:
    """The lines of a file as text for the csv module, with the number of lines and bytes taken so far."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.n = 0
        self.at = file.tell()
        self.digest = hashlib.sha256()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_LINE_BYTES + 1)
        if not line:
            raise StopIteration
        if len(line) > MAX_LINE_BYTES:
            raise BadRecord(f"a line is longer than {MAX_LINE_BYTES} bytes")
        first = self.at == 0
        self.n += 1
        self.at += len(line)
        self.digest.update(line)
        return _decode(line, "utf-8-sig" if first else "utf-8")


def _header(row: list[str]) -> list[str]:
    names = [name.strip() for name in row]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not all(names):
        raise BadRecord(f"the header has {'the column ' + repr(twice[0]) + ' twice' if twice else 'an empty column'}")
    return names


def _json(line: bytes) -> Any:
    try:
        value = json.loads(_decode(line, "utf-8-sig"))
        if b"\\u" in line:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        raise BadRecord(f"has half a character, \\u{half:04x} without its other half") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadRecord):
            raise
        raise BadRecord(f"is not JSON: {error}") from None


def _decode(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise BadRecord(f"is not valid UTF-8 at byte {error.start}") from None


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def _add(digest: Any, path: Path, text: str) -> None:
    digest.update(f"{path}\0{len(text)}\0".encode("utf-8", "surrogateescape"))
    digest.update(text.encode())
