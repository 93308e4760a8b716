from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.core.errors import NotConfigured
from farmhand.core.money import pico, plain, usd
from farmhand.core.prices import price_table
from farmhand.core.task import MODELS, Usage
from farmhand.core.terms import DEAREST, Terms

counts = st.integers(0, 2_000_000)


def at(day: str) -> float:
    return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()


def test_every_short_name_has_a_price_and_stands_for_the_same_model() -> None:
    table = price_table()
    assert set(MODELS.values()) <= set(table.models)
    assert {name: table.resolve(name) for name in MODELS} == MODELS


@pytest.mark.parametrize(
    ("model", "usage", "dollars"),
    [
        ("claude-haiku-5-5", Usage(input_tokens=1_000_000 // 10, output_tokens=1000), "0.0105"),
        ("claude-haiku-5-5", Usage(input_tokens=100_001, output_tokens=1000), "0.0525005"),
        ("claude-haiku-5-5", Usage(input_tokens=1, cache_read_input_tokens=100_000), "0.0050005"),
        ("claude-haiku-4-5-20251001", Usage(input_tokens=1_000_000, output_tokens=1_000_000), "6"),
        ("claude-haiku-4-5", Usage(input_tokens=1_000_000, output_tokens=1_000_000), "6"),
        ("claude-haiku-5-5", Usage(cache_creation_input_tokens=1000, cache_read_input_tokens=1000), "0.000135"),
        (
            "claude-haiku-5-5",
            Usage(cache_creation_input_tokens=1000, cache_creation_1h_input_tokens=400),
            "0.000155",
        ),
        ("claude-opus-5-5", Usage(input_tokens=1, output_tokens=1), "0.000024"),
    ],
)
def test_costs_are_exact(model: str, usage: Usage, dollars: str) -> None:
    assert price_table().cost(model, usage) == pico(Decimal(dollars))


def test_the_price_of_the_request_s_own_time_counts() -> None:
    table, usage = price_table(), Usage(cache_read_input_tokens=1_000_000)
    assert table.cost("claude-sonnet-5-5", usage, at=at("2026-10-06")) == pico(Decimal("0.2"))
    assert table.cost("claude-sonnet-5-5", usage, at=at("2026-10-07") - 0.001) == pico(Decimal("0.2"))
    assert table.cost("claude-sonnet-5-5", usage, at=at("2026-10-07")) == pico(Decimal("0.1"))
    assert table.cost("claude-sonnet-5-5", usage) == pico(Decimal("0.1"))
    assert table.changes == (int(at("2026-10-07") // 86400),)


def test_a_model_of_a_third_party_s_word_has_a_price_and_is_marked() -> None:
    table, usage = price_table(), Usage(input_tokens=1000, output_tokens=1000, cache_read_input_tokens=1000)
    assert table.cost("claude-fable-5-2", usage, at=at("2026-11-09")) == pico(Decimal("0.0482"))
    [span] = table.spans["claude-fable-5-2"]
    assert span.row.source == "third party"


@pytest.mark.parametrize(
    ("terms", "factor"),
    [
        (Terms(), "1"),
        (Terms(inference_geo="global", speed="standard", service_tier="standard"), "1"),
        (Terms(inference_geo="not_available"), "1"),
        (Terms(inference_geo="us"), "1.1"),
        (Terms(service_tier="batch"), "0.5"),
        (Terms(inference_geo="us", service_tier="batch"), "0.55"),
        (Terms(estimated=True), "1"),
    ],
)
@pytest.mark.parametrize("model", ["claude-haiku-5-5", "claude-opus-5-5", "claude-sonnet-4-6"])
def test_what_the_answer_says_of_its_terms_multiplies_every_price(model: str, terms: Terms, factor: str) -> None:
    table = price_table()
    usage = Usage(
        input_tokens=10_003, output_tokens=517, cache_creation_input_tokens=41, cache_creation_1h_input_tokens=7,
        cache_read_input_tokens=11,
    )  # fmt: skip
    standard, cost = table.cost(model, usage), table.cost(model, usage, terms)
    assert standard is not None
    assert cost == standard * Decimal(factor)


@pytest.mark.parametrize(
    "terms",
    [
        Terms(inference_geo="eu"),
        Terms(speed="fast"),
        Terms(service_tier="priority"),
        Terms(service_tier="flex"),
        Terms(unknown=("input_tokens",)),
        Terms(inference_geo="us", speed="ludicrous"),
    ],
)
@pytest.mark.parametrize("economy", [True, False])
def test_terms_without_a_factor_have_no_price_and_never_the_standard_one(terms: Terms, economy: bool) -> None:
    assert price_table().cost("claude-haiku-5-5", Usage(input_tokens=1), terms, economy=economy) is None


def test_no_place_costs_more_than_what_is_reserved_for() -> None:
    table = price_table()
    assert table.factor(DEAREST) == max(table.factors["inference_geo"].values())


def test_a_part_of_a_pico_dollar_counts_as_a_whole_one(tmp_path: Path) -> None:
    own = tmp_path / "prices.toml"
    own.write_text('[[price]]\nmodel = "m"\ninput = "0.000001"\noutput = "1"\nbatch_factor = "1"\n')
    assert price_table(own).cost("m", Usage(input_tokens=1), Terms(inference_geo="us")) == 2


def test_an_operator_s_file_can_give_a_factor_that_ours_has_not(tmp_path: Path) -> None:
    own = tmp_path / "prices.toml"
    own.write_text('[factors.speed]\nfast = "2"\n')
    table, usage = price_table(own), Usage(output_tokens=10)
    cost = table.cost("claude-opus-4-8", usage)
    assert cost is not None
    assert table.cost("claude-opus-4-8", usage, Terms(speed="fast", inference_geo="us")) == cost * Decimal("2.2")
    assert price_table().factor(Terms(speed="fast")) is None


def test_a_batch_costs_half() -> None:
    usage = Usage(input_tokens=3, output_tokens=5, cache_creation_input_tokens=1)
    full, half = (price_table().cost("claude-haiku-5-5", usage, economy=economy) for economy in (False, True))
    assert full is not None
    assert half is not None
    assert 2 * half == full


@given(amount=st.decimals(0, 10_000, places=12))
def test_money_is_exact(amount: Decimal) -> None:
    assert usd(pico(amount)) == amount
    assert Decimal(plain(pico(amount))) == amount
    assert "E" not in plain(pico(amount))


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0.00"), (1, "0.000000000001"), (-(10**12) // 2, "-0.50"), (12 * 10**12, "12.00")]
)
def test_money_reads_well(amount: int, text: str) -> None:
    assert plain(amount) == text


def test_an_unknown_price_is_unknown_and_never_zero(tmp_path: Path) -> None:
    table = price_table()
    assert table.cost("claude-next", Usage(input_tokens=1)) is None
    own = tmp_path / "prices.toml"
    own.write_text('[[price]]\nmodel = "m"\nfrom = 2026-01-01\nto = 2026-02-01\ninput = "1"\noutput = "2"\n')
    table = price_table(own)
    january = at("2026-01-15")
    assert table.cost("m", Usage(input_tokens=1), at=january) == 10**6
    assert table.cost("m", Usage(cache_read_input_tokens=1), at=january) is None
    assert table.cost("m", Usage(input_tokens=1), at=at("2026-02-01")) is None
    assert table.cost("m", Usage(input_tokens=1), at=at("2025-12-31")) is None


@given(first=counts, second=counts, economy=st.booleans())
def test_below_the_tier_the_parts_add_up(first: int, second: int, economy: bool) -> None:
    table, model = price_table(), "claude-haiku-4-5-20251001"
    parts = [table.cost(model, Usage(input_tokens=n), economy=economy) for n in (first, second)]
    whole = table.cost(model, Usage(input_tokens=first + second), economy=economy)
    assert sum(part for part in parts if part is not None) == whole


ROW = 'input = "1"\noutput = "2"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version = ", "not TOML"),
        pytest.param("version = " + "[" * 200_000, "not TOML", id="deep"),
        pytest.param(f"version = {'9' * 5000}", "not TOML", id="5000 digits"),
        ('[factors.mood]\ngood = "1"\n', "factors: mood is none of inference_geo, speed, service_tier"),
        ('[factors.speed]\nfast = "0"\n', "factors: speed: fast is 0, not above 0"),
        ('[factors.speed]\nfast = "NaN"\n', "factors: speed: fast is NaN"),
        (f'[[price]]\nmodel = "m"\n{ROW}colour = "red"\n', "price 1 (m): Object contains unknown field `colour`"),
        (f'[[price]]\nmodel = "a"\n{ROW}[[price]]\nmodel = "m"\ninput = "1"\n', "price 2 (m): Object missing required"),
        ('[[price]]\nmodel = "m"\ninput = "x"\noutput = "2"\n', "price 1 (m).input: Invalid decimal"),
        ('[[price]]\nmodel = "m"\ninput = "-1"\noutput = "2"\n', "price 1 (m): input is -1"),
        ('[[price]]\nmodel = "m"\ninput = "NaN"\noutput = "2"\n', "price 1 (m): input is NaN"),
        ('[[price]]\nmodel = "m"\ninput = "0.0000001"\noutput = "2"\n', "price 1 (m): input is 1E-7"),
        (f'[[price]]\nmodel = "m"\n{ROW}from = 2026-02-01\nto = 2026-02-01\n', "from 2026-02-01 is not before to"),
        (f'[[price]]\nmodel = "m"\n{ROW}[[price]]\nmodel = "m"\n{ROW}', "two prices of m hold on the same day"),
        (f'[[price]]\nmodel = "m"\n{ROW}batch_factor = "2"\n', "price 1 (m): batch_factor is 2"),
        (f'[[price]]\nmodel = "m"\n{ROW}long_prompt = {{ over = 0, input = "1", output = "1" }}\n', "over is 0"),
        (f'[[price]]\nmodel = "m"\n{ROW}long_prompt = {{ over = 9, input="-1", output="1" }}\n', "prompt: input is -1"),
        ('[aliases]\nquick = "nobody"\n', "aliases: quick stands for nobody, which has no price"),
        ('[aliases]\n"claude-opus-5-5" = "claude-fable-5-1"\n', "claude-opus-5-5 is a model with a price of its own"),
        (f'[[price]]\nmodel = ""\n{ROW}', "model is empty"),
        ('price = 3\n', "Expected `array`"),
        ('price = [3]\n', "price 1"),
    ],
)  # fmt: skip
def test_a_bad_table_is_one_line_with_what_and_where(tmp_path: Path, text: str, words: str) -> None:
    own = tmp_path / "prices.toml"
    own.write_text(text)
    with pytest.raises(NotConfigured) as caught:
        price_table(own)
    message = str(caught.value)
    assert str(own) in message
    assert words in message
    assert "\n" not in message


def test_an_operator_s_file_overrides_a_model_and_says_so_in_the_version(tmp_path: Path) -> None:
    own = tmp_path / "prices.toml"
    assert price_table(own).version == price_table().version
    own.write_text(f'[aliases]\nquick = "m"\n[[price]]\nmodel = "claude-opus-5-5"\n{ROW}[[price]]\nmodel = "m"\n{ROW}')
    price_table.cache_clear()
    table = price_table(own)
    assert table.version.startswith(price_table().version + "+")
    assert table.cost("claude-opus-5-5", Usage(output_tokens=1)) == 2 * 10**6
    assert table.cost("quick", Usage(output_tokens=1)) == 2 * 10**6
    haiku = Usage(output_tokens=1)
    assert table.cost("claude-haiku-5-5", haiku) == price_table().cost("claude-haiku-5-5", haiku)
    own.write_bytes(b"\xff")
    price_table.cache_clear()
    with pytest.raises(NotConfigured, match="not UTF-8"):
        price_table(own)
    with pytest.raises(NotConfigured, match="cannot be read"):
        price_table(tmp_path)
    with pytest.raises(NotConfigured, match="cannot be read: it has more than"):
        price_table(Path("/dev/zero"))
