"""`farmhand report`: the figures of `farmhand cost` as charts, in one HTML file or on the terminal."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from farmhand.cli import render
from farmhand.cli.arguments import OF_LEDGERS
from farmhand.cli.comparison import write_comparison
from farmhand.cli.cost import READS, kept_local, outcomes, write_head, write_levers, write_unknown
from farmhand.cli.say import note
from farmhand.cli.sheet import Sheet
from farmhand.cli.verb import VerbResult, verb
from farmhand.cli.waiting import waits_for
from farmhand.core import files
from farmhand.core.errors import NotConfigured, UsageError
from farmhand.core.money import plain
from farmhand.core.readable import counted, duration, money
from farmhand.core.settings import Settings
from farmhand.cost.merged import merged
from farmhand.cost.queries import day_text
from farmhand.cost.report import COST_EDGES, GROUPINGS, SECOND_EDGES, SPREADS, CostReport, as_document
from farmhand.cost.summary import document as as_figures
from farmhand.cost.summary import headline
from farmhand.gateway.cost_pages import ledgers_here

#: How many days and batches are listed; the HTML page has all of them.
LAST_DAYS = 14
TOP = 10
_TIMES = ("run_median", "run_p95", "wait_median", "wait_p95")


@verb("report", *OF_LEDGERS, "connect_timeout_s", json_help="Print one JSON object: what the page is made of.")
@click.option("--html", metavar="FILE", help="Write one self-contained page instead; - is stdout.")
def command(conf: Settings, *, html: str | None, as_json: bool, since: str | None, no_merge: bool) -> VerbResult:
    """Show where the money went, drawn. The exit status is 4 if a host could not be asked."""
    if as_json and html is not None:
        raise UsageError("--json and --html: choose one")
    ask = not no_merge
    with waits_for(READS[ask]), merged(conf, since, note, ask=ask, here=ledgers_here()) as ledgers:
        found = ledgers.report()
        compared = as_figures(ledgers.comparison())
        document = as_document(found, compared)
        ledgers.add_pots(document)

    def show() -> None:
        if html is None:
            write(found, said=document["headline"])
            write_comparison(Sheet(), document)
            return
        from farmhand.cost.report_html import page

        if html == "-":
            render.write_bytes(page(document))
            return
        path = Path(os.path.expanduser(html))
        try:
            files.replace(path, page(document).encode(), mode=0o600)
        except OSError as error:
            raise NotConfigured(f"{path} cannot be written: {error.strerror}", hint="name another file") from None

    return VerbResult(document, show, ledgers.status)


def write(found: CostReport, sheet: Sheet | None = None, said: dict[str, Any] | None = None) -> None:
    """Print the sections of the HTML page, with bars: the verdict first, then trend and levers, then the details.

    `said` is the headline, if that has more than the figures.
    """
    sheet = sheet or Sheet()
    shown = as_figures(found.figures) | {"headline": said or headline(found.figures)}
    sheet.line(f"Farmhand report, {day_text(found.first)} to {day_text(found.last)} (UTC)", "bold")
    _head(sheet, shown)
    _trend(sheet, found)
    if found.figures.savings.requests:
        write_levers(sheet, shown)
        _saving(sheet, found)
    _groups(sheet, found)
    _spread(sheet, found, "Cost of a task (US$)", "cost", [plain(edge) for edge in COST_EDGES])
    edges = [duration(edge) for edge in SECOND_EDGES]
    _latency(sheet, found)
    _spread(sheet, found, "Time that tasks ran", "run", edges)
    _spread(sheet, found, "Time that tasks waited before", "wait", edges)
    _cache(sheet, found)
    _causes(sheet, found)
    _batches(sheet, found)
    write_unknown(sheet, shown)


def _sums(rows: Iterable[Any], key: str, value: str) -> Counter[Any]:
    """Return the sums of the rows' field `value`, by their field `key`."""
    sums: Counter[Any] = Counter()
    for row in rows:
        sums[getattr(row, key)] += getattr(row, value)
    return sums


def _head(sheet: Sheet, shown: dict[str, Any]) -> None:
    write_head(sheet, shown)
    whole = shown["whole"]
    sheet.line(f"{outcomes(whole)}; {counted(whole['retries'], 'retry', 'retries')}")
    if (ran := shown["compute"]) is not None:
        runs = counted(ran["runs"], "container")
        sheet.line(f"US$ {ran['total_usd']} besides for {runs} on AWS; {ran['with_model_usd']} with both")
    if (kept := shown["kept_local"]) is not None:
        sheet.line(f"US$ {kept['list_usd']}: {kept_local(kept)}")


