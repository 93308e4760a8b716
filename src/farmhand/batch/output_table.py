"""The output of a batch as a table, CSV or TSV: a row for each result, with the input's columns beside it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from farmhand.batch.journal import Journal
from farmhand.core.readable import cut_off

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
#: The columns before those of the input, and after them.
_FIRST = ["n", "id", "state"]
_LAST = ["text", "structured", "error", "model", "host", "cost_usd"]
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_DECODER = msgspec.json.Decoder(float_hook=Decimal)


class ResultTable:
    """The form of a table of the journal's results. A column of the input with a name of ours is `input.NAME`."""

    def __init__(self, path: Path, journal: Journal) -> None:
        self._delimiter = _DELIMITERS[path.suffix.lower()]
        self._columns: list[str] = json.loads(journal.about("columns") or "[]")
        #: What a result says of a budget that bent, in a batch whose budget may.
        self._bent = ["bent"] if journal.about("bends") else []
        names = [*_FIRST, *self._bent, *_LAST]
        for name in self._columns:
            # A table that was made here may be the input: then `input.id` is taken too.
            while name in names:
                name = f"input.{name}"
            names.insert(-len(_LAST), name)
        self.head = self._written(names)

    @staticmethod
    def is_one(path: Path) -> bool:
        """Return whether an output of this name is a table."""
        return path.suffix.lower() in _DELIMITERS

    def row(self, line: bytes) -> bytes:
        """Return the row for a line of the output as JSON."""
        result: dict[str, Any] = _DECODER.decode(line)
        columns, error = result.get("input") or {}, result.get("error") or {}
        said = ": ".join(filter(None, (error.get("code"), error.get("message") or cut_off(result))))
        values = result | {"error": said, "bent": _bent(result.get("bent"))}
        cells = [*(values.get(name) for name in (*_FIRST, *self._bent)), *(columns.get(name) for name in self._columns)]
        return self._written([_cell(value) for value in [*cells, *(values.get(name) for name in _LAST)]])

    def _written(self, cells: list[Any]) -> bytes:
        text = io.StringIO()
        csv.writer(text, delimiter=self._delimiter, lineterminator="\n").writerow(cells)
        return text.getvalue().encode()

    @staticmethod
    def heads(path: Path) -> Iterator[dict[str, str]]:
        """Yield n, id and state of each row, and an empty object where the file is no such table.

        A last row that may be the beginning of one is left out.
        """
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            rows = csv.reader(file, delimiter=_DELIMITERS[path.suffix.lower()])
            try:
                header = next(rows, [])
                if header[:3] != _FIRST or header[-len(_LAST) :] != _LAST:
                    # A header that was cut off has nothing after it.
                    if header and (not _cut(",".join(header), ",".join(_FIRST)) or next(rows, None) is not None):
                        yield {}
                    return
                before: list[str] | None = None
                for row in rows:
                    if before is not None:
                        yield _head(before, header)
                    before = row
            except csv.Error:
                yield {}
                return
        if before is not None and (len(before) == len(header) or not _may_begin(before)):
            yield _head(before, header)


def _cut(text: str, whole: str) -> bool:
    """Return whether `text` is the beginning of `whole`, or goes on from it, perhaps with zero bytes at its end."""
    rest = text.rstrip("\0")
    return whole.startswith(rest) or rest.startswith(whole)


def _head(row: list[str], header: list[str]) -> dict[str, str]:
    return dict(zip(_FIRST, row, strict=False)) if len(row) == len(header) else {}


def _may_begin(row: list[str]) -> bool:
    n = "".join(row[:1]).rstrip("\0")
    return not n or n.isdigit()


def _bent(note: dict[str, Any] | None) -> str | None:
    if note is None:
        return None
    return f"{note['way']}: {note['asked']['model']} by {note['asked']['engine']} was asked; {note['why']}"


def _cell(value: Any) -> Any:
    """Return a value as a cell: text and numbers as they are, null as nothing, everything else as JSON."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    plain = value is None or (isinstance(value, str | int) and not isinstance(value, bool))
    return value if plain else _ENCODER.encode(value).decode()
