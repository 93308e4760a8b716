"""The tables of a web page, or of a text in Markdown, as rows of cells: only their text, and each where it spans."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

#: A cell that spans more columns or rows than this is no table of prices.
_MOST_SPAN = 64
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_TAG = re.compile(r"<[^>]*>")
_NOTE = re.compile(r"<sup>.*?</sup>", re.DOTALL)


@dataclass
class PageTable:
    """A table: the text of its columns' heads, all rows of the head joined, and its other rows."""

    heads: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


def tables(text: str) -> list[PageTable]:
    """Return the tables of a page in HTML or Markdown, in their order."""
    if re.search(r"<table[\s>]", text, re.IGNORECASE):
        reader = _Html()
        reader.feed(text)
        reader.close()
        return reader.found
    return _markdown(text)


def _markdown(text: str) -> list[PageTable]:
    found: list[PageTable] = []
    before: list[str] | None = None
    inside = False
    for line in text.splitlines():
        if not (stripped := line.strip()).startswith("|"):
            before, inside = None, False
            continue
        cells = [_plain(cell) for cell in stripped.strip("|").split("|")]
        if inside:
            found[-1].rows.append(cells)
        elif before is not None and all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            found.append(PageTable([head.lower() for head in before]))
            inside = True
        before = cells
    return found


def _plain(cell: str) -> str:
    return " ".join(_TAG.sub(" ", _LINK.sub(r"\1", _NOTE.sub("", cell))).replace("**", "").split())


class _Html(HTMLParser):
    """A reader of tables: a row of heads alone belongs to the head, one that spans all columns is a divider."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[PageTable] = []
        self._row: list[tuple[str, int, int, bool]] | None = None
        self._cell: list[str] | None = None
        self._about = (1, 1, False)
        self._hidden = 0
        #: Column → (rows that it still spans, text).
        self._spans: dict[int, tuple[int, str]] = {}
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a table, a row or a cell."""
        given = {name: value or "" for name, value in attrs}
        if tag == "table":
            self.found.append(PageTable())
            self._spans, self._open, self._row, self._cell = {}, True, None, None
        elif tag == "tr" and self._open:
            self._end_row()
            self._row = []
        elif tag in ("td", "th") and self._row is not None:
            self._end_cell()
            self._cell = []
            self._about = (_span(given.get("colspan")), _span(given.get("rowspan")), tag == "th")
        elif tag in ("sup", "script", "style", "svg"):
            self._hidden += 1
        elif self._cell is not None:
            self._cell.append(" ")

    def handle_endtag(self, tag: str) -> None:
        """End a table, a row or a cell."""
        if tag in ("td", "th"):
            self._end_cell()
        elif tag == "tr":
            self._end_row()
        elif tag == "table":
            self._end_row()
            self._open = False
        elif tag in ("sup", "script", "style", "svg"):
            self._hidden = max(0, self._hidden - 1)
        elif self._cell is not None:
            self._cell.append(" ")

    def handle_data(self, data: str) -> None:
        """Take text, if it is shown in a cell."""
        if self._cell is not None and not self._hidden:
            self._cell.append(data)

    def _end_cell(self) -> None:
        if self._cell is not None and self._row is not None:
            self._row.append((" ".join("".join(self._cell).split()), *self._about))
        self._cell = None

    def _end_row(self) -> None:
        self._end_cell()
        row, self._row = self._row, None
        if not row:
            return
        cells: list[str] = []
        heads = all(is_head for *_, is_head in row)
        for text, columns, rows, _ in row:
            self._fill(cells)
            for _ in range(columns):
                if rows > 1:
                    self._spans[len(cells)] = (rows - 1, text)
                cells.append(text)
        self._fill(cells)
        table = self.found[-1]
        if not heads:
            table.rows.append(cells)
        elif len(row) > 1 or not table.heads:
            before = table.heads + [""] * (len(cells) - len(table.heads))
            table.heads = [f"{a} {b}".strip().lower() for a, b in zip(before, cells, strict=False)]

    def _fill(self, cells: list[str]) -> None:
        """Add the cells of earlier rows that reach down into this one."""
        while len(cells) in self._spans:
            left, text = self._spans.pop(len(cells))
            if left > 1:
                self._spans[len(cells)] = (left - 1, text)
            cells.append(text)


def _span(text: str | None) -> int:
    return min(int(text), _MOST_SPAN) if text and text.isascii() and text.isdecimal() and int(text) else 1
