"""The report on a terminal: the sections of the HTML page, with bars."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from farmhand.cli.cost_view import write_unknown
from farmhand.cli.sheet import Sheet
from farmhand.core.money import plain
from farmhand.cost.queries import DAY_S
from farmhand.cost.report import COST_EDGES, SECOND_EDGES, SPREADS, CostReport
from farmhand.cost.summary import document

#: How many days and batches are listed; the HTML page has all of them.
LAST_DAYS = 14
TOP = 10


def write(found: CostReport, sheet: Sheet | None = None) -> None:
    """Print the report."""
    sheet = sheet or Sheet()
    _head(sheet, found)
    _spend(sheet, found)
    _saving(sheet, found)
    times = [seconds(edge) for edge in SECOND_EDGES]
    _spread(sheet, found, "Cost of a task (US$)", "cost", [plain(edge) for edge in COST_EDGES])
    _spread(sheet, found, "Time that tasks ran", "run", times)
    _spread(sheet, found, "Time that tasks waited before", "wait", times)
    _cache(sheet, found)
    _causes(sheet, found)
    _batches(sheet, found)
    write_unknown(sheet, document(found.figures))


def seconds(edge: float) -> str:
    """Format a number of seconds as s, min or h."""
    if edge < 60:
        return f"{edge:g} s"
    return f"{edge / 60:g} min" if edge < 3600 else f"{edge / 3600:g} h"


def _day(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat()


def _sums(rows: Iterable[Any], key: str, value: str) -> Counter[Any]:
    """Return the sums of the rows' field `value`, by their field `key`."""
    sums: Counter[Any] = Counter()
    for row in rows:
        sums[getattr(row, key)] += getattr(row, value)
    return sums


def _section(
    sheet: Sheet,
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    bars: Sequence[float] = (),
    *,
    money: bool = False,
) -> None:
    """Print a section: a table with bars. With `money` its second column holds US$."""
    sheet.title(title)
    if rows:
        sheet.table(head, rows, {1} if money else (), bars)
    else:
        sheet.line("nothing yet")


def _head(sheet: Sheet, found: CostReport) -> None:
    """Print the period and its sums."""
    whole, saved, target = found.figures.whole, found.figures.savings, found.figures.target
    sheet.line(f"Farmhand report, {_day(found.first)} to {_day(found.last)} (UTC)", "bold")
    sheet.line(f"US$ {plain(whole.spent_pico)} for {whole.tasks} tasks, {whole.failed} failed; {whole.retries} retries")
    factor = "nothing to compare" if target.factor is None else f"{target.factor}x"
    sheet.line(
        f"US$ {plain(saved.saving_pico)} saved beside plain claude -p on {saved.baseline_model};"
        f" target {target.low}-{target.high}x: {target.verdict}, {factor}"
    )


def _spend(sheet: Sheet, found: CostReport) -> None:
    """Print the spending by model and by day."""
    by_model = _sums(found.cells, "model", "spent_pico").most_common()
    rows = [(found.models[model], plain(spent)) for model, spent in by_model]
    _section(sheet, "Spend by model", ("model", "US$"), rows, [spent for _, spent in by_model], money=True)
    by_day = _sums(found.cells, "day", "spent_pico")
    days = sorted(by_day)[-LAST_DAYS:]
    title = f"Spend by day{f' (the last {LAST_DAYS} with any)' if len(by_day) > LAST_DAYS else ''}"
    rows = [(_day(day), plain(by_day[day])) for day in days]
    _section(sheet, title, ("day", "US$"), rows, [by_day[day] for day in days], money=True)


def _saving(sheet: Sheet, found: CostReport) -> None:
    """Print the saving against each baseline."""
    saved = _sums(found.saved, "baseline", "baseline_pico")
    saved.subtract(_sums(found.saved, "baseline", "spent_pico"))
    rows = [(name, plain(saved[number])) for number, name in enumerate(found.baselines)]
    _section(sheet, "Saved beside plain claude -p on each model", ("baseline", "US$"), rows, money=True)


def _spread(sheet: Sheet, found: CostReport, title: str, what: str, names: list[str]) -> None:
    """Print a distribution of tasks: `what` is one of SPREADS, `names` are the upper edges of its bars."""
    sums = _sums((row for row in found.spreads if row.what == SPREADS.index(what)), "bar", "tasks")
    bars = sorted(bar for bar in sums if bar >= 0)
    shown = [*range(bars[0], bars[-1] + 1)] if bars else []
    shown += [-1] if sums[-1] else []
    labels = [*(f"to {name}" for name in names), f"above {names[-1]}", "not known"]
    _section(sheet, title, ("", "tasks"), [(labels[at], str(sums[at])) for at in shown], [sums[at] for at in shown])


def _cache(sheet: Sheet, found: CostReport) -> None:
    """Print the prompt tokens: read from the cache, written to it, or not cached."""
    whole = found.figures.whole
    parts = {
        "read from the cache": whole.cache_read_input_tokens,
        "written to it": whole.cache_creation_input_tokens,
        "not cached": whole.input_tokens,
    }
    given = sum(parts.values())
    rows = [(name, str(part), f"{100 * part / given:.1f} %") for name, part in parts.items()] if given else []
    _section(sheet, "Cache hits", ("prompt tokens", "", ""), rows, list(parts.values()))


def _causes(sheet: Sheet, found: CostReport) -> None:
    """Print failures and retries by cause."""
    tasks = _sums(found.by_cause, "cause", "tasks")
    retries = _sums(found.by_cause, "cause", "retries")
    both = (tasks + retries).most_common()
    names = ["succeeded in the end" if name == "succeeded" else name for name in found.causes]
    rows = [(names[cause], str(tasks[cause]), str(retries[cause])) for cause, _ in both]
    bars = [count for _, count in both]
    _section(sheet, "Failures and retries by cause", ("cause", "tasks", "retries"), rows, bars)


def _batches(sheet: Sheet, found: CostReport) -> None:
    """Print the most expensive batches."""
    spent = _sums(found.by_batch, "batch", "spent_pico").most_common(TOP)
    tasks = _sums(found.by_batch, "batch", "tasks")
    rows = [(found.batches[batch] or "(none)", plain(amount), str(tasks[batch])) for batch, amount in spent]
    title = f"Top batches ({len(rows)} of {found.batches_in_all})"
    _section(sheet, title, ("batch", "US$", "tasks"), rows, [amount for _, amount in spent], money=True)
