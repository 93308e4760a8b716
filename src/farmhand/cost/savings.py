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
from decimal import Decimal
from fractions import Fraction

import msgspec

from farmhand.core.prices import PriceTable
from farmhand.core.task import Usage
from farmhand.cost.overhead import LEAN_ENGINES, OVERHEAD_TOKENS
from farmhand.cost.queries import DAY_S, Spend

LEVERS = ("cheaper model", "lean prompts", "caching", "batch discount", "price changes")


def _overhead(group: Spend) -> int:
    """Tokens that plain `claude -p` would have sent beside, per request."""
    return OVERHEAD_TOKENS if group.engine in LEAN_ENGINES else 0


def _bill(
    table: PriceTable, group: Spend, model: str, *, plain: bool = False, cached: bool = True, discount: bool = True
) -> int | None:
    """What the group costs on `model`; None where a price is unknown.

    `plain`: with the overhead. `cached` False: all of the prompt as fresh input. `discount` False: not in a batch.
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
    """One lever: the bill before and after it in the fixed order, and the whole bill without only this lever.

    `saving_pico` is below zero where it cost. `share_percent` of the whole saving is to a tenth, rounded so that all
    levers' add up to 100.0 exactly; None where nothing was saved.
    """

    name: str
    before_pico: int
    after_pico: int
    without_only_this_pico: int
    saving_pico: int
    share_percent: str | None


class Savings(msgspec.Struct, kw_only=True):
    """`saving_pico` is `baseline_pico` - `spent_pico`, and the sum of the levers' savings; below zero is a loss.

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
    saving_pico: int


def savings(groups: Iterable[Spend], table: PriceTable, baseline_model: str) -> Savings:
    """The saving over all groups whose cost is recorded, against plain `claude -p` on `baseline_model`."""
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
    """A lever's part of the way from the first bill to the last, in percent."""
    if first <= last:
        return None
    begin, end = (round(Fraction((first - bill) * 1000, first - last)) for bill in (before, after))
    return f"{Decimal(end - begin) / 10:.1f}"


def _ways(group: Spend, table: PriceTable, baseline: str) -> tuple[list[int], list[int]] | None:
    """The bills from the baseline to the table's own in the order of the levers, and those without only one lever.

    None where one of them is not known. The last lever, price changes, has its bill in the ledgers.
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
    """What the same tokens cost on one model, all else as it was; None where a price is unknown for some of them."""

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
    """(pico-dollars by the price table of each request's time, requests it has no price for)."""
    bills = [(group.usage.requests, _bill(table, group, group.model)) for group in groups]
    return sum(bill or 0 for _, bill in bills), sum(requests for requests, bill in bills if bill is None)
