"""The cost of the same work done otherwise, and the saving of each lever: whole pico-dollars, no rounding.

The levers have a fixed order, from the usual way of working to what was done. A lever saves the bill before it minus
the bill after it, so the savings add up exactly to the whole, whatever their signs:

    plain `claude -p` on the baseline model, nothing cached, no batch discount
      - cheaper model   the models used instead
      - lean prompts    without the overhead of plain `claude -p`
      - caching         tokens written to and read from the prompt cache at their own prices
      - batch discount  requests sent through Message Batches at their price
      - price changes   the recorded cost, where it differs from the price table
      = actual spending

The overhead is always priced as cache reads, since the CLI caches it: the best case for the alternative.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction

import msgspec

from farmhand.core.prices import PriceTable
from farmhand.core.task import Usage
from farmhand.cost.overhead import LEAN_ENGINES, OVERHEAD_TOKENS
from farmhand.cost.queries import DAY_S, Spend

LEVERS = ("cheaper model", "lean prompts", "caching", "batch discount", "price changes")


def _overhead(group: Spend) -> int:
    """Return the extra tokens per request of plain `claude -p`."""
    return OVERHEAD_TOKENS if group.engine in LEAN_ENGINES else 0


def _bill(
    table: PriceTable, group: Spend, model: str, *, plain: bool = False, cached: bool = True, discount: bool = True
) -> int | None:
    """Return the group's cost on `model`; None if a price is unknown.

    `plain`: with the overhead. `cached` False: the whole prompt as fresh input. `discount` False: no batch discount.
    """
    overhead = _overhead(group) if plain else 0
    rates = table.rates(model, group.prompt + overhead, economy=group.economy and discount, at=float(group.day * DAY_S))
    usage = group.usage
    if not cached:
        usage = Usage(input_tokens=usage.prompt_tokens, output_tokens=usage.output_tokens, requests=usage.requests)
    if overhead:
        read = usage.cache_read_input_tokens + overhead * usage.requests
        usage = msgspec.structs.replace(usage, cache_read_input_tokens=read)
    return None if rates is None else rates.cost(usage)


class Lever(msgspec.Struct, kw_only=True):
    """One lever: the bill before and after it in the fixed order, and the total bill without only this lever.

    `saving_pico` is negative for a loss. `share_percent` is the share of the whole saving with one decimal, rounded so
    that all levers add up to exactly 100.0; None if nothing was saved.
    """

    name: str
    before_pico: int
    after_pico: int
    without_only_this_pico: int
    saving_pico: int
    share_percent: str | None


class Savings(msgspec.Struct, kw_only=True):
    """The whole saving: `saving_pico` is `baseline_pico` - `spent_pico`, the sum of the levers' savings; a loss is
    negative.

    It covers the requests that can be priced in every way; the `left_out_requests` others cost `left_out_pico`.
    `overhead_uncached_pico` is the cost of the overhead without caching, not part of the saving.
    """

    baseline_model: str
    baseline_pico: int
    spent_pico: int
    requests: int
    levers: list[Lever]
    left_out_requests: int
    left_out_pico: int
    overhead_uncached_pico: int
    saving_pico: int


def savings(groups: Iterable[Spend], table: PriceTable, baseline_model: str) -> Savings:
    """Return the saving of all groups with a recorded cost, compared with plain `claude -p` on `baseline_model`."""
    bills = [0] * (len(LEVERS) + 1)
    alone = [0] * len(LEVERS)
    requests = left = left_pico = uncached = 0
    for group in groups:
        ways = _ways(group, table, baseline_model)
        if group.pico is None or ways is None:
            left += group.usage.requests
            left_pico += group.pico or 0
            continue
        requests += group.usage.requests
        steps, singles = ways
        for index, bill in enumerate((*steps, group.pico)):
            bills[index] += bill
        for index, bill in enumerate((*singles, steps[-1])):
            alone[index] += bill
        own = table.rates(group.model, group.prompt + _overhead(group), at=float(group.day * DAY_S))
        uncached += _overhead(group) * group.usage.requests * (own.input if own else 0)
    levers = [
        Lever(
            name=name,
            before_pico=before,
            after_pico=after,
            without_only_this_pico=only,
            saving_pico=before - after,
            share_percent=_share(bills[0], before, after, bills[-1]),
        )
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
        saving_pico=bills[0] - bills[-1],
    )


def _share(first: int, before: int, after: int, last: int) -> str | None:
    """Return a lever's share in percent of the difference between the first and the last bill."""
    if first <= last:
        return None
    begin, end = (round(Fraction((first - bill) * 1000, first - last)) for bill in (before, after))
    return f"{Decimal(end - begin) / 10:.1f}"


def _ways(group: Spend, table: PriceTable, baseline: str) -> tuple[list[int], list[int]] | None:
    """Return the bills in the order of the levers, from the baseline's to the table's own, and those without one lever
    each.

    Return None if a bill is unknown. The bill of the last lever, price changes, is in the ledgers.
    """
    undiscounted = _bill(table, group, group.model, discount=False)
    steps = [
        _bill(table, group, baseline, plain=True, cached=False, discount=False),
        _bill(table, group, group.model, plain=True, cached=False, discount=False),
        _bill(table, group, group.model, cached=False, discount=False),
        undiscounted,
        _bill(table, group, group.model),
    ]
    singles = [
        _bill(table, group, baseline),
        _bill(table, group, group.model, plain=True),
        _bill(table, group, group.model, cached=False),
        undiscounted,
    ]
    known = [bill for bill in (*steps, *singles) if bill is not None]
    return (known[: len(steps)], known[len(steps) :]) if len(known) == len(steps) + len(singles) else None


class OnModel(msgspec.Struct, kw_only=True):
    """The cost of the same tokens on one model, all else unchanged; None if a price is unknown for some of them."""

    model: str
    cost_pico: int | None


def on_each_model(groups: list[Spend], table: PriceTable) -> list[OnModel]:
    """Price the tokens on every model that is not legacy, the cheapest first."""
    answers = []
    for model in table.current:
        bills = [_bill(table, group, model) for group in groups]
        known = [bill for bill in bills if bill is not None]
        answers.append(OnModel(model=model, cost_pico=sum(known) if len(known) == len(bills) else None))
    return answers


def repriced(groups: list[Spend], table: PriceTable) -> tuple[int, int]:
    """Return (pico-dollars by the price table at each request's time, number of requests without a price)."""
    bills = [(group.usage.requests, _bill(table, group, group.model)) for group in groups]
    return sum(bill or 0 for _, bill in bills), sum(requests for requests, bill in bills if bill is None)
