"""One row of the table: two figures, their ratio, the target, and whether it is met or by how much it is missed."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

#: `<= 0.25`, `at most 2 s`, `ratio >= 50`: what may be said of ours, or of its ratio to the reference.
_TARGET = re.compile(r"(?P<ratio>ratio )?(?P<sign><=|>=|at most|at least) (?P<limit>[0-9.,]+)")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured. `reference` is what a user would use instead, or the figure that ours is measured against.

    `target` is empty for a row that is there to be looked at. `note` says what else counts: how many tasks, which -P.
    """

    what: str
    ours: float
    reference: float | None = None
    against: str = ""
    unit: str = "s"
    target: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours to the reference."""
        return self.ours / self.reference if self.reference else None

    @property
    def verdict(self) -> str:
        """`met`, `missed by N %` of the target, or nothing where there is none."""
        found = _TARGET.match(self.target)
        figure = self.ratio if found and found["ratio"] else self.ours
        if found is None or figure is None:
            return ""
        limit = float(found["limit"].replace(",", ""))
        over = figure / limit - 1 if found["sign"] in ("<=", "at most") else 1 - figure / limit
        return "met" if over <= 0 else f"missed by {over:.0%}"

    def json(self) -> dict[str, Any]:
        """All of it for a file."""
        return asdict(self) | {"ratio": self.ratio, "verdict": self.verdict}


def from_plain(row: Mapping[str, Any]) -> Row:
    """A row of a benchmark that gives plain dicts with `what`, `ours`, `reference`, `unit` and `target`."""
    names = ("what", "ours", "reference", "unit", "target")
    return Row(**{name: row[name] for name in names})


_HEAD = ("what", "ours", "reference", "unit", "ratio", "target", "verdict", "against; note")


def _cells(row: Row) -> tuple[str, ...]:
    ratio = "" if row.ratio is None else number(row.ratio)
    remark = "; ".join(filter(None, (row.against, row.note)))
    reference = "" if row.reference is None else number(row.reference)
    return (row.what, number(row.ours), reference, row.unit, ratio, row.target, row.verdict, remark)


def number(value: float) -> str:
    """Three digits that count, as a reader wants them."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.2g}"


def table(rows: Sequence[Row], *, markdown: bool = False) -> str:
    """The rows below one another."""
    lines = [_HEAD, *map(_cells, rows)]
    if markdown:
        ruled = [lines[0], tuple("---" for _ in _HEAD), *lines[1:]]
        return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in ruled)
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    right = (1, 2, 4)
    return "\n".join(
        "  ".join(c.rjust(w) if n in right else c.ljust(w) for n, (c, w) in enumerate(zip(line, widths, strict=True)))
        .rstrip()
        for line in lines
    )  # fmt: skip


def interleaved(ways: Mapping[str, Callable[[], float]], rounds: int, *, warm: int = 1) -> dict[str, list[float]]:
    """Each way once a round, in turn, so that a machine that slows down slows all; the first rounds do not count."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for count in range(-warm, rounds):
        for name, way in ways.items():
            figure = way()
            if count >= 0:
                taken[name].append(figure)
    return taken


def medians(taken: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The middle of each."""
    return {name: statistics.median(figures) for name, figures in taken.items()}
