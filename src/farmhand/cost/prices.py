"""The price table, and what one request costs by it, exact: whole pico-dollars (see `money`)."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from functools import cache
from importlib.resources import files

import msgspec

from farmhand.cost.money import pico
from farmhand.task import Usage


class LongPrompt(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Prices of a request whose prompt has more than `over` tokens."""

    over: int
    input: Decimal
    output: Decimal
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    cache_read: Decimal | None = None


class Price(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """US$ per million tokens of one model; None where the source gives no figure."""

    input: Decimal
    output: Decimal
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    cache_read: Decimal | None = None
    long_prompt: LongPrompt | None = None


class PriceTable(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Prices by model id; `version` is the day the source was read; Message Batches cost `batch_factor` of them."""

    version: str
    batch_factor: Decimal
    models: dict[str, Price]

    def cost(self, model: str, usage: Usage, *, economy: bool = False) -> int | None:
        """Pico-dollars of one request that used `usage`; None, never zero, where a price is unknown.

        `economy`: it was part of a Message Batch.
        """
        price = self.models.get(model)
        if price is None:
            return None
        prompt = usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens
        long = price.long_prompt
        tier: Price | LongPrompt = long if long is not None and prompt > long.over else price
        written = usage.cache_creation_input_tokens - usage.cache_creation_1h_input_tokens
        parts = (
            (usage.input_tokens, tier.input),
            (usage.output_tokens, tier.output),
            (written, tier.cache_write),
            (usage.cache_creation_1h_input_tokens, tier.cache_write_1h),
            (usage.cache_read_input_tokens, tier.cache_read),
        )
        total = Decimal(0)
        for tokens, per_million in parts:
            if not tokens:
                continue
            if per_million is None:
                return None
            total += tokens * per_million
        return pico(total.scaleb(-6) * (self.batch_factor if economy else 1))


@cache
def price_table() -> PriceTable:
    """The table that ships with the package, validated."""
    text = files(__package__).joinpath("prices.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), PriceTable)
