from __future__ import annotations

import asyncio
import random
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from farmhand.core.task import FullBudget
from farmhand.meter.budget import Budget, BudgetSpent, Reservation

PICO = st.integers(0, 100)


def test_a_reservation_is_taken_and_settled() -> None:
    budget = Budget("task", 100)
    budget.reserve(60)
    assert (budget.fits(40), budget.fits(41), budget.reserved_pico) == (True, False, 60)
    budget.settle(60, 10)
    assert (budget.fits(90), budget.fits(91), budget.spent_pico, budget.reserved_pico) == (True, False, 10, 0)
    assert not budget.spent_out


def test_a_refusal_names_the_budget_and_takes_nothing() -> None:
    budget = Budget("batch nightly", 10**12, spent_pico=999_000_000_000)
    with pytest.raises(BudgetSpent) as refusal:
        budget.reserve(2_000_000_000)
    assert refusal.value.message == (
        "the budget of the batch nightly has no room: US$ 0.999 of 1 is used, and this request may cost up to 0.002; "
        "US$ 0.001 more in --max-usd for each host lets it go"
    )
    assert (refusal.value.code, refusal.value.status, refusal.value.retryable) == ("budget", 403, False)
    assert refusal.value.hint
    sums = {"limit_usd": Decimal(1), "spent_usd": Decimal("0.999"), "needs_usd": Decimal("0.002")}
    assert refusal.value.full == FullBudget(of="batch", **sums)
    assert budget.reserved_pico == 0


@pytest.mark.parametrize(
    ("name", "longest", "advice"),
    [
        ("task t1", 831, "; --max-tokens 831 or --max-usd 0.0021 lets it go"),
        ("task t1", 0, "; --max-usd 0.0021 lets it go"),
        ("batch b", 9, "; --max-tokens 9 or US$ 0.0016 more in --max-usd for each host lets it go"),
        ("day 2026-11-24", 0, "; a larger jada_agent_budget_day_usd lets it go"),
        ("day", 9, ""),  # the gateway's: it has no such options
        ("turn", 9, ""),
    ],
)
def test_a_refusal_says_what_lets_the_task_go(name: str, longest: int, advice: str) -> None:
    said = Budget(name, 500_000_000).spent(2_045_100_000, longest).message
    assert said.endswith(f"US$ 0 of 0.0005 is used, and this request may cost up to 0.0020451{advice}")
    assert "is spent" not in said
    # Room that only open calls take comes back: nothing has to be raised for that.
    assert "lets it go" not in Budget(name, 500_000_000).spent(1, longest).message


def test_without_a_limit_everything_fits_and_is_counted() -> None:
    budget = Budget("day", None)
    budget.reserve(10**18)
    budget.settle(10**18, 7)
    assert (budget.fits(10**18), budget.spent_pico, budget.spent_out) == (True, 7, False)


@pytest.mark.parametrize(("reserved", "actual"), [(1, 0), (-1, 0), (0, -1)])
def test_what_was_not_reserved_is_not_settled(reserved: int, actual: int) -> None:
    with pytest.raises(ValueError, match="settling"):
        Budget("task", 100).settle(reserved, actual)


@given(limit=PICO, wants=st.lists(st.tuples(PICO, st.floats(0, 1)), max_size=30), seed=st.integers())
def test_settled_is_spent_and_the_limit_holds_where_no_call_costs_more_than_reserved(
    limit: int, wants: list[tuple[int, float]], seed: int
) -> None:
    budget = Budget("task", limit)
    order = random.Random(seed)  # noqa: S311  (order of a test)
    under_way: list[tuple[int, int]] = []
    settled = 0

    def settle() -> int:
        reserved, actual = under_way.pop(order.randrange(len(under_way)))
        budget.settle(reserved, actual)
        return actual

    for pico, part in wants:
        try:
            budget.reserve(pico)
        except BudgetSpent:
            assert budget.spent_pico + budget.reserved_pico + pico > limit
        else:
            under_way.append((pico, int(pico * part)))
        if under_way and order.random() < 0.5:
            settled += settle()
        assert budget.reserved_pico == sum(reserved for reserved, _ in under_way)
        assert budget.spent_pico + budget.reserved_pico <= limit
    while under_way:
        settled += settle()
    assert (budget.spent_pico, budget.reserved_pico) == (settled, 0)


