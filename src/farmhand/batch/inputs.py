"""The sources of a batch's tasks: JSON Lines, CSV, or a list of files, read as a stream.

A record's number is its line in the input (for files, its place in the list, from 1).
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from farmhand.batch.template import BadRecord, Template, column_of
from farmhand.core.decoding import KeyTwice, broken, decoded, json_value, shown
from farmhand.core.readable import counted
from farmhand.core.task import MAX_PROMPT_BYTES, Task

#: The longest line: a prompt of the maximum size with every byte escaped.
MAX_LINE_BYTES = 8 * MAX_PROMPT_BYTES
csv.field_size_limit(MAX_LINE_BYTES)
#: The line `sep=;`, by which a table tells Excel its delimiter: no header.
_EXCELS = ["sep=", ""]
#: How many bytes of a table's row come back with its result, unless columns are named.
KEPT_BYTES = 4096


class DoubledKey(BadRecord):
    """A record with a key twice."""


class InputRecord(NamedTuple):
    """One record of the input: its number, and the task's fields or the reason why there are none.

    `columns` are those that come back with the result; None: none do.
    """

    n: int
    fields: dict[str, Any] | None
    problem: str = ""
    columns: dict[str, Any] | None = None


class InputSource(ABC):
    """A stream of records. Each overrides the tasks' `defaults`; a template makes prompts of the records' columns.

    `keep` are the columns that come back with the result; None: what is usual for the kind of input. Columns to keep
    that are no fields of a task are no part of it.
    """

    def __init__(
        self, defaults: dict[str, Any], template: Template | None = None, keep: Sequence[str] | None = None
    ) -> None:
        self._defaults = defaults
        self._template = template
        self._keep = keep
        self._aside = set(keep or ()) - set(Task.__struct_fields__)
        #: The names of the columns that come back, once all records were read.
        self.kept = [*(keep or ())]
        #: What was left out of records because it only advises, and of how many.
        self.left_out: Counter[str] = Counter()

    @abstractmethod
    def records(self) -> Iterator[InputRecord]:
        """Yield all records in order."""

    def where(self, n: int) -> str:
        """Return what a record is called where something is wrong with it."""
        return f"line {n}"

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a digest of the input's whole content."""

    def _record(self, n: int, read: Callable[[], Any]) -> InputRecord:
        try:
            record = read()
            return InputRecord(n, self._fields(record), columns=self._columns(record))
        except BadRecord as error:
            return InputRecord(n, None, str(error))

    def _columns(self, record: Any) -> dict[str, Any] | None:
        """Return the columns to keep. Raise BadRecord for a missing one."""
        if not self._keep:
            return None
        if not isinstance(record, dict):
            raise BadRecord("is no object, so it has no columns to keep")
        return {name: column_of(record, name) for name in self._keep}

    def _fields(self, record: Any) -> dict[str, Any]:
        """Return the task's fields; labels are merged. Raise BadRecord."""
        if self._template is not None:
            if not isinstance(record, dict):
                raise BadRecord("is no object, so it has no columns for the template")
            made = {**self._defaults, "prompt": self._template.fill(record)}
            return made if record.get("id") in (None, "") else {**made, "id": record["id"]}
        if isinstance(record, str):
            return {**self._defaults, "prompt": record}
        if not isinstance(record, dict):
            raise BadRecord("is neither an object (a task) nor a string (a prompt)")
        made = {**self._defaults, **{name: value for name, value in record.items() if name not in self._aside}}
        if isinstance(record.get("labels"), dict):
            made["labels"] = {**self._defaults.get("labels", {}), **record["labels"]}
        return made


class JsonLines(InputSource):
    """JSON Lines: a task, a prompt, or with a template a record on each line. Blank lines are skipped."""

    def __init__(
        self,
        file: IO[bytes],
        defaults: dict[str, Any],
        template: Template | None = None,
        keep: Sequence[str] | None = None,
    ) -> None:
        super().__init__(defaults, template, keep)
        self._file = file

    def records(self) -> Iterator[InputRecord]:
        """Yield all records in order."""
        n = 0
        try:
            for n, line in enumerate(read_lines(self._file), start=1):
                if line.strip():
                    yield self._record(n, partial(read_json, line))
        except BadRecord as error:
            yield InputRecord(n + 1, None, str(error))

    def fingerprint(self) -> str:
        """Return a digest of the input."""
        return _digest(self._file)


