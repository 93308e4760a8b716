"""The data of `farmhand report`: small cubes by day, host and model, which a page can filter without the ledgers.

Days are UTC, counted from 1970. Hosts, models, causes and batches are given by their index in the report's own lists.
"""

from __future__ import annotations

from collections import Counter, defaultdict, namedtuple
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import msgspec

from farmhand.core.money import plain
from farmhand.core.prices import PriceTable
from farmhand.core.readable import duration
from farmhand.cost import queries
from farmhand.cost.breakdown import Latency, label_text, latency
from farmhand.cost.compute import read_compute
from farmhand.cost.queries import DAY_S, Spend, Sums, Work
from farmhand.cost.savings import savings
from farmhand.cost.store import CostStore
from farmhand.cost.summary import Basis, Figures, document, figures, headline

DOCUMENT_VERSION = 1
#: Maximum number of batches in the report, most expensive first.
TOP_BATCHES = 200
#: What the spending is grouped by, beside days, hosts, models and batches; and the most groups of each.
GROUPINGS = ("label", "work-class", "engine", "place")
TOP_GROUPS = 200
#: Upper bounds of the bars of a distribution: a task's cost in pico-dollars, its seconds. One more bar is for the rest.
COST_EDGES = tuple(number * 10**power for power in range(7, 13) for number in (1, 2, 5))
SECOND_EDGES = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400)
#: Quantities with a distribution. Bar -1 of `cost` holds the tasks with an unknown cost.
SPREADS = ("cost", "run", "wait")
#: The name of the groups beyond TOP_GROUPS.
MORE = "(more)"


#: Rows of the cubes. Each begins with its cell: one day, host and model. Cell: the cell's sums.
Cell = namedtuple(
    "Cell",
    "day host model spent_pico requests unpriced input_tokens output_tokens cache_creation_input_tokens"
    " cache_read_input_tokens tasks failed cancelled refused retries uncertain",
)
#: The cost of a cell's comparable requests, and their cost with plain `claude -p` on a baseline model.
Saved = namedtuple("Saved", "day host model baseline baseline_pico spent_pico")
#: Finished tasks of a cell within one bar of the distribution `what` (see SPREADS).
Spread = namedtuple("Spread", "day host model what bar tasks")
#: Tasks of a cell that failed, or needed retries, by the cause of their end. All causes together are the failed tasks.
Cause = namedtuple("Cause", "day host model cause tasks retries")
#: The sums of one batch within a cell.
BatchCell = namedtuple("BatchCell", "batch day host model spent_pico requests unpriced tasks failed")
#: The sums of one group within a cell: `by` is one of GROUPINGS, `group` one of the report's groups.
GroupCell = namedtuple("GroupCell", "by group day host model spent_pico requests unpriced tasks failed")
#: Containers on AWS that began on a day, and what they cost besides the model.
Containers = namedtuple("Containers", "day host runs fargate_pico")
#: The columns of each cube, by its name in the report.
CUBES = {
    "cells": Cell._fields,
    "saved": Saved._fields,
    "spreads": Spread._fields,
    "by_cause": Cause._fields,
    "by_batch": BatchCell._fields,
    "by_group": GroupCell._fields,
    "containers": Containers._fields,
}


class CostReport(msgspec.Struct, kw_only=True):
    """All data of the report. `first` and `last` are days; `batches` are the most expensive of `batches_in_all`.

    `baselines` are the models that the work is compared with: the one of the settings, and those that were used.
    """

    figures: Figures
    first: int
    last: int
    hosts: list[str]
    models: list[str]
    baselines: list[str]
    causes: list[str]
    batches: list[str]
    batches_in_all: int
    groups: list[str]
    latency: list[Latency]
    cells: list[Cell]
    saved: list[Saved]
    spreads: list[Spread]
    by_cause: list[Cause]
    by_batch: list[BatchCell]
    by_group: list[GroupCell]
    containers: list[Containers]


