"""The report on a terminal: the sections of the page, each with bars as long as what they stand for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from farmhand.cli.cost_view import aligned
from farmhand.cli.say import printable
from farmhand.core.money import plain
from farmhand.cost.queries import DAY_S
from farmhand.cost.report import COST_EDGES, SECOND_EDGES, SPREADS, CostReport

#: Days and batches that are shown one by one; the page has all of them.
LAST_DAYS = 14
TOP = 10
_BAR = 24


def write(found: CostReport, console: Console | None = None) -> None:
    """Print the report."""
    view = _ReportView(console or Console(highlight=False), found)
    view.head()
    view.spend()
    view.saving()
    view.spread("Cost of a task (US$)", ("cost",), [plain(edge) for edge in COST_EDGES])
    view.spread("Time that tasks ran", ("run",), [seconds(edge) for edge in SECOND_EDGES])
    view.spread("Time that tasks waited before", ("wait",), [seconds(edge) for edge in SECOND_EDGES])
    view.cache()
    view.causes()
    view.batches()
    view.unknown()


def seconds(edge: float) -> str:
    """A number of seconds as people say it."""
    if edge < 60:
        return f"{edge:g} s"
    return f"{edge / 60:g} min" if edge < 3600 else f"{edge / 3600:g} h"


def bar(part: float, most: float) -> str:
    """A bar for `part`, where the longest stands for `most`; what is not nothing is seen."""
    if part <= 0 or most <= 0:
        return ""
    return "█" * max(1, round(_BAR * part / most))


def _day(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat()


def _sums(rows: Iterable[Any], key: Callable[[Any], Any], value: Callable[[Any], int]) -> Counter[Any]:
    sums: Counter[Any] = Counter()
    for row in rows:
        sums[key(row)] += value(row)
    return sums


class _ReportView:
    """One print of one report."""

    def __init__(self, console: Console, found: CostReport) -> None:
        self.console = console
        self.found = found

    def line(self, text: str, style: str = "") -> None:
        """One paragraph."""
        self.console.print(Text(printable(text), style=style))

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]], bars: Sequence[float] = ()) -> None:
        """A section: a table whose first column names, with bars at its end."""
        self.line(f"\n{title}", "bold")
        if not rows:
            self.line("nothing yet")
            return
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for number, name in enumerate(head):
            table.add_column(name, justify="right" if number else "left", no_wrap=bool(number), overflow="fold")
        if bars:
            table.add_column("", no_wrap=True)
        most = max(bars, default=0)
        for number, row in enumerate(rows):
            drawn = [Text(bar(bars[number], most))] if bars else []
            table.add_row(*(Text(printable(cell)) for cell in row), *drawn)
        self.console.print(table)

    def head(self) -> None:
        """The period and its sums."""
        figures = self.found.figures
        self.line(f"Farmhand report, {_day(self.found.first)} to {_day(self.found.last)} (UTC)", "bold")
        whole, saved = figures.whole, figures.savings
        self.line(
            f"US$ {plain(whole.spent_pico)} for {whole.tasks} tasks, {whole.failed} failed; {whole.retries} retries"
        )
        target = figures.target
        factor = "nothing to compare" if target.factor is None else f"{target.factor}x"
        self.line(
            f"US$ {plain(saved.saving_pico)} saved beside plain claude -p on {saved.baseline_model};"
            f" target {target.low}-{target.high}x: {target.verdict}, {factor}"
        )

    def spend(self) -> None:
        """By model, and the last days."""
        cells = self.found.cells
        by_model = _sums(cells, lambda row: row.model, lambda row: row.spent_pico).most_common()
        amounts = aligned(plain(spent) for _, spent in by_model)
        rows = [(self.found.models[model], amount) for (model, _), amount in zip(by_model, amounts, strict=True)]
        self.table("Spend by model", ("model", "US$"), rows, [spent for _, spent in by_model])
        by_day = _sums(cells, lambda row: row.day, lambda row: row.spent_pico)
        days = sorted(by_day)[-LAST_DAYS:]
        amounts = aligned(plain(by_day[day]) for day in days)
        title = f"Spend by day{f' (the last {LAST_DAYS} with any)' if len(by_day) > LAST_DAYS else ''}"
        rows = [(_day(day), amount) for day, amount in zip(days, amounts, strict=True)]
        self.table(title, ("day", "US$"), rows, [by_day[day] for day in days])

    def saving(self) -> None:
        """Against each baseline."""
        saved = _sums(self.found.saved, lambda row: row.baseline, lambda row: row.baseline_pico - row.spent_pico)
        amounts = aligned(plain(saved[number]) for number in range(len(self.found.baselines)))
        rows = list(zip(self.found.baselines, amounts, strict=True))
        self.table("Saved beside plain claude -p on each model", ("baseline", "US$"), rows)

    def spread(self, title: str, whats: tuple[str], names: list[str]) -> None:
        """A distribution."""
        wanted = {SPREADS.index(what) for what in whats}
        sums = _sums(
            (row for row in self.found.spreads if row.what in wanted), lambda row: row.bar, lambda row: row.tasks
        )
        bars = sorted(bar for bar in sums if bar >= 0)
        shown = [*range(bars[0], bars[-1] + 1)] if bars else []
        shown += [-1] if sums[-1] else []
        labels = [*(f"to {name}" for name in names), f"above {names[-1]}", "not known"]
        self.table(title, ("", "tasks"), [(labels[at], str(sums[at])) for at in shown], [sums[at] for at in shown])

    def cache(self) -> None:
        """Prompt tokens by where they came from."""
        whole = self.found.figures.whole
        parts = {
            "read from the cache": whole.cache_read_input_tokens,
            "written to it": whole.cache_creation_input_tokens,
            "not cached": whole.input_tokens,
        }
        given = sum(parts.values())
        rows = [(name, str(part), f"{100 * part / given:.1f} %") for name, part in parts.items()] if given else []
        self.table("Cache hits", ("prompt tokens", "", ""), rows, list(parts.values()))

    def causes(self) -> None:
        """Failures and retries."""
        tasks = _sums(self.found.by_cause, lambda row: row.cause, lambda row: row.tasks)
        retries = _sums(self.found.by_cause, lambda row: row.cause, lambda row: row.retries)
        both = (tasks + retries).most_common()
        names = ["succeeded in the end" if name == "succeeded" else name for name in self.found.causes]
        rows = [(names[cause], str(tasks[cause]), str(retries[cause])) for cause, _ in both]
        bars = [count for _, count in both]
        self.table("Failures and retries by cause", ("cause", "tasks", "retries"), rows, bars)

    def batches(self) -> None:
        """The dearest."""
        spent = _sums(self.found.by_batch, lambda row: row.batch, lambda row: row.spent_pico).most_common(TOP)
        tasks = _sums(self.found.by_batch, lambda row: row.batch, lambda row: row.tasks)
        amounts = aligned(plain(amount) for _, amount in spent)
        rows = [
            (self.found.batches[batch] or "(none)", amount, str(tasks[batch]))
            for (batch, _), amount in zip(spent, amounts, strict=True)
        ]
        self.table(
            f"Top batches ({len(rows)} of {self.found.batches_in_all})",
            ("batch", "US$", "tasks"),
            rows,
            [amount for _, amount in spent],
        )

    def unknown(self) -> None:
        """What is in no sum, and hosts whose last figures these are."""
        figures = self.found.figures
        lines = [
            f"{row.requests} requests to {row.model}: no price is known; they are in no sum."
            for row in figures.unpriced
        ]
        if figures.uncertain.requests:
            count = figures.uncertain.requests
            lines.append(f"{count} requests may have been charged without our knowing how much; they are in no sum.")
        for host in figures.hosts:
            if host.error is not None:
                lines.append(f"{host.host} could not be asked, its last figures are kept: {host.error}")
            if host.missing:
                lines.append(f"{host.host} forgot {host.missing} charges before they were merged; they are in no sum.")
        if lines:
            self.line("\nNot known", "bold")
        for text in lines:
            self.line(text)