class Csv(JsonLines):
    """CSV with a header line (RFC 4180; values may span lines). The template makes the prompts."""

    def __init__(
        self,
        file: IO[bytes],
        defaults: dict[str, Any],
        template: Template | None,
        delimiter: str = ",",
        keep: Sequence[str] | None = None,
    ) -> None:
        super().__init__(file, defaults, template, keep)
        self._delimiter = delimiter

    def records(self) -> Iterator[InputRecord]:
        """Yield all records in order."""
        lines = (_decode(line, "utf-8" if n else "utf-8-sig") for n, line in enumerate(read_lines(self._file)))
        rows = csv.reader(lines, delimiter=self._delimiter, strict=True)
        n, header = 1, None
        try:
            for row in rows:
                if row == _EXCELS and n == 1:
                    pass
                elif row and header is None:
                    header = self._checked(_header(row))
                    self.kept = header if self._keep is None else self.kept
                elif row and header is not None:
                    yield self._record(n, partial(_by_column, header, row))
                n = rows.line_num + 1
        except BadRecord as error:
            yield InputRecord(n, None, str(error))
        except csv.Error as error:
            yield InputRecord(n, None, _not_csv(str(error)))

    def _checked(self, header: list[str]) -> list[str]:
        """Return the header. Raise BadRecord, once for the whole table, if a column that is used is not in it."""
        columns = dict.fromkeys(header, "")
        if self._template is not None:
            self._template.check(columns)
        super()._columns(columns)
        return header

    def _columns(self, record: Any) -> dict[str, Any] | None:
        """Return the columns to keep: by default all for which KEPT_BYTES have room, in the header's order."""
        if self._keep is not None:
            return super()._columns(record)
        room, kept = KEPT_BYTES, {}
        for name, value in record.items():
            if (size := len(value.encode())) <= room:
                kept[name] = value
                room -= size
        return kept


class Files(InputSource):
    """Text files, one task each. The columns are path, name (without directories) and text."""

    def __init__(
        self, paths: list[Path], defaults: dict[str, Any], template: Template, keep: Sequence[str] | None = None
    ) -> None:
        super().__init__(defaults, template, keep)
        self._paths = paths

    def records(self) -> Iterator[InputRecord]:
        """Yield all records in order."""
        for n, path in enumerate(self._paths, start=1):
            yield self._record(n, partial(_file_columns, path))

    def where(self, n: int) -> str:
        """Return the file's name."""
        return shown(self._paths[n - 1])

    def _fields(self, record: Any) -> dict[str, Any]:
        made = super()._fields(record)
        return {**made, "labels": {"path": record["path"], **made.get("labels", {})}}

    def fingerprint(self) -> str:
        """Return a digest of all paths and contents."""
        digest = hashlib.sha256()
        for path in self._paths:
            digest.update(os.fsencode(path) + b"\0")
            with contextlib.suppress(OSError), path.open("rb") as file:
                digest.update(_digest(file).encode())
        return digest.hexdigest()


def read_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of the file, from its beginning. Raise BadRecord for one that is too long."""
    file.seek(0)
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            raise BadRecord(f"is longer than {MAX_LINE_BYTES} bytes")
        yield line


def read_json(line: bytes) -> Any:
    """Return the JSON value in `line`. Raise BadRecord."""
    text = _decode(line, "utf-8-sig")
    try:
        value = json_value(text)
        if b"\\u" in line:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        raise BadRecord(f"has half a character, \\u{half:04x} without its other half") from None
    except KeyTwice as error:
        raise DoubledKey(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"is not JSON: {error}") from None
    return value


def _header(row: list[str]) -> list[str]:
    names = [name.strip() for name in row]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not all(names):
        raise BadRecord(f"has {f'the column {twice[0]!r} twice' if twice else 'an empty column'} in the header")
    return names


def _not_csv(error: str) -> str:
    if error.startswith("new-line character"):  # what follows there is meant for programmers
        return "has a carriage return that no line feed follows (lines end in LF or CRLF: convert them first)"
    return f"is not CSV: {error}"


def _by_column(header: list[str], row: list[str]) -> dict[str, str]:
    if len(row) != len(header):
        raise BadRecord(f"has {counted(len(row), 'value')}, the header has {counted(len(header), 'column')}")
    return dict(zip(header, row, strict=True))


def _file_columns(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PROMPT_BYTES + 1)
    except OSError as error:
        raise BadRecord(f"cannot be read: {error.strerror}") from None
    if len(data) > MAX_PROMPT_BYTES:
        raise BadRecord(f"is larger than {MAX_PROMPT_BYTES} bytes")
    try:
        return {"path": shown(path), "name": shown(path.name), "text": decoded(data)}
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadRecord(f"{broken(error)}, in line {line}") from None


def _decode(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if data.startswith(b"\x1f\x8b"):
            raise BadRecord("is compressed (gunzip it first)") from None
        hint = "convert it first, perhaps with iconv -f WINDOWS-1252 -t UTF-8"
        raise BadRecord(f"is not valid UTF-8 at byte {error.start} ({hint})") from None


def _digest(file: IO[bytes]) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # IO[bytes] is what open gives
