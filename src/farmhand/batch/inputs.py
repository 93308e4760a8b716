"""The sources of a batch's tasks: JSON Lines, CSV, or a list of files, read as a stream.

A record's number is its line in the input (for files, its place in the list, from 1).
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol

from farmhand.batch.template import MissingColumn, Template
from farmhand.core.decoding import shown
from farmhand.core.task import MAX_PROMPT_BYTES

#: The longest line: a prompt of the maximum size with every byte escaped.
MAX_LINE_BYTES = 8 * MAX_PROMPT_BYTES
csv.field_size_limit(MAX_LINE_BYTES)


class BadRecord(ValueError):
    """A record that cannot become a task: a one-line message, without its position."""


@dataclass(frozen=True)
class InputRecord:
    """One record of the input: its number, and the task's fields or the reason why there are none."""

    n: int
    fields: dict[str, Any] | None
    problem: str = ""


@dataclass(frozen=True)
class TaskMaker:
    """A converter from a record to a task's fields. The record overrides `defaults`; labels are merged."""

    defaults: dict[str, Any] = field(default_factory=dict)
    template: Template | None = None

    def fields(self, record: Any) -> dict[str, Any]:
        """Return the task's fields. Raise BadRecord."""
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
    """A stream of records."""

    def records(self) -> Iterator[InputRecord]:
        """Yield all records in order."""

    def fingerprint(self) -> str:
        """Return a digest of the input's whole content."""


class JsonLines:
    """JSON Lines: a task, a prompt, or with a template a record on each line. Blank lines are skipped."""

    def __init__(self, file: IO[bytes], maker: TaskMaker) -> None:
        self._file = file
        self._maker = maker

    def records(self) -> Iterator[InputRecord]:
        """Yield all records in order."""
        n = 0
        try:
            for n, line in enumerate(_lines(self._file), start=1):
                if line.strip():
                    yield _record(n, partial(self._fields, line))
        except BadRecord as error:
            yield InputRecord(n + 1, None, str(error))

    def _fields(self, line: bytes) -> dict[str, Any]:
        return self._maker.fields(_json(line))

    def fingerprint(self) -> str:
        """Return a digest of the input."""
        return _digest(self._file)


class Csv:
    """CSV with a header line (RFC 4180; values may span lines). The template makes the prompts."""

    def __init__(self, file: IO[bytes], maker: TaskMaker, delimiter: str = ",") -> None:
        self._file = file
        self._maker = maker
        self._delimiter = delimiter

    def records(self) -> Iterator[InputRecord]:
        """Yield all records in order."""
        lines = (_decode(line, "utf-8" if n else "utf-8-sig") for n, line in enumerate(_lines(self._file)))
        rows = csv.reader(lines, delimiter=self._delimiter, strict=True)
        n, header = 1, None
        try:
            for row in rows:
                if header is None:
                    header = _header(row)
                elif row:
                    yield _record(n, partial(self._fields, header, row))
                n = rows.line_num + 1
        except (csv.Error, BadRecord) as error:
            yield InputRecord(n, None, f"is not CSV: {error}")

    def _fields(self, header: list[str], row: list[str]) -> dict[str, Any]:
        if len(row) != len(header):
            raise BadRecord(f"has {len(row)} values, the header has {len(header)} columns")
        return self._maker.fields(dict(zip(header, row, strict=True)))

    def fingerprint(self) -> str:
        """Return a digest of the input."""
        return _digest(self._file)


class Files:
    """Text files, one task each. The columns are path, name (without directories) and text."""

    def __init__(self, paths: list[Path], maker: TaskMaker) -> None:
        self._paths = paths
        self._maker = maker

    def records(self) -> Iterator[InputRecord]:
        """Yield all records in order."""
        for n, path in enumerate(self._paths, start=1):
            yield _record(n, partial(self._fields, path))

    def _fields(self, path: Path) -> dict[str, Any]:
        made = self._maker.fields({"path": shown(path), "name": shown(path.name), "text": self._text(path)})
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

    def fingerprint(self) -> str:
        """Return a digest of all paths and contents."""
        digest = hashlib.sha256()
        for path in self._paths:
            digest.update(os.fsencode(path) + b"\0")
            with contextlib.suppress(OSError), path.open("rb") as file:
                digest.update(_digest(file).encode())
        return digest.hexdigest()


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            raise BadRecord(f"is longer than {MAX_LINE_BYTES} bytes")
        yield line


def _record(n: int, fields: Callable[[], dict[str, Any]]) -> InputRecord:
    try:
        return InputRecord(n, fields())
    except BadRecord as error:
        return InputRecord(n, None, str(error))


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
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # IO[bytes] is what open gives
