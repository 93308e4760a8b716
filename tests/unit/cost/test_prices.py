from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.cost.money import pico, usd
from farmhand.cost.prices import PriceTable, price_table
from farmhand.task import MODELS, Usage

counts = st.integers(0, 2_000_000)


def test_every_short_name_has_a_price() -> None:
    assert set(MODELS.values()) <= set(price_table().models)


@pytest.mark.parametrize(
    ("model", "usage", "dollars"),
    [
        ("claude-haiku-5-5", Usage(input_tokens=1_000_000 // 10, output_tokens=1000), "0.0105"),
        ("claude-haiku-5-5", Usage(input_tokens=100_001, output_tokens=1000), "0.0525005"),
        ("claude-haiku-4-5-20251001", Usage(input_tokens=1_000_000, output_tokens=1_000_000), "6"),
        ("claude-haiku-5-5", Usage(cache_creation_input_tokens=1000, cache_read_input_tokens=1000), "0.000135"),
        ("claude-opus-5-5", Usage(input_tokens=1, output_tokens=1), "0.000024"),
    ],
)
def test_costs_are_exact(model: str, usage: Usage, dollars: str) -> None:
    assert price_table().cost(model, usage) == pico(Decimal(dollars))


def test_a_batch_costs_half() -> None:
    usage = Usage(input_tokens=3, output_tokens=5, cache_creation_input_tokens=1)
    full, half = (price_table().cost("claude-haiku-5-5", usage, economy=economy) for economy in (False, True))
    assert full is not None
    assert half is not None
    assert 2 * half == full


@given(amount=st.decimals(0, 10_000, places=12))
def test_money_is_exact(amount: Decimal) -> None:
    assert usd(pico(amount)) == amount


def test_an_unknown_price_is_unknown_and_never_zero() -> None:
    table = price_table()
    assert table.cost("claude-next", Usage(input_tokens=1)) is None
    assert table.cost("claude-sonnet-5-5", Usage(cache_read_input_tokens=1)) is None
    assert table.cost("claude-sonnet-5-5", Usage(input_tokens=1)) is not None


@given(first=counts, second=counts)
def test_below_the_tier_the_parts_add_up(first: int, second: int) -> None:
    table = price_table()
    parts = [table.cost("claude-haiku-4-5-20251001", Usage(input_tokens=n)) for n in (first, second)]
    assert sum(part for part in parts if part is not None) == table.cost(
        "claude-haiku-4-5-20251001", Usage(input_tokens=first + second)
    )


def test_the_table_is_validated() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"version": "x", "batch_factor": "1", "models": {"m": {"input": "1"}}}, PriceTable)
