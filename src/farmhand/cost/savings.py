"""The cost of the same work done otherwise, and the saving of each lever: whole pico-dollars, no rounding.

A lever saves the bill before it minus the bill after it, in a fixed order from plain `claude -p` on the baseline model,
uncached and without batch discount, to the recorded cost. So the savings add up exactly. The overhead is always priced
as cache reads, since the CLI caches it: the best case for the alternative.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

import msgspec

from farmhand.core.prices import PriceTable
from farmhand.core.task import Usage
from farmhand.cost.overhead import LEAN_ENGINES, OVERHEAD_TOKENS
from farmhand.cost.queries import DAY_S, Spend


class _Way(NamedTuple):
    """A way to do the same work; by default as it was done.

    `baseline`: on the baseline model. `plain`: with the overhead. `fresh`: with the whole prompt as uncached input.
    `single`: without the batch discount. `batched`: all of it with that discount.
    """

    baseline: bool = False
    plain: bool = False
    fresh: bool = False
    single: bool = False
    batched: bool = False


_AS_DONE = _Way()
#: Each lever: the way before it, and the way without only this lever. After the last comes the recorded cost.
_WAYS = {
    "cheaper model": (_Way(baseline=True, plain=True, fresh=True, single=True), _Way(baseline=True)),
    "lean prompts": (_Way(plain=True, fresh=True, single=True), _Way(plain=True)),
    "caching": (_Way(fresh=True, single=True), _Way(fresh=True)),
    "batch discount": (_Way(single=True), _Way(single=True)),
    "price changes": (_AS_DONE, _AS_DONE),
}
LEVERS = tuple(_WAYS)


def _overhead(group: Spend) -> int:
    """Return the extra tokens per request of plain `claude -p`."""
    return OVERHEAD_TOKENS if group.engine in LEAN_ENGINES else 0


def _bill(table: PriceTable, group: Spend, model: str, way: _Way = _AS_DONE) -> int | None:
    """Return the cost on `model` of the group's requests, done in this way; None if a price is unknown."""
    overhead = _overhead(group) if way.plain else 0
    economy = (group.economy or way.batched) and not way.single
    rates = table.rates(model, group.prompt + overhead, economy=economy, at=float(group.day * DAY_S))
    usage = group.usage
    if way.fresh:
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
    """The whole saving: `saving_pico` is `baseline_pico` - `spent_pico`, the sum of the levers' savings.

    It covers the requests that can be priced in every way; the `left_out_requests` others cost `left_out_pico`.
    `overhead_uncached_pico` is the cost of the overhead without caching, not part of the saving.
    """

    baseline_model: str
    baseline_pico: int = 0
    spent_pico: int = 0
    requests: int = 0
    levers: list[Lever] = []
    left_out_requests: int = 0
    left_out_pico: int = 0
    overhead_uncached_pico: int = 0
    saving_pico: int = 0


def savings(groups: Iterable[Spend], table: PriceTable, baseline_model: str) -> Savings:
    """Return the saving of all groups with a recorded cost, compared with plain `claude -p` on `baseline_model`."""
    found = Savings(baseline_model=baseline_model)
    sums = {way: 0 for pair in _WAYS.values() for way in pair}
    for group in groups:
        bills = {way: _bill(table, group, baseline_model if way.baseline else group.model, way) for way in sums}
        known = {way: bill for way, bill in bills.items() if bill is not None}
        if group.pico is None or len(known) < len(bills):
            found.left_out_requests += group.usage.requests
            found.left_out_pico += group.pico or 0
            continue
        for way, bill in known.items():
            sums[way] += bill
        found.requests += group.usage.requests
        found.spent_pico += group.pico
        own = table.rates(group.model, group.prompt + _overhead(group), at=float(group.day * DAY_S))
        found.overhead_uncached_pico += _overhead(group) * group.usage.requests * (own.input if own else 0)
    bills_before = [sums[before] for before, _ in _WAYS.values()]
    first, last = bills_before[0], found.spent_pico
    found.baseline_pico, found.saving_pico = first, first - last
    found.levers = [
        Lever(
            name=name,
            before_pico=before,
            after_pico=after,
            without_only_this_pico=sums[alone],
            saving_pico=before - after,
            share_percent=_share(first, before, after, last),
        )
        for (name, (_, alone)), before, after in zip(
            _WAYS.items(), bills_before, [*bills_before[1:], last], strict=True
        )
    ]
    return found


def _share(first: int, before: int, after: int, last: int) -> str | None:
    """Return a lever's share in percent of the difference between the first and the last bill."""
    if first <= last:
        return None
    begin, end = (round(Fraction((first - bill) * 1000, first - last)) for bill in (before, after))
    return f"{Decimal(end - begin) / 10:.1f}"


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


class SentAs(NamedTuple):
    """The price of the same requests by the table, sent one by one, and as Message Batches where that is possible.

    A task with tools cannot be in a Message Batch, so its requests are priced one by one in both. The `left_out`
    requests have no price, and are in neither.
    """

    calls_pico: int
    batches_pico: int
    requests: int
    left_out: int


def sent_as(groups: Iterable[Spend], table: PriceTable) -> SentAs:
    """Return the price of all groups in both ways."""
    calls = batches = requests = left_out = 0
    for group in groups:
        one = _bill(table, group, group.model, _Way(single=True))
        other = one if group.engine == "cli" else _bill(table, group, group.model, _Way(batched=True))
        if one is None or other is None:
            left_out += group.usage.requests
            continue
        calls, batches, requests = calls + one, batches + other, requests + group.usage.requests
    return SentAs(calls, batches, requests, left_out)
