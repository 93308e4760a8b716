from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings

from farmhand.core.errors import UsageError
from farmhand.cost import queries
from farmhand.cost.rows import FinishedTask, LedgerCharge
from farmhand.cost.store import CostStore
from farmhand.cost.summary import Basis, Figures, document, figures
from tests.unit.cost import ledgers
from tests.unit.cost.ledgers import DAY, NOW, TABLE, TODAY, charge, fill, new_store

AMOUNT = re.compile(r"-?\d+\.\d{2,12}")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CostStore]:
    opened = new_store(tmp_path / "cost.db")
    yield opened
    opened.close()


def all_of(store: CostStore, *, by: str = "model", **options: Any) -> Figures:
    """The figures with the usual options, but for those given."""
    basis = Basis(0, NOW, "claude-sonnet-5-5", {}, {})._replace(**options)
    return figures(store, TABLE, queries.read(store, TABLE, by), basis, by=by, reprice=True)


def task(no: int, at: float = NOW, state: str = "succeeded", **more: Any) -> FinishedTask:
    """A finished task."""
    return FinishedTask(number=no, state=state, model="m", engine="api", created_at=at, finished_at=at, **more)


def scalars(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(name, value) of everything in a document."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from scalars(part, key)
    elif isinstance(value, list):
        for part in value:
            yield from scalars(part, name)
    else:
        yield name, value


@settings(max_examples=30, deadline=None)
@given(rows=ledgers.charges(), tasks=ledgers.finished())
def test_the_document_has_no_float_and_its_parts_are_the_whole(
    rows: list[LedgerCharge], tasks: list[FinishedTask]
) -> None:
    with TemporaryDirectory() as directory:
        store = new_store(f"{directory}/cost.db")
        fill(store, "u1", rows, tasks)
        found = document(all_of(store, boxes={"farm1": 24 * 10**12}))
        store.close()
    # Through JSON, as a reader sees it.
    shown = json.loads(json.dumps(found))
    for name, value in scalars(shown):
        assert not isinstance(value, float), name
        if "usd" in name.split("_") and value is not None:
            assert AMOUNT.fullmatch(value), f"{name}: {value}"
    total = sum((row.cost_usd or Decimal(0) for row in rows), Decimal(0))
    assert Decimal(shown["spent"]["total_usd"]) == total
    for parts in (shown["groups"], shown["days"], [shown["whole"]]):
        assert sum(Decimal(part["spent_usd"]) for part in parts) == total
    saved = shown["savings"]
    savings = sum(Decimal(lever["saving_usd"]) for lever in saved["levers"])
    assert savings == Decimal(saved["saving_usd"]) == Decimal(saved["baseline_usd"]) - Decimal(saved["spent_usd"])


def test_nothing_at_all(store: CostStore) -> None:
    found = all_of(store)
    assert (found.spent.total_pico, found.spent.projection_month_pico, found.whole.tasks) == (0, 0, 0)
    assert (found.target.factor, found.target.verdict) == (None, "unknown")
    assert found.groups == []


def test_days_month_and_projection(store: CostStore) -> None:
    one = charge().cost_pico or 0
    days = {0: 5, 1: 7, 2: 7, 8: 100, 30: 1000}
    rows = [charge(at=NOW - back * DAY) for back, count in days.items() for _ in range(count)]
    for no, row in enumerate(rows, 1):
        row.number = no
    fill(store, "u1", rows)
    spent = all_of(store).spent
    # The 24th: 5 today, 14 on the two days before, 100 on the 16th; the 1,000 were in October.
    assert spent.today_pico == 5 * one
    assert spent.month_pico == 119 * one
    # Seven whole days before today: 14 requests, so 2 a day for the 6 days that are left.
    assert spent.projection_month_pico == (119 + 12) * one
    assert (spent.since, spent.days) == ("2026-10-25", 31)
    assert spent.per_day_pico == 1119 * one // 31
    assert spent.budget_month_pico is None
    later = all_of(store, since_day=TODAY).spent
    assert (later.since, later.days, later.total_pico) == ("2026-11-24", 1, 5 * one)


def test_the_first_day_goes_on_as_it_began(store: CostStore) -> None:
    fill(store, "u1", [charge()])
    spent = all_of(store).spent
    assert spent.projection_month_pico == 7 * (charge().cost_pico or 0)


def test_budgets_and_hosts_that_are_down(store: CostStore) -> None:
    fill(store, "u1", [charge()])
    number = store.ledger("u1", "farm1")[0]
    budget = '{"limit_usd":1.1,"spent_usd":0.3,"reserved_usd":0.1,"day":"2026-11-24"}'
    store.merged(number, NOW - 60, budget)
    found = all_of(store, errors={"farm1": "no route", "farm2": "down"})
    assert [(b.host, b.limit_pico, b.left_pico) for b in found.budgets] == [("farm1", 1_100 * 10**9, 700 * 10**9)]
    assert found.spent.budget_month_pico == 33 * 10**12
    assert [(h.host, h.error, h.merged_at) for h in found.hosts] == [
        ("farm1", "no route", NOW - 60),
        ("farm2", "down", None),
    ]
    assert document(found)["hosts"][0]["merged_at"] == "2026-11-24T11:59:00Z"


def test_charges_that_a_host_forgot_are_counted(store: CostStore) -> None:
    fill(store, "u1", [charge(3), charge(4)])
    assert [state.missing for state in all_of(store).hosts] == [2]


@pytest.mark.parametrize(
    ("model", "engine", "factor", "verdict"),
    [("claude-haiku-5-5", "cli", "20.00", "met"), ("claude-sonnet-5-5", "cli", "1.00", "missed")],
)
def test_the_target_is_judged_as_it_is(store: CostStore, model: str, engine: str, factor: str, verdict: str) -> None:
    fill(store, "u1", [charge(model=model, engine=engine)])
    target = all_of(store).target
    assert (target.factor, target.verdict) == (factor, verdict)
    assert target.factor_with_box is None


def test_the_target_can_be_beaten_and_the_box_counts(store: CostStore) -> None:
    fill(store, "u1", [charge()], [task(1)])
    target = all_of(store, boxes={"farm1": 24 * 10**12}).target
    assert target.verdict == "above"
    assert (target.factor_with_box, target.verdict_with_box) == ("0.00", "missed")


def test_the_box_s_break_even(store: CostStore) -> None:
    fill(store, "u1", [charge(1), charge(2)], [task(1), task(2)])
    found = all_of(store, boxes={"farm1": 24 * 10**12})
    saving = found.savings.saving_pico
    even = found.box.break_even_tasks_a_month
    assert even is not None
    assert even * saving >= 24 * 10**12 * 2 > (even - 1) * saving
    assert (found.box.tasks_a_month, found.box.verdict) == (60, "does not pay for itself at this pace")
    cheap = all_of(store, boxes={"farm1": 1}).box
    assert (cheap.break_even_tasks_a_month, cheap.verdict) == (1, "pays for itself")
    unknown = all_of(store, boxes={"farm1": 10**12, "farm2": None}).box
    assert (unknown.usd_month_pico, unknown.hosts_without_price) == (None, ["farm2"])
    loss = all_of(store, boxes={"farm1": 10**12}, baseline="claude-haiku-5-5", since_day=TODAY).box
    assert loss.break_even_tasks_a_month is not None


def test_no_number_of_tasks_pays_for_a_box_that_saves_nothing(store: CostStore) -> None:
    fill(store, "u1", [charge(model="claude-fable-5-1", engine="cli")], [task(1)])
    box = all_of(store, boxes={"farm1": 24 * 10**12}).box
    assert (box.break_even_tasks_a_month, box.verdict) == (None, "never: a task saves nothing")


def test_what_is_not_known_is_said(store: CostStore) -> None:
    fill(store, "u1", [charge(model="claude-next")], [task(1, uncertain=2, state="failed", error="timeout")])
    found = all_of(store)
    assert [(u.model, u.requests, u.input_tokens) for u in found.unpriced] == [("claude-next", 1, 1000)]
    assert (found.whole.uncertain, found.whole.failed, found.whole.spent_pico) == (2, 1, 0)
    assert found.repriced_unpriced == 1


def test_recorded_costs_stay_and_are_repriced_beside(store: CostStore) -> None:
    fill(store, "u1", [charge(factor=3)])
    found = all_of(store)
    one = charge().cost_pico or 0
    assert (found.spent.total_pico, found.repriced_pico) == (3 * one, one)


def test_the_key_of_a_group_is_checked(store: CostStore) -> None:
    for by in ("colour", "label:", 'label:a"b', "Model"):
        with pytest.raises(UsageError, match="not something to group by"):
            all_of(store, by=by)