def _trend(sheet: Sheet, found: CostReport) -> None:
    by_day = _sums(found.cells, "day", "spent_pico")
    days = sorted(by_day)[-LAST_DAYS:]
    title = f"Spend by day{f' (the last {LAST_DAYS} with any)' if len(by_day) > LAST_DAYS else ''}"
    rows = [(day_text(day), plain(by_day[day])) for day in days]
    sheet.section(title, ("day", "US$"), rows, [by_day[day] for day in days], money={1})
    spent = found.figures.spent
    pace = f"{money(spent.per_day_pico)} a day; this month {money(spent.month_pico)}"
    sheet.line(f"{pace}, at the pace of the last days {money(spent.projection_month_pico)}.")


def _groups(sheet: Sheet, found: CostReport) -> None:
    """Print the spending by model, and by each of GROUPINGS that tells anything."""
    tables = [("model", _spent(found.cells, "model", found.models))]
    for number, by in enumerate(GROUPINGS):
        tables.append((by, _spent([row for row in found.by_group if row.by == number], "group", found.groups)))
    for by, named in tables:
        if by == "model" or any(name for name, _, _ in named):
            what = by.replace("-", " ")
            more = f" (the dearest {TOP} of {len(named)})" if len(named) > TOP else ""
            rows = [(name or "(none)", shown) for name, shown, _ in named[:TOP]]
            bars = [spent for _, _, spent in named[:TOP]]
            sheet.section(f"Spend by {what}{more}", (what, "US$"), rows, bars, money={1})


def _spent(rows: Sequence[Any], key: str, names: list[str]) -> list[tuple[str, str, int]]:
    """Return name, amount (`+?` where requests have no known price) and pico-dollars of each, the dearest first."""
    unknown = _sums(rows, key, "unpriced")
    return [
        (names[one], plain(spent) + ("+?" if unknown[one] else ""), spent)
        for one, spent in _sums(rows, key, "spent_pico").most_common()
    ]


def _latency(sheet: Sheet, found: CostReport) -> None:
    rows = [
        (one.engine or "all", str(one.tasks), *(duration(getattr(one, name)) for name in _TIMES))
        for one in found.latency
    ]
    head = ("engine", "tasks", "ran: half in", "95 % in", "waited: half", "95 %")
    sheet.section("Latency: median and 95th percentile", head, rows)


def _saving(sheet: Sheet, found: CostReport) -> None:
    saved = _sums(found.saved, "baseline", "baseline_pico")
    saved.subtract(_sums(found.saved, "baseline", "spent_pico"))
    rows = [(name, plain(saved[number])) for number, name in enumerate(found.baselines)]
    if len(rows) > 1:
        sheet.section("Saved beside plain claude -p on each model in use", ("baseline", "US$"), rows, money={1})


def _spread(sheet: Sheet, found: CostReport, title: str, what: str, names: list[str]) -> None:
    """Print a distribution of tasks: `what` is one of SPREADS, `names` are the upper edges of its bars."""
    sums = _sums((row for row in found.spreads if row.what == SPREADS.index(what)), "bar", "tasks")
    bars = sorted(bar for bar in sums if bar >= 0)
    shown = [*range(bars[0], bars[-1] + 1)] if bars else []
    shown += [-1] if sums[-1] else []
    labels = [*(f"to {name}" for name in names), f"above {names[-1]}", "not known"]
    sheet.section(title, ("", "tasks"), [(labels[at], str(sums[at])) for at in shown], [sums[at] for at in shown])


def _cache(sheet: Sheet, found: CostReport) -> None:
    whole = found.figures.whole
    parts = {
        "read from the cache": whole.cache_read_input_tokens,
        "written to it": whole.cache_creation_input_tokens,
        "not cached": whole.input_tokens,
    }
    given = sum(parts.values())
    rows = [(name, str(part), f"{100 * part / given:.1f} %") for name, part in parts.items()] if given else []
    sheet.section("Cache hits", ("prompt tokens", "", ""), rows, list(parts.values()))


def _causes(sheet: Sheet, found: CostReport) -> None:
    tasks = _sums(found.by_cause, "cause", "tasks")
    retries = _sums(found.by_cause, "cause", "retries")
    both = (tasks + retries).most_common()
    names = ["succeeded in the end" if name == "succeeded" else name for name in found.causes]
    rows = [(names[cause], str(tasks[cause]), str(retries[cause])) for cause, _ in both]
    head = ("cause", "failed", "retries")
    none = "no task failed, and none was tried again"
    sheet.section("Failures and retries by cause", head, rows, [number for _, number in both], none=none)


def _batches(sheet: Sheet, found: CostReport) -> None:
    tasks = _sums(found.by_batch, "batch", "tasks")
    order = _sums(found.by_batch, "batch", "spent_pico").most_common(TOP)
    shown = _spent(found.by_batch, "batch", found.batches)[:TOP]
    rows = [
        (name or "(no batch)", amount, str(tasks[batch]))
        for (batch, _), (name, amount, _) in zip(order, shown, strict=True)
    ]
    title = f"Top batches ({len(rows)} of {found.batches_in_all})"
    sheet.section(title, ("batch", "US$", "tasks"), rows, [spent for _, _, spent in shown], money={1})