def report(store: CostStore, table: PriceTable, basis: Basis) -> CostReport:
    """Return the report of everything in the store."""
    everything = queries.read(store, table, "batch")
    sums = everything.since(basis.since_day)
    ran = [row for row in read_compute(store, basis.since_day) if row.pico is not None]
    named: dict[str, set[str]] = {
        kind: {getattr(row, kind) for row in (*sums.spend, *sums.work)} for kind in ("host", "model")
    }
    named["host"] |= {row.host for row in ran}
    hosts, models = ({name: place for place, name in enumerate(sorted(names))} for names in named.values())

    def at(row: Spend | Work) -> tuple[int, int, int]:
        return row.day, hosts[row.host], models[row.model]

    cells = [
        Cell(*place, *(getattr(part, name) for name in Cell._fields[3:]))
        for place, part in sorted(queries.totals(sums, at).items(), key=itemgetter(0))
    ]
    parts = queries.parts(sums, "batch")
    batches = {part.key: place for place, part in enumerate(parts[:TOP_BATCHES])}
    first, today = everything.first_day, int(basis.now // DAY_S)
    causes, by_cause = _causes(sums.work, at)
    groups, by_group = _by_group(store, table, basis.since_day, at)
    baselines = [basis.baseline, *(name for name in table.current if name in models and name != basis.baseline)]
    return CostReport(
        figures=figures(store, table, everything, basis, by="model"),
        first=min([today if first is None else max(basis.since_day, first), *(row.day for row in ran)]),
        last=max([today, *(cell.day for cell in cells)]),
        hosts=list(hosts),
        models=list(models),
        baselines=baselines,
        causes=causes,
        batches=list(batches),
        batches_in_all=len(parts),
        groups=groups,
        latency=latency(store, basis.since_day),
        cells=cells,
        saved=_saved(sums.of_farm().spend, at, table, baselines),
        spreads=_spreads(store, basis.since_day, hosts, models),
        by_cause=by_cause,
        by_batch=_by_batch(sums, at, batches),
        by_group=by_group,
        containers=[Containers(row.day, hosts[row.host], row.runs, row.pico) for row in ran],
    )


_Place = Callable[[Spend | Work], tuple[int, int, int]]


def _saved(spend: list[Spend], at: _Place, table: PriceTable, baselines: list[str]) -> list[Saved]:
    """Compare with every baseline, with the same sums as `farmhand cost` uses for its one."""
    groups: defaultdict[tuple[int, int, int], list[Spend]] = defaultdict(list)
    for group in queries.price_groups((row for row in spend if row.pico is not None), table, at):
        groups[at(group)].append(group)
    found = []
    for place in sorted(groups):
        for number, baseline in enumerate(baselines):
            one = savings(groups[place], table, baseline)
            found.append(Saved(*place, number, one.baseline_pico, one.spent_pico))
    return found


def _causes(work: list[Work], at: _Place) -> tuple[list[str], list[Cause]]:
    """Return why tasks failed. Retries of tasks that did not fail have the state as their cause, and no tasks."""
    ended = [
        (row.error or row.state if row.state == "failed" else row.state, row)
        for row in work
        if row.state == "failed" or row.retries
    ]
    causes = sorted({cause for cause, _ in ended})
    tasks, retries = Counter[tuple[int, int, int, int]](), Counter[tuple[int, int, int, int]]()
    for cause, row in ended:
        place = (*at(row), causes.index(cause))
        tasks[place] += row.tasks if row.state == "failed" else 0
        retries[place] += row.retries
    return causes, [Cause(*place, tasks[place], retries[place]) for place in sorted(tasks)]


def _by_batch(sums: Sums, at: _Place, batches: dict[str, int]) -> list[BatchCell]:
    shown = Sums(
        [row for row in sums.spend if row.key in batches],
        [row for row in sums.work if row.key in batches],
    )
    found = queries.totals(shown, lambda row: (batches[row.key], *at(row)))
    return [
        BatchCell(*place, part.spent_pico, part.requests, part.unpriced, part.tasks, part.failed)
        for place, part in sorted(found.items(), key=itemgetter(0))
    ]


def _by_group(store: CostStore, table: PriceTable, since_day: int, at: _Place) -> tuple[list[str], list[GroupCell]]:
    """Return the names of the groups, and the sums by GROUPINGS. Of the groups beyond TOP_GROUPS there is one sum."""
    names: dict[str, int] = {}
    cells = []
    for by, what in enumerate(GROUPINGS):
        sums = queries.read(store, table, what).since(since_day)
        kept = {part.key for part in queries.parts(sums, what)[:TOP_GROUPS]}

        def named(row: Spend | Work, what: str = what, kept: set[str] = kept) -> str:
            key = row.engine if what == "engine" else row.key
            return label_text(key) if key in kept else MORE

        found = queries.totals(sums, lambda row: (names.setdefault(named(row), len(names)), *at(row)))
        cells += [
            GroupCell(by, *place, part.spent_pico, part.requests, part.unpriced, part.tasks, part.failed)
            for place, part in sorted(found.items(), key=itemgetter(0))
        ]
    return list(names), cells


def _bar(value: str, edges: tuple[float, ...]) -> str:
    """Return SQL for the index of the bar that contains `value`."""
    cases = " ".join(f"WHEN {value} <= {edge} THEN {number}" for number, edge in enumerate(edges))
    return f"CASE WHEN {value} IS NULL THEN -1 {cases} ELSE {len(edges)} END"


def _spreads(store: CostStore, since_day: int, hosts: dict[str, int], models: dict[str, int]) -> list[Spread]:
    """Compute the distributions from a single scan of the finished tasks."""
    query = (
        f"SELECT CAST(finished_at / {DAY_S} AS INTEGER), host, model, {_bar('done.pico', COST_EDGES)},"  # noqa: S608  (numbers of this module)
        f" {_bar('finished_at - started_at', SECOND_EDGES)},"
        f" {_bar('coalesce(started_at, finished_at) - created_at', SECOND_EDGES)}, count(*)"
        " FROM done JOIN ledger ON id = ledger WHERE finished_at >= ? GROUP BY 1, 2, 3, 4, 5, 6"
    )
    sums = Counter[tuple[int, int, int, int, int]]()
    for day, host, model, *bars, tasks in store.rows(query, (since_day * DAY_S,)):
        for what, bar in enumerate(bars):
            # A task that never started has no run time and is skipped; a task of unknown cost still counts.
            if bar >= 0 or SPREADS[what] == "cost":
                sums[day, hosts[host], models[model], what, bar] += tasks
    return [Spread(*place, tasks) for place, tasks in sorted(sums.items())]


def as_document(found: CostReport, comparison: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the report as JSON data: cubes as columns and rows, amounts as exact strings in US$ or pico-dollars.

    `comparison` is the document of a Comparison.

    Pico-dollars in rows are strings of whole numbers, since they may exceed the exact range of JavaScript's numbers.
    """
    own = ("figures", "latency")
    cubes = {name: _cube(columns, getattr(found, name)) for name, columns in CUBES.items()}
    return {
        "version": DOCUMENT_VERSION,
        **{name: getattr(found, name) for name in found.__struct_fields__ if name not in (*own, *cubes)},
        "headline": headline(found.figures),
        "groupings": list(GROUPINGS),
        "latency": [msgspec.to_builtins(one) for one in found.latency],
        "cost_edges_usd": [plain(edge) for edge in COST_EDGES],
        "second_edges": list(SECOND_EDGES),
        "second_names": second_names(),
        **cubes,
        "figures": document(found.figures),
        "comparison": comparison,
    }


def second_names() -> list[str]:
    """Return the names of the bars of SECOND_EDGES."""
    edges = [duration(edge) for edge in SECOND_EDGES]
    return [*(f"to {edge}" for edge in edges), f"above {edges[-1]}"]


def _cube(columns: tuple[str, ...], rows: list[Any]) -> dict[str, Any]:
    money = {place for place, name in enumerate(columns) if name.endswith("_pico")}
    return {
        "columns": list(columns),
        "rows": [[str(value) if place in money else value for place, value in enumerate(row)] for row in rows],
    }
