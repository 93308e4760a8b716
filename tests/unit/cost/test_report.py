from __future__ import annotations

import json
from collections import Counter

from hypothesis import given, settings

from farmhand.cost.breakdown import Latency, latency
from farmhand.cost.report import (
    COST_EDGES,
    GROUPINGS,
    MORE,
    SPREADS,
    TOP_BATCHES,
    TOP_GROUPS,
    CostReport,
    as_document,
    report,
)
from farmhand.cost.rows import FinishedTask, LedgerCharge
from farmhand.cost.store import ContainerRuns
from farmhand.cost.summary import Basis
from tests.unit.cost.ledgers import DAY, NOW, TABLE, charge, charges, fill, finished, temporary_store
from tests.unit.cost.reports import EVIL, EVIL_MODEL, made_up


def _report(rows: list[LedgerCharge], tasks: list[FinishedTask], since_day: int = 0) -> CostReport:
    with temporary_store() as store:
        fill(store, "u1", rows, tasks)
        return report(store, TABLE, Basis(since_day, NOW, "claude-sonnet-5-5", {}, {}))


@settings(max_examples=30, deadline=None)
@given(charges())
def test_the_cubes_sum_up_to_the_figures(rows: list[LedgerCharge]) -> None:
    tasks = [
        FinishedTask(number=row.number, state="succeeded", model=row.model, engine=row.engine,
                 batch=row.batch, created_at=row.created_at, finished_at=row.created_at, cost_usd=row.cost_usd)
        for row in rows
    ]  # fmt: skip
    found = _report(rows, tasks)
    whole = found.figures.whole
    for name in ("spent_pico", "requests", "unpriced", "tasks", "failed", "retries"):
        assert sum(getattr(cell, name) for cell in found.cells) == getattr(whole, name), name
    assert sum(cell.input_tokens for cell in found.cells) == whole.input_tokens
    assert sum(cell.cache_read_input_tokens for cell in found.cells) == whole.cache_read_input_tokens
    assert sum(cell.spent_pico for cell in found.by_batch) == whole.spent_pico
    baseline = found.baselines.index("claude-sonnet-5-5")
    saved = [row for row in found.saved if row.baseline == baseline]
    assert sum(row.baseline_pico for row in saved) == found.figures.savings.baseline_pico
    assert sum(row.spent_pico for row in saved) == found.figures.savings.spent_pico
    for what in (0, 2):
        assert sum(row.tasks for row in found.spreads if row.what == what) == whole.tasks


def test_each_task_is_in_the_bar_of_its_cost_and_of_its_times() -> None:
    rows = [charge(1), charge(2, model="claude-next")]
    tasks = [
        FinishedTask(number=1, state="succeeded", model="claude-haiku-5-5", engine="api", created_at=NOW - 14,
                 started_at=NOW - 11, finished_at=NOW - 1, cost_usd=rows[0].cost_usd),
        FinishedTask(number=2, state="cancelled", error="cancelled", model="claude-next", engine="api",
                 created_at=NOW - 100_000, finished_at=NOW - 1),
    ]  # fmt: skip
    found = _report(rows, tasks)
    bars = {what: Counter[int]() for what in SPREADS}
    for row in found.spreads:
        bars[SPREADS[row.what]][row.bar] += row.tasks
    spent = found.cells[0].spent_pico
    assert bars["cost"] == {-1: 1, next(n for n, edge in enumerate(COST_EDGES) if spent <= edge): 1}
    assert bars["run"] == {6: 1}  # exactly 10 s, and one that never ran
    assert bars["wait"] == {5: 1, 14: 1}
    # One that was cancelled is no failure.
    assert found.by_cause == []
    assert [(cell.failed, cell.cancelled) for cell in found.cells] == [(0, 0), (0, 1)]


def test_retries_that_helped_have_a_cause_of_their_own_and_are_no_failures() -> None:
    found = made_up()
    sums = {
        name: tuple(
            sum(getattr(row, field) for row in found.by_cause if found.causes[row.cause] == name)
            for field in ("tasks", "retries")
        )
        for name in found.causes
    }
    assert sums == {"timeout": (3, 0), "succeeded": (0, 3)}


@settings(max_examples=30, deadline=None)
@given(finished())
def test_the_causes_are_those_of_the_failed_tasks_and_no_others(tasks: list[FinishedTask]) -> None:
    found = _report([], tasks)
    whole = found.figures.whole
    assert sum(row.tasks for row in found.by_cause) == whole.failed
    assert sum(row.retries for row in found.by_cause) == whole.retries
    assert sum(cell.cancelled for cell in found.cells) == whole.cancelled
    assert whole.cancelled == sum(task.state == "cancelled" and task.outcome != "refused" for task in tasks)
    for by in range(len(GROUPINGS)):
        assert sum(row.tasks for row in found.by_group if row.by == by) == whole.tasks


@settings(max_examples=30, deadline=None)
@given(charges())
def test_each_grouping_adds_up_and_names_what_was_used(rows: list[LedgerCharge]) -> None:
    found = _report(rows, [])
    for by, what in enumerate(GROUPINGS):
        mine = [row for row in found.by_group if row.by == by]
        assert sum(row.spent_pico for row in mine) == found.figures.whole.spent_pico, what
        names = {found.groups[row.group] for row in mine}
        if what == "engine":
            assert names == {row.engine for row in rows}
        if what == "work-class":
            assert names == {row.work_class for row in rows}
    assert set(found.baselines) <= {"claude-sonnet-5-5", *found.models}


