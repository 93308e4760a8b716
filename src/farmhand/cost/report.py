"""What `farmhand report` draws: small cubes by day, host and model, so that a page can filter them without the ledgers.

SQL does the summing: most of it over the sums that the store keeps, the distributions in one walk over the finished
tasks. Money is whole pico-dollars. Days are UTC, counted since 1970; hosts, models, causes and batches stand by their
place in the report's own lists.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from farmhand.core.money import plain
from farmhand.core.prices import PriceTable
from farmhand.cost import queries
from farmhand.cost.queries import DAY_S, FAILED, TASKS
from farmhand.cost.savings import Group, savings
from farmhand.cost.store import CostStore
from farmhand.cost.summary import Figures, document

DOCUMENT_VERSION = 1
#: So many of the dearest batches are in the report.
TOP_BATCHES = 200
#: Upper ends of the bars of a distribution: a task's cost in pico-dollars, its seconds. A last bar has what is above.
COST_EDGES = tuple(number * 10**power for power in range(7, 13) for number in (1, 2, 5))
SECOND_EDGES = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400)
#: What is distributed. The bar -1 of `cost` has the tasks whose cost is not known.
SPREADS = ("cost", "run", "wait")


class Cell(NamedTuple):
    """The sums of one day, host and model; `fresh`, `output`, `written`, `read` are tokens."""

    day: int
    host: int
    model: int
    spent_pico: int
    requests: int
    unpriced: int
    fresh: int
    output: int
    written: int
    read: int
    tasks: int
    failed: int
    retries: int
    uncertain: int


class Saved(NamedTuple):
    """What the requests of a cell that can be compared cost, and would have cost as plain `claude -p` on a baseline."""

    day: int
    host: int
    model: int
    baseline: int
    baseline_pico: int
    spent_pico: int


class Spread(NamedTuple):
    """Finished tasks of a cell within one bar of the distribution `what` (see SPREADS)."""

    day: int
    host: int
    model: int
    what: int
    bar: int
    tasks: int


class Cause(NamedTuple):
    """Tasks of a cell that did not succeed, or only after retries, by why they ended."""

    day: int
    host: int
    model: int
    cause: int
    tasks: int
    retries: int


class BatchCell(NamedTuple):
    """The sums of one batch within a cell."""

    batch: int
    day: int
    host: int
    model: int
    spent_pico: int
    requests: int
    tasks: int
    failed: int


class CostReport(msgspec.Struct, kw_only=True):
    """All that is drawn. `first` and `last` are days; `batches` are the dearest of `batches_in_all`."""

    figures: Figures
    first: int
    last: int
    hosts: list[str]
    models: list[str]
    baselines: list[str]
    causes: list[str]
    batches: list[str]
    batches_in_all: int
    cells: list[Cell]
    saved: list[Saved]
    spreads: list[Spread]
    by_cause: list[Cause]
    by_batch: list[BatchCell]


class _Index:
    """A list that grows, and each text's place in it."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def __call__(self, text: str | None) -> int:
        return self._places.setdefault(text or "", len(self._places))

    @property
    def texts(self) -> list[str]:
        return list(self._places)


_HOST = "(SELECT host FROM ledger WHERE id = x.ledger)"
_MODEL = "(SELECT text FROM word WHERE id = x.model)"


