"""What the API's answers were billed at: the books behind the Admin API's usage and cost reports.

Prices are the package's own table, since there is no other: the reports test the way there, not the prices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from farmhand.core.prices import price_table
from tests.support.messages_api import catalog
from tests.support.messages_api.log import Entry

#: What is billed, by the name that the cost report has for it.
KINDS = (
    "uncached_input_tokens",
    "output_tokens",
    "cache_creation.ephemeral_5m_input_tokens",
    "cache_creation.ephemeral_1h_input_tokens",
    "cache_read_input_tokens",
)
MINUTE_S = 60


class Posting(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Something that another user of the organization was billed for, or a cost that is no tokens'.

    `at` is Unix seconds. `cents` is a decimal string; without it the tokens are billed at the usual prices.
    """

    at: float
    model: str = ""
    tokens: dict[str, int] = {}
    cents: str = ""
    service_tier: str = "standard"


@dataclass
class Line:
    """Sums of one minute, model, tier and context window: tokens and pico-dollars by kind."""

    at: int
    model: str
    tier: str
    window: str
    tokens: Counter[str] = field(default_factory=Counter)
    pico: Counter[str] = field(default_factory=Counter)


class Books:
    """All lines since the start. No request is kept, so that long runs stay small."""

    def __init__(self) -> None:
        self._lines: dict[tuple[int, str, str, str], Line] = {}

    def clear(self) -> None:
        """Forget all."""
        self._lines.clear()

    def add(self, entry: Entry) -> None:
        """Bill a request that was answered; any other costs nothing."""
        if entry.status != 200 or not entry.usage:
            return
        usage = entry.usage
        model = catalog.find(entry.model)
        split = usage.get("cache_creation") or {}
        counts = (
            usage["input_tokens"],
            usage["output_tokens"],
            split.get("ephemeral_5m_input_tokens", 0),
            split.get("ephemeral_1h_input_tokens", 0),
            usage["cache_read_input_tokens"],
        )
        tokens = dict(zip(KINDS, counts, strict=True))
        self._bill(entry.time, model.id if model else entry.model, str(usage.get("service_tier", "standard")), tokens)

    def post(self, posting: Posting) -> None:
        """Bill what did not come through this API."""
        if posting.cents:
            whole, _, rest = posting.cents.partition(".")
            line = self._line(posting.at, posting.model, posting.service_tier, "0-200k")
            line.pico["other"] += int(whole + f"{rest:0<10}"[:10])
        self._bill(posting.at, posting.model, posting.service_tier, posting.tokens)

    def _bill(self, at: float, model: str, tier: str, tokens: Mapping[str, int]) -> None:
        prompt = sum(count for kind, count in tokens.items() if kind != "output_tokens")
        line = self._line(at, model, tier, "0-200k" if prompt <= 200_000 else "200k-1M")
        rates = price_table().rates(model, prompt, economy=tier == "batch", at=at)
        for kind, rate in zip(KINDS, rates or (0,) * len(KINDS), strict=True):
            count = tokens.get(kind, 0)
            line.tokens[kind] += count
            line.pico[kind] += count * (rate or 0)

    def _line(self, at: float, model: str, tier: str, window: str) -> Line:
        minute = int(at // MINUTE_S) * MINUTE_S
        return self._lines.setdefault((minute, model, tier, window), Line(minute, model, tier, window))

    def between(self, first: int, end: int) -> Iterator[Line]:
        """The lines of a span of Unix seconds, in their order."""
        for key in sorted(self._lines):
            if first <= key[0] < end:
                yield self._lines[key]


def cents(pico: int) -> str:
    """Pico-dollars as the report writes money: a decimal string of cents."""
    whole, rest = divmod(pico, 10**10)
    return f"{whole}.{f'{rest:010d}'.rstrip('0') or '0'}"


def usage_row(lines: list[Line]) -> dict[str, Any]:
    """The token fields of one result of the usage report."""
    sums: Counter[str] = Counter()
    for line in lines:
        sums.update(line.tokens)
    return {
        "uncached_input_tokens": sums[KINDS[0]],
        "cache_creation": {
            "ephemeral_1h_input_tokens": sums[KINDS[3]],
            "ephemeral_5m_input_tokens": sums[KINDS[2]],
        },
        "cache_read_input_tokens": sums[KINDS[4]],
        "output_tokens": sums[KINDS[1]],
        "server_tool_use": {"web_search_requests": 0},
    }