def test_more_groups_than_are_kept_are_one_more() -> None:
    rows = [charge(no, labels={"run": str(no)}, factor=no) for no in range(1, TOP_GROUPS + 6)]
    found = _report(rows, [])
    labels = [row for row in found.by_group if GROUPINGS[row.by] == "label"]
    named = Counter({found.groups[row.group]: row.requests for row in labels})
    assert len(named) == TOP_GROUPS + 1
    assert (named[MORE], named[f"run={TOP_GROUPS + 5}"], sum(named.values())) == (5, 1, TOP_GROUPS + 5)


def test_percentiles_are_those_of_the_tasks_that_ran_by_engine() -> None:
    tasks = [
        FinishedTask(number=no, state="succeeded", model="claude-haiku-5-5", engine="cli" if no > 100 else "api",
                     created_at=NOW - 1000, started_at=NOW - 900, finished_at=NOW - 900 + no)
        for no in range(1, 121)
    ]  # fmt: skip
    tasks.append(
        FinishedTask(number=121, state="cancelled", model="m", engine="api", created_at=NOW - 9, finished_at=NOW)
    )
    with temporary_store() as store:
        fill(store, "u1", [], tasks)
        found = latency(store, 0)
        assert latency(store, int(NOW // DAY) + 1) == []
    shown = [(one.engine, one.tasks, one.run_median, one.run_p95, one.wait_median, one.wait_p95) for one in found]
    assert shown == [("", 120, 60, 114, 100, 100), ("api", 100, 50, 95, 100, 100), ("cli", 20, 110, 119, 100, 100)]
    assert [one.run_p95 for one in latency_of([2.5])] == [2.5]
    assert [(one.engine, one.tasks) for one in latency_of([1, 9])] == [("", 2)]


def latency_of(seconds: list[float]) -> list[Latency]:
    with temporary_store() as store:
        tasks = [
            FinishedTask(number=no, state="succeeded", model="m", engine="api", created_at=NOW, started_at=NOW,
                         finished_at=NOW + one)
            for no, one in enumerate(seconds, 1)
        ]  # fmt: skip
        fill(store, "u1", [], tasks)
        return latency(store, 0)


def test_days_before_since_are_in_nothing() -> None:
    rows = [charge(1, at=NOW), charge(2, at=NOW - 5 * DAY)]
    tasks = [
        FinishedTask(number=row.number, state="failed", error="timeout", model=row.model, engine="api",
                 created_at=row.created_at, finished_at=row.created_at)
        for row in rows
    ]  # fmt: skip
    found = _report(rows, tasks, since_day=int(NOW // DAY) - 1)
    for cube in (found.cells, found.saved, found.spreads, found.by_cause, found.by_batch):
        assert {row.day for row in cube} == {int(NOW // DAY)}
    assert found.first == int(NOW // DAY) - 1


def test_only_the_dearest_batches_are_in_it_and_their_number_is_told() -> None:
    rows = [charge(no, batch=f"b{no}", factor=no) for no in range(1, TOP_BATCHES + 6)]
    found = _report(rows, [])
    assert (len(found.batches), found.batches_in_all) == (TOP_BATCHES, TOP_BATCHES + 5)
    assert found.batches[0] == f"b{TOP_BATCHES + 5}"
    assert "b5" not in found.batches


def test_nothing_yet_is_a_report_too() -> None:
    found = _report([], [])
    assert found.cells == []
    assert found.first == found.last == int(NOW // DAY)
    json.dumps(as_document(found))


def test_the_document_holds_money_exactly_and_names_as_they_are() -> None:
    shown = as_document(made_up())
    assert json.loads(json.dumps(shown)) == shown
    assert EVIL in shown["batches"]
    assert EVIL_MODEL in shown["models"]
    at = shown["cells"]["columns"].index("spent_pico")
    assert sum(int(row[at]) for row in shown["cells"]["rows"]) == made_up().figures.whole.spent_pico
    assert all(isinstance(row[at], str) for row in shown["cells"]["rows"])


def test_containers_on_aws_are_a_cube_of_their_own() -> None:
    with temporary_store() as store:
        fill(store, "u1", [charge()])
        runs = [ContainerRuns(NOW - DAY, NOW, 2, 120, 3_000_000_000_001), ContainerRuns(0.0, 0.0, 1, 0, None)]
        store.ran("s3://b/k", "aws-prod", "b1", runs, settled=True)
        found = report(store, TABLE, Basis(0, NOW, "claude-sonnet-5-5", {}, {}))
    assert found.hosts == ["aws-prod", "farm1"]
    assert [tuple(row) for row in found.containers] == [(int(NOW // DAY) - 1, 0, 2, 3_000_000_000_001)]
    assert found.figures.compute is not None
    assert (found.figures.compute.total_pico, found.figures.compute.unknown_runs) == (3_000_000_000_001, 1)
    shown = as_document(found, {"ways": []})
    assert shown["containers"]["rows"][0][3] == "3000000000001"
    assert (shown["comparison"], as_document(found)["comparison"]) == ({"ways": []}, None)
