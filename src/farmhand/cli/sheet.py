"""Paragraphs and tables on a terminal, fitted to its width and free of control characters.

rich is of the extra `workstation`, and is imported only to print: help and --json do without.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from farmhand.cli import colour
from farmhand.core.readable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_BAR, _SHORTEST_BAR = 24, 6
#: Of the rows' names so many cells stay on one line, before a narrow terminal goes without a column.
_NAME = 16
_GAP = 2


class Sheet:
    """A writer of paragraphs and tables to `console`, by default stdout."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or colour.console(sys.stdout, highlight=False)

    def line(self, text: str = "", style: str = "") -> None:
        """Print a paragraph."""
        self.console.print(_text(text, style))

    def title(self, text: str) -> None:
        """Print the title of a section."""
        self.line(f"\n{text}", "bold")

    def facts(self, rows: Sequence[tuple[str, str | None, str]]) -> None:
        """Print lines of a name, an amount in US$ (None if it is unknown) and a remark."""
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        amounts = aligned(amount for _, amount, _ in rows)
        for number in range(3):
            table.add_column(no_wrap=number < 2)
        for (name, _, remark), amount in zip(rows, amounts, strict=True):
            table.add_row(*(_text(cell) for cell in (name, amount, remark)))
        self.console.print(table)

    def table(
        self,
        head: Sequence[str],
        rows: Sequence[Sequence[str | None]],
        money: Collection[int] = (),
        bars: Sequence[float] = (),
    ) -> None:
        """Print a table. The first column has the rows' names, those in `money` US$; `bars` become the last column."""
        from rich.table import Table

        columns = list(zip(*rows, strict=True)) or [()] * len(head)
        cells = [aligned(c) if n in money else [x or "" for x in c] for n, c in enumerate(columns)]
        width = self.console.width
        measured = [tuple(head), *zip(*cells, strict=True)]
        names = [(first[:_NAME], *rest) for first, *rest in measured]
        kept = kept_columns(names, width, range(len(head) - 1, 1, -1))
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
        for number in kept:
            name = head[number]
            if number in money:  # right-justified, the cells would lose the spaces that align them
                name = name.rjust(max(map(len, cells[number]), default=0))
            right = number and number not in money
            table.add_column(name, justify="right" if right else "left", no_wrap=bool(number), overflow="fold")
        shown = [cells[number] for number in kept]
        room = min(_BAR, width - sum(_widths([[row[one] for one in kept] for row in measured])) - _GAP * len(kept))
        if bars and room >= _SHORTEST_BAR:
            table.add_column("", no_wrap=True)
            shown.append([bar(part, max(bars), room) for part in bars])
        for row in zip(*shown, strict=True):
            table.add_row(*(_text(cell) for cell in row))
        self.console.print(table)

    def section(
        self,
        title: str,
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        bars: Sequence[float] = (),
        money: Collection[int] = (),
        none: str = "nothing yet",
    ) -> None:
        """Print a title and below it a table, or what is said where it has no rows."""
        self.title(title)
        if rows:
            self.table(head, rows, money, bars)
        else:
            self.line(none)


def kept_columns(rows: Sequence[Sequence[str]], width: int, drop: Sequence[int], gap: int = _GAP) -> list[int]:
    """Return the numbers of the columns that fit into `width`: those of `drop` go first, and no letter is cut."""
    widths = _widths(rows)
    kept = list(range(len(widths)))
    for number in drop:
        if sum(widths[one] for one in kept) + gap * (len(kept) - 1) <= width:
            break
        kept.remove(number)
    return kept


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    from rich.cells import cell_len

    return [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in zip(*rows, strict=True)]


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(printable(text), style=style)


def bar(part: float, most: float, length: int = _BAR) -> str:
    """Return a bar for `part`, of `length` for `most`; at least one block if `part` is positive."""
    return "█" * max(1, round(length * part / most)) if part > 0 and most > 0 else ""


def aligned(amounts: Iterable[str | None]) -> list[str]:
    """Pad amounts to one width with their decimal points aligned; None becomes `unknown`."""
    texts = ["unknown" if amount is None else amount for amount in amounts]
    # A text without a decimal point ends where the whole dollars end.
    parts = [(text, "") if "." not in text else (text[: text.index(".")], text[text.index(".") :]) for text in texts]
    left = max((len(whole) for whole, _ in parts), default=0)
    right = max((len(rest) for _, rest in parts), default=0)
    return [whole.rjust(left) + rest.ljust(right) for whole, rest in parts]