@given(limits=st.lists(st.none() | PICO, min_size=1, max_size=4), pico=PICO)
def test_of_several_budgets_all_or_none_are_reserved(limits: list[int | None], pico: int) -> None:
    budgets = [Budget(str(number), limit) for number, limit in enumerate(limits)]
    fits = all(limit is None or pico <= limit for limit in limits)
    try:
        Reservation(budgets, pico).settle(pico // 2)
    except BudgetSpent:
        assert not fits
        assert not any(budget.spent_pico or budget.reserved_pico for budget in budgets)
    else:
        assert fits
        assert all((budget.spent_pico, budget.reserved_pico) == (pico // 2, 0) for budget in budgets)


@given(
    limits=st.lists(st.integers(0, 300), min_size=1, max_size=3),
    calls=st.lists(
        st.tuples(st.integers(1, 60), st.integers(0, 90), st.booleans(), st.integers(0, 3)), min_size=1, max_size=25
    ),
)
# The one of 57 is woken by the second budget and refused by the third: the room that it leaves is the last one's.
@example(limits=[133, 86, 67], calls=[(1, 0, False, 0), (37, 17, False, 2), (57, 0, False, 0), (58, 0, False, 0)])
def test_callers_at_once_end_spent_or_refused_and_overrun_by_no_more_than_is_in_flight(
    limits: list[int], calls: list[tuple[int, int, bool, int]]
) -> None:
    """`calls`: reserved, actual (which may be more), whether it is cancelled under way, how long it takes."""
    budgets = [Budget(str(number), limit) for number, limit in enumerate(limits)]
    settled: list[int] = []
    in_flight: dict[int, int] = {}
    overrun = 0

    async def call(number: int, pico: int, actual: int, turns: int) -> None:
        nonlocal overrun
        reservation = await Reservation.make(budgets, pico)
        assert all(b.limit_pico is not None and b.spent_pico + b.reserved_pico <= b.limit_pico for b in budgets)
        in_flight[number] = max(0, actual - pico)
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
        finally:
            reservation.settle(actual)
            settled.append(actual)
            overrun = max(overrun, sum(in_flight.values()))
            in_flight.pop(number)

    async def run() -> None:
        tasks = [
            asyncio.create_task(call(number, pico, actual, turns))
            for number, (pico, actual, _, turns) in enumerate(calls)
        ]
        for task, (_, _, cancelled, turns) in zip(tasks, calls, strict=True):
            for _ in range(turns):
                await asyncio.sleep(0)
            if cancelled:
                task.cancel()
        outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 120)
        assert all(isinstance(one, BudgetSpent | asyncio.CancelledError | None) for one in outcomes)

    asyncio.run(run())
    for budget in budgets:
        assert budget.limit_pico is not None
        assert (budget.spent_pico, budget.reserved_pico) == (sum(settled), 0)
        assert budget.spent_pico <= budget.limit_pico + overrun


async def test_who_waits_for_calls_under_way_gets_the_room_they_leave_oldest_first() -> None:
    budget = Budget("task", 10)
    first = await Reservation.make([budget], 10)
    done: list[int] = []

    async def call(number: int) -> None:
        reservation = await Reservation.make([budget], 4)
        done.append(number)
        reservation.settle(1)

    tasks = [asyncio.create_task(call(number)) for number in range(4)]
    await asyncio.sleep(0)
    assert not done
    first.settle(5)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert done == [0, 1]
    assert [type(one) for one in outcomes] == [type(None), type(None), BudgetSpent, BudgetSpent]


async def test_a_reservation_is_settled_once() -> None:
    budget = Budget("task", 10)
    reservation = await Reservation.make([budget], 4)
    reservation.settle(3)
    reservation.settle(3)
    assert budget.spent_pico == 3
