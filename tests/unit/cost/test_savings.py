"""What was saved: as sums over groups exactly what it is request by request, and nothing of it hidden."""

from __future__ import annotations

from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farmhand.core.task import Usage
from farmhand.cost import queries
from farmhand.cost.overhead import OVERHEAD_TOKENS
from farmhand.cost.rows import LedgerCharge
from farmhand.cost.savings import LEVERS, Savings, on_each_model, repriced, savings
from tests.unit.cost import ledgers
from tests.unit.cost.ledgers import NOW, TABLE, charge, fill, new_store, usage_of

baselines = st.sampled_from([model for model in ledgers.MODELS if model != "claude-next"])


def saved(rows: list[LedgerCharge], baseline: str = "claude-sonnet-5-5") -> Savings:
    """The savings of these charges, through a store."""
    with TemporaryDirectory() as directory:
        store = new_store(f"{directory}/cost.db")
        fill(store, "u1", rows)
        answer = savings(queries.price_groups(queries.read(store, TABLE).spend, TABLE), TABLE, baseline)
        store.close()
        return answer


def one_by_one(row: LedgerCharge, baseline: str) -> list[int] | None:
    """The bills of one request from the baseline to what was recorded; None where one is not known."""
    overhead = OVERHEAD_TOKENS if row.engine != "cli" else 0
    own = usage_of(row)

    def bill(model: str, *, plain: bool, cached: bool, economy: bool) -> int | None:
        usage = own if cached else Usage(input_tokens=own.prompt_tokens, output_tokens=own.output_tokens)
        more = Usage(cache_read_input_tokens=overhead if plain else 0)
        prompt = own.prompt_tokens + more.cache_read_input_tokens
        rates = TABLE.rates(model, prompt, economy=economy, at=row.created_at)
        if rates is None:
            return None
        bare, extra = rates.cost(usage), rates.cost(more)
        return None if bare is None or extra is None else bare + extra

    bills = [
        bill(baseline, plain=True, cached=False, economy=False),
        bill(row.model, plain=True, cached=False, economy=False),
        bill(row.model, plain=False, cached=False, economy=False),
        bill(row.model, plain=False, cached=True, economy=False),
        bill(row.model, plain=False, cached=True, economy=row.economy),
        row.cost_pico,
    ]
    known = [bill for bill in bills if bill is not None]
    return known if len(known) == len(bills) else None


@settings(max_examples=40, deadline=None)
@given(rows=ledgers.charges(), baseline=baselines)
def test_groups_are_priced_as_exactly_as_requests(rows: list[LedgerCharge], baseline: str) -> None:
    found = saved(rows, baseline)
    bills = [bill for row in rows if (bill := one_by_one(row, baseline)) is not None]
    expected = [sum(column) for column in zip(*bills, strict=True)] or [0] * (len(LEVERS) + 1)
    assert [lever.before_pico for lever in found.levers] == expected[:-1]
    assert [lever.after_pico for lever in found.levers] == expected[1:]
    assert found.requests == len(bills)
    assert found.left_out_requests == len(rows) - len(bills)


@settings(max_examples=40, deadline=None)
@given(rows=ledgers.charges(), baseline=baselines)
def test_the_levers_add_up_to_the_saving_and_no_loss_is_hidden(rows: list[LedgerCharge], baseline: str) -> None:
    found = saved(rows, baseline)
    assert sum(lever.saving_pico for lever in found.levers) == found.saving_pico
    assert found.saving_pico == found.baseline_pico - found.spent_pico
    recorded = sum(row.cost_pico or 0 for row in rows)
    assert found.spent_pico + found.left_out_pico == recorded
    percent = [lever.share_percent for lever in found.levers]
    if found.saving_pico > 0:
        tenths = [round(float(share or "nan") * 10) for share in percent]
        assert sum(tenths) == 1000
        assert all((tenth < 0) <= (lever.saving_pico < 0) for tenth, lever in zip(tenths, found.levers, strict=True))
    else:
        assert percent == [None] * len(LEVERS)


@pytest.mark.parametrize(
    ("row", "baseline", "lever"),
    [
        (charge(model="claude-opus-5-5"), "claude-haiku-5-5", "cheaper model"),
        # Written and never read: caching cost more than it saved.
        (charge(usage=Usage(cache_creation_input_tokens=5000)), "claude-sonnet-5-5", "caching"),
        # The host's table was a dearer one.
        (charge(factor=2), "claude-sonnet-5-5", "price changes"),
    ],
)
def test_what_cost_more_is_a_negative_saving(row: LedgerCharge, baseline: str, lever: str) -> None:
    found = {each.name: each for each in saved([row], baseline).levers}
    assert found[lever].saving_pico < 0


def test_a_baseline_that_is_cheaper_shows_a_loss() -> None:
    found = saved([charge(engine="cli", model="claude-fable-5-1")], "claude-haiku-5-5")
    assert found.saving_pico < 0


def test_each_lever_alone() -> None:
    usage = Usage(input_tokens=100, output_tokens=50, cache_read_input_tokens=10_000)
    row = charge(usage=usage, economy=True)
    found = {lever.name: lever.without_only_this_pico for lever in saved([row]).levers}
    plain = Usage(input_tokens=10_100, output_tokens=50)
    haiku, sonnet = "claude-haiku-5-5", "claude-sonnet-5-5"
    assert found["cheaper model"] == TABLE.cost(sonnet, usage, economy=True)
    assert found["caching"] == TABLE.cost(haiku, plain, economy=True)
    assert found["batch discount"] == TABLE.cost(haiku, usage)
    # Half of a cent a million tokens: read from the cache, in a batch.
    assert found["lean prompts"] == (row.cost_pico or 0) + OVERHEAD_TOKENS * 5000


def test_the_overhead_may_lift_a_request_over_the_long_prompt() -> None:
    below, above = (charge(usage=Usage(input_tokens=100_000 - OVERHEAD_TOKENS + n)) for n in (0, 1))
    dear = [saved([row], "claude-haiku-5-5").levers[1].before_pico for row in (below, above)]
    assert dear[1] > 4 * dear[0]


def test_nothing_is_claimed_for_the_cli_engine_s_prompts() -> None:
    assert saved([charge(engine="cli")]).levers[1].saving_pico == 0


@settings(max_examples=40, deadline=None)
@given(rows=ledgers.charges())
def test_other_models_and_today_s_prices(rows: list[LedgerCharge]) -> None:
    with TemporaryDirectory() as directory:
        store = new_store(f"{directory}/cost.db")
        fill(store, "u1", rows)
        priced = queries.price_groups(queries.read(store, TABLE).spend, TABLE)
        store.close()
    for found in on_each_model(priced, TABLE):
        bills = [TABLE.cost(found.model, usage_of(row), economy=row.economy, at=row.created_at) for row in rows]
        assert found.cost_pico == sum(bill or 0 for bill in bills)
    own = [TABLE.cost(row.model, usage_of(row), economy=row.economy, at=row.created_at) for row in rows]
    assert repriced(priced, TABLE) == (sum(bill or 0 for bill in own), own.count(None))


def test_no_price_for_some_tokens_is_unknown_and_not_zero() -> None:
    rows = [charge(1), charge(2, model="claude-next")]
    found = saved(rows)
    assert (found.requests, found.left_out_requests) == (1, 1)
    assert charge(model="claude-next", at=NOW).cost_usd is None