def report(store: CostStore, table: PriceTable, found: Figures, *, since_day: int, now: float) -> CostReport:
    """The report since a day (since 1970); `found` are the figures of the same days."""
    hosts, models, causes = _Index(), _Index(), _Index()
    batches, in_all = _top_batches(store, since_day)
    first = queries.first_day(store)
    today = int(now // DAY_S)
    cells = _cells(store, since_day, hosts, models)
    return CostReport(
        figures=found,
        first=today if first is None else max(since_day, first),
        last=max([today, *(cell.day for cell in cells)]),
        baselines=list(table.current),
        batches=[name for _, name in batches],
        batches_in_all=in_all,
        cells=cells,
        saved=_saved(store, table, since_day, hosts, models),
        spreads=_spreads(store, since_day, hosts, models),
        by_cause=_causes(store, since_day, hosts, models, causes),
        by_batch=_by_batch(store, since_day, [word for word, _ in batches], hosts, models),
        hosts=hosts.texts,
        models=models.texts,
        causes=causes.texts,
    )


def _cells(store: CostStore, since_day: int, hosts: _Index, models: _Index) -> list[Cell]:
    query = (
        "SELECT day, host, model, sum(pico), sum(requests), sum(unpriced), sum(fresh), sum(output), sum(written),"  # noqa: S608  (names from this module)
        " sum(read), sum(tasks), sum(failed), sum(retries), sum(uncertain) FROM ("
        f"SELECT day, {_HOST} AS host, {_MODEL} AS model, pico, requests, iif(priced, 0, requests) AS unpriced, fresh,"
        " output, written, read, 0 AS tasks, 0 AS failed, 0 AS retries, 0 AS uncertain FROM spend AS x WHERE day >= ?"
        f" UNION ALL SELECT day, {_HOST}, {_MODEL}, 0, 0, 0, 0, 0, 0, 0, {TASKS}, {FAILED}, retries, uncertain"
        " FROM work AS x WHERE day >= ?) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    rows = store.rows(query, (since_day, since_day))
    return [Cell(row[0], hosts(row[1]), models(row[2]), *row[3:]) for row in rows]


def _saved(store: CostStore, table: PriceTable, since_day: int, hosts: _Index, models: _Index) -> list[Saved]:
    """Against every current model: the same sums as `farmhand cost` has of its one baseline."""
    query = (
        f"SELECT day, {_HOST}, {_MODEL}, (SELECT text FROM word WHERE id = x.engine), economy, band, sum(requests),"  # noqa: S608  (names from this module)
        " sum(fresh), sum(output), sum(written), sum(written_1h), sum(read), sum(pico) FROM spend AS x"
        " WHERE day >= ? AND priced GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3"
    )
    sums: dict[tuple[int, int, int, int], tuple[int, int]] = {}
    for day, host, model, engine, economy, band, *sizes in store.rows(query, (since_day,)):
        names = ("requests", "fresh", "output", "written", "written_1h", "read", "pico")
        prompt = store.breaks[band - 1] + 1 if band else 0
        group = Group(
            at=day * DAY_S,
            model=model,
            engine=engine,
            economy=bool(economy),
            prompt=prompt,
            **dict(zip(names, sizes, strict=True)),
        )
        for number, baseline in enumerate(table.current):
            one = savings([group], table, baseline)
            key = (day, hosts(host), models(model), number)
            usual, spent = sums.get(key, (0, 0))
            sums[key] = (usual + one.baseline_pico, spent + one.spent_pico)
    return [Saved(*key, *both) for key, both in sums.items()]


def _bar(value: str, edges: tuple[float, ...]) -> str:
    """The SQL of the place of `value` among the bars."""
    cases = " ".join(f"WHEN {value} <= {edge} THEN {number}" for number, edge in enumerate(edges))
    return f"CASE WHEN {value} IS NULL THEN -1 {cases} ELSE {len(edges)} END"


def _spreads(store: CostStore, since_day: int, hosts: _Index, models: _Index) -> list[Spread]:
    """One walk over the finished tasks, folded to few rows at once; the distributions are sums over those."""
    store.rows("DROP TABLE IF EXISTS temp.report_spread")
    store.rows(
        "CREATE TEMP TABLE report_spread AS"  # noqa: S608  (numbers of this module)
        f" SELECT CAST(finished / 86400 AS INTEGER) AS day, ledger, model, {_bar('pico', COST_EDGES)} AS cost,"
        f" {_bar('finished - started', SECOND_EDGES)} AS run,"
        f" {_bar('coalesce(started, finished) - created', SECOND_EDGES)} AS wait, count(*) AS tasks"
        " FROM done WHERE finished >= ? GROUP BY 1, 2, 3, 4, 5, 6",
        (since_day * DAY_S,),
    )
    found = []
    for number, what in enumerate(SPREADS):
        # A task that never started has no run time, but one whose cost is not known has a cost.
        which = "" if what == "cost" else f" WHERE {what} >= 0"
        query = (
            f"SELECT day, {_HOST}, {_MODEL}, {what}, sum(tasks) FROM report_spread AS x{which}"  # noqa: S608  (names from this module)
            " GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
        )
        found += [Spread(day, hosts(h), models(m), number, bar, tasks) for day, h, m, bar, tasks in store.rows(query)]
    store.rows("DROP TABLE temp.report_spread")
    return found


def _causes(store: CostStore, since_day: int, hosts: _Index, models: _Index, causes: _Index) -> list[Cause]:
    """Why tasks ended that did not succeed; those that did after retries have the cause `succeeded`."""
    state = "(SELECT text FROM word WHERE id = x.state)"
    error = "(SELECT text FROM word WHERE id = x.error)"
    query = (
        f"SELECT day, {_HOST}, {_MODEL}, iif({error} = '', {state}, {error}), sum(tasks), sum(retries)"  # noqa: S608  (names from this module)
        f" FROM work AS x WHERE day >= ? AND ({state} != 'succeeded' OR retries > 0)"
        " GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
    )
    return [
        Cause(day, hosts(host), models(model), causes(cause), tasks if cause != "succeeded" else 0, retries)
        for day, host, model, cause, tasks, retries in store.rows(query, (since_day,))
    ]


def _top_batches(store: CostStore, since_day: int) -> tuple[list[tuple[int, str]], int]:
    """(number and name of the dearest batches, how many there are)."""
    query = (
        "SELECT batch, (SELECT text FROM word WHERE id = batch) AS name, sum(pico), count(*) OVER () FROM"
        " (SELECT batch, pico FROM spend WHERE day >= ? UNION ALL SELECT batch, 0 FROM work WHERE day >= ?)"
        " GROUP BY batch ORDER BY 3 DESC, 2 LIMIT ?"
    )
    rows = store.rows(query, (since_day, since_day, TOP_BATCHES))
    return [(word, name) for word, name, _, _ in rows], rows[0][3] if rows else 0


def _by_batch(
    store: CostStore, since_day: int, batches: list[int], hosts: _Index, models: _Index
) -> list[BatchCell]:  # fmt: skip
    marks = ", ".join("?" * len(batches))
    query = (
        "SELECT batch, day, host, model, sum(pico), sum(requests), sum(tasks), sum(failed) FROM ("  # noqa: S608  (names from this module)
        f"SELECT batch, day, {_HOST} AS host, {_MODEL} AS model, pico, requests, 0 AS tasks, 0 AS failed"
        f" FROM spend AS x WHERE day >= ? AND batch IN ({marks}) UNION ALL"
        f" SELECT batch, day, {_HOST}, {_MODEL}, 0, 0, {TASKS}, {FAILED} FROM work AS x"
        f" WHERE day >= ? AND batch IN ({marks})) GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
    )
    places = {word: place for place, word in enumerate(batches)}
    rows = store.rows(query, (since_day, *batches, since_day, *batches))
    return [BatchCell(places[row[0]], row[1], hosts(row[2]), models(row[3]), *row[4:]) for row in rows]


def as_document(found: CostReport) -> dict[str, Any]:
    """The report as it stands in JSON: cubes as columns and rows; amounts in US$ exact strings, pico-dollars too.

    Pico-dollars in rows are strings of whole numbers: they may be greater than what a page's numbers hold exactly.
    """
    cubes: dict[str, tuple[type[Any], list[Any]]] = {
        "cells": (Cell, found.cells),
        "saved": (Saved, found.saved),
        "spreads": (Spread, found.spreads),
        "by_cause": (Cause, found.by_cause),
        "by_batch": (BatchCell, found.by_batch),
    }
    names = ("first", "last", "hosts", "models", "baselines", "causes", "batches", "batches_in_all")
    return {
        "version": DOCUMENT_VERSION,
        **{name: getattr(found, name) for name in names},
        "cost_edges_usd": [plain(edge) for edge in COST_EDGES],
        "second_edges": list(SECOND_EDGES),
        **{name: _cube(kind._fields, rows) for name, (kind, rows) in cubes.items()},
        "figures": document(found.figures),
    }


def _cube(columns: tuple[str, ...], rows: list[Any]) -> dict[str, Any]:
    money = {place for place, name in enumerate(columns) if name.endswith("_pico")}
    return {
        "columns": list(columns),
        "rows": [[str(value) if place in money else value for place, value in enumerate(row)] for row in rows],
    }
