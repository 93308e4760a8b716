"""What the same work would have cost otherwise, and what each lever took off: whole pico-dollars, no rounding.

The levers stand in one fixed order, from the usual way of doing it to what was done. What a lever saved is the bill
before it less the bill after it, so the savings add up to the whole exactly, whatever their signs:

    plain `claude -p` on the baseline model, nothing cached, no batch discount
      - cheaper model   the models that were used in its place
      - lean prompts    without the overhead of plain `claude -p`
      - caching         tokens written to and read from the prompt cache at their own prices
      - batch discount  requests that went through Message Batches at their price
      - price changes   what the ledgers recorded, where that differs from the price table
      = what was spent

The overhead is priced as cache reads throughout, since the CLI caches it: the best case of what is compared with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from farmhand.core.prices import PriceTable
from farmhand.cost.overhead import LEAN_ENGINES, OVERHEAD_TOKENS

LEVERS = ("cheaper model", "lean prompts", "caching", "batch discount", "price changes")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Sums over requests that have the same prices: of one model, in one span of prices, in one band of lengths.

    `at` is the time of one of them (Unix seconds), `prompt` a length, in tokens, that stands for the band.
    `pico` is what the ledgers recorded; None where they knew no price.
    """

    at: float
    model: str
    engine: str
    economy: bool
    prompt: int
    requests: int
    fresh: int
    output: int
    written: int
    written_1h: int
    read: int
    pico: int | None

    @property
    def overhead(self) -> int:
        """Tokens that plain `claude -p` would have sent beside, per request."""
        return OVERHEAD_TOKENS if self.engine in LEAN_ENGINES else 0


def _bill(
    table: PriceTable, group: Group, model: str, *, plain: bool = False, cached: bool = True, discount: bool = True
) -> int | None:
    """What the group costs on `model`; None where a price is unknown.

    `plain`: with the overhead. `cached` False: all of the prompt as fresh input. `discount` False: not in a batch.
    """
    overhead = group.overhead if plain else 0
    economy = group.economy and discount
    rates = table.rates(model, group.prompt + overhead, economy=economy, at=group.at)
    if rates is None:
        return None
    if cached:
        own = rates.of(group.fresh, group.output, group.written, group.written_1h, group.read)
    else:
        own = rates.of(group.fresh + group.written + group.read, group.output, 0, 0, 0)
    more = rates.of(0, 0, 0, 0, overhead * group.requests)
    return None if own is None or more is None else own + more


class Lever(msgspec.Struct, kw_only=True):
    """One lever: the bill before and after it in the fixed order, and the whole bill without only this lever."""

    name: str
    before_pico: int
    after_pico: int
    without_only_this_pico: int

    @property
    def saving_pico(self) -> int:
        """What it saved; below zero where it cost."""
        return self.before_pico - self.after_pico


class Savings(msgspec.Struct, kw_only=True):
    """`baseline_pico` - `spent_pico` is the saving, and the sum of the levers' savings.

    All of it is over the requests that can be priced every way; `left_out_requests` others cost `left_out_pico`.
    `overhead_uncached_pico`: what the overhead costs where nothing of it is cached; not part of the saving.
    """

    baseline_model: str
    baseline_pico: int
    spent_pico: int
    requests: int
    levers: list[Lever]
    left_out_requests: int
    left_out_pico: int
    overhead_uncached_pico: int

    @property
    def saving_pico(self) -> int:
        """What was saved; below zero where it cost more than the baseline."""
        return self.baseline_pico - self.spent_pico


def savings(groups: Iterable[Group], table: PriceTable, baseline_model: str) -> Savings:
    """The saving over all groups whose cost is recorded, against plain `claude -p` on `baseline_model`."""
    bills = [0] * (len(LEVERS) + 1)
    alone = [0] * len(LEVERS)
    requests = left = left_pico = uncached = 0
    for group in groups:
        ways = _ways(group, table, baseline_model)
        if group.pico is None or ways is None:
            left += group.requests
            left_pico += group.pico or 0
            continue
        requests += group.requests
        steps, singles = ways
        for index, bill in enumerate((*steps, group.pico)):
            bills[index] += bill
        for index, bill in enumerate((*singles, steps[-1])):
            alone[index] += bill
        fresh = table.rates(group.model, group.prompt + group.overhead, at=group.at)
        uncached += group.overhead * group.requests * (fresh.input if fresh else 0)
    levers = [
        Lever(name=name, before_pico=before, after_pico=after, without_only_this_pico=only)
        for name, before, after, only in zip(LEVERS, bills, bills[1:], alone, strict=False)
    ]
    return Savings(
        baseline_model=baseline_model,
        baseline_pico=bills[0],
        spent_pico=bills[-1],
        requests=requests,
        levers=levers,
        left_out_requests=left,
        left_out_pico=left_pico,
        overhead_uncached_pico=uncached,
    )


def _ways(group: Group, table: PriceTable, baseline: str) -> tuple[list[int], list[int]] | None:
    """The bills from the baseline to the table's own in the order of the levers, and those without only one lever.

    None where one of them cannot be told. The last lever, price changes, has its bill in the ledgers.
    """
    steps = [
        _bill(table, group, baseline, plain=True, cached=False, discount=False),
        _bill(table, group, group.model, plain=True, cached=False, discount=False),
        _bill(table, group, group.model, cached=False, discount=False),
        _bill(table, group, group.model, discount=False),
        _bill(table, group, group.model),
    ]
    singles = [
        _bill(table, group, baseline),
        _bill(table, group, group.model, plain=True),
        _bill(table, group, group.model, cached=False),
        _bill(table, group, group.model, discount=False),
    ]
    known = [bill for bill in steps if bill is not None]
    known_singles = [bill for bill in singles if bill is not None]
    if len(known) < len(steps) or len(known_singles) < len(singles):
        return None
    return known, known_singles


class OnModel(msgspec.Struct, kw_only=True):
    """What the same tokens cost on one model, all else as it was; None where a price is unknown for some of them."""

    model: str
    cost_pico: int | None


def on_each_model(groups: list[Group], table: PriceTable) -> list[OnModel]:
    """The same tokens on every model that is not legacy, the cheapest first."""
    answers = []
    for model in table.current:
        bills = [_bill(table, group, model) for group in groups]
        known = [bill for bill in bills if bill is not None]
        answers.append(OnModel(model=model, cost_pico=sum(known) if len(known) == len(bills) else None))
    return answers


def repriced(groups: list[Group], table: PriceTable) -> tuple[int, int]:
    """(pico-dollars by the price table of each request's time, requests it has no price for)."""
    bills = [(group.requests, _bill(table, group, group.model)) for group in groups]
    return sum(bill or 0 for _, bill in bills), sum(requests for requests, bill in bills if bill is None)
