"""The same work done in four ways, by the operator's own ledgers: a plan's token or the metered key on Fargate, the
metered key on a box, Message Batches. And what was claimed of that, with an answer from these figures.

Amounts are rounded to a micro-dollar, in pico-dollars; what is not known is None. Months have 30 days, but 730 hours
where AWS bills by the hour.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec

from farmhand.aws.prices import HOURS, CloudPrices, billed_seconds, stale
from farmhand.core.money import pico, plain
from farmhand.core.prices import PriceTable
from farmhand.core.readable import counted
from farmhand.cost import queries
from farmhand.cost.compute import ComputeRow
from farmhand.cost.plans import PlanFigures
from farmhand.cost.queries import DAY_S, Sums
from farmhand.cost.savings import SentAs, sent_as
from farmhand.cost.store import CostStore
from farmhand.cost.summary import MONTH_DAYS, PACE_DAYS, Basis

TRUE, FALSE, UNKNOWN = "true", "not true", "unknown"
#: The sizes of containers by whether their tasks use tools: vCPU, MB. Source: aws/base.yaml.
SIZES = {False: (Decimal("0.5"), 1024), True: (Decimal(1), 4096)}
#: The longest that a host lets a task run (agent/config.py). A longer time is a clock that was set while it ran.
_LONGEST_S = 366 * DAY_S
_PER = 1000
_MICRO = 10**6


class WayCost(msgspec.Struct, kw_only=True):
    """One way: pico-dollars per 1,000 tasks. `standing` is the share of the network's or the box's month."""

    way: str
    model_pico: int | None
    compute_pico: int | None
    standing_pico: int | None
    total_pico: int | None
    remark: str


class ClaimAnswer(msgspec.Struct, kw_only=True):
    """A claim, whether it is `true`, `not true` or `unknown` by these figures, and why."""

    claim: str
    verdict: str
    answer: str


class DatedPrices(msgspec.Struct, kw_only=True):
    """A table of prices, the day on which it was read, and where."""

    what: str
    as_of: str
    source: str


class Comparison(msgspec.Struct, kw_only=True):
    """The comparison. `tasks` of `days` days are `tasks_a_month`.

    `compute` says how a task's containers were priced: `measured` by what ran on AWS, `estimated` by how long tasks
    ran, or `unknown`. `break_even…` are the tasks a month from which the box costs less than Fargate. `networks` is
    what each network that is up has cost, and its hours in which nothing ran.
    """

    tasks: int
    days: int
    tasks_a_month: int
    compute: str
    compute_task_pico: int | None
    box_usd_month_pico: int
    network_usd_month_pico: int
    break_even_tasks_a_month: int | None
    break_even_with_network: int | None
    ways: list[WayCost]
    verdicts: list[ClaimAnswer]
    prices: list[DatedPrices]
    notes: list[str]
    networks: list[dict[str, Any]] = []


class Given(NamedTuple):
    """What a comparison is made of: the tables of prices, the figures of plans, what containers came to.

    `network` is the mode of the network on AWS, private or public.
    """

    table: PriceTable
    cloud: CloudPrices
    plans: PlanFigures
    ran: list[ComputeRow]
    network: str


class _Work(NamedTuple):
    """The work of a period. `compute` is what one task's containers cost."""

    tasks: int
    days: int
    sent: SentAs
    basis: str
    compute: Fraction | None

    @property
    def pace(self) -> Fraction:
        """Return the tasks of a month."""
        return Fraction(self.tasks * MONTH_DAYS, self.days)

    def month(self, amount: int) -> int:
        """Return the part of an amount of the period that a month has."""
        return _micro(Fraction(amount * MONTH_DAYS, self.days))


def compare(store: CostStore, everything: Sums, basis: Basis, given: Given) -> Comparison:
    """Return the comparison of the work since the basis' first day."""
    today = int(basis.now // DAY_S)
    start = max(basis.since_day, today if everything.first_day is None else everything.first_day)
    sums = everything.since(basis.since_day)
    tasks = sum(row.tasks for row in sums.work if row.state != "refused")
    how, compute = _compute(store, sums, basis.since_day, given)
    sent = sent_as(queries.price_groups(sums.spend, given.table), given.table)
    work = _Work(tasks, max(1, today - start + 1), sent, how, compute)
    known = [price for price in basis.boxes.values() if price is not None]
    box = sum(known) if known and len(known) == len(basis.boxes) else pico(given.plans.box.usd_month)
    network = pico(given.cloud.network_hour(given.network) * HOURS)
    evens = _even(box, compute), _even(max(0, box - network), compute)
    return Comparison(
        tasks=tasks,
        days=work.days,
        tasks_a_month=math.floor(work.pace),
        compute=how,
        compute_task_pico=None if compute is None else _micro(compute),
        box_usd_month_pico=box,
        network_usd_month_pico=network,
        break_even_tasks_a_month=evens[0],
        break_even_with_network=evens[1],
        ways=_ways(work, box, network) if tasks else [],
        verdicts=[
            _saving(work, given.plans),
            _box_or_fargate(work, box, network, evens),
            _batches(work),
            _container(given.plans, given.cloud),
        ],
        prices=_dated(given),
        notes=_notes(work, basis, given),
    )


def _compute(store: CostStore, sums: Sums, since_day: int, given: Given) -> tuple[str, Fraction | None]:
    """Return how the containers of one task were priced, and the price."""
    hosts = {row.host for row in given.ran}
    there = sum(row.tasks for row in sums.work if row.host in hosts and row.state != "refused")
    paid = sum(row.pico or 0 for row in given.ran)
    if there and paid:
        return "measured", Fraction(paid, there)
    least = billed_seconds(1)
    sound = f"engine <> 'economy' AND finished_at BETWEEN started_at AND started_at + {_LONGEST_S}"
    ran = f"CASE WHEN {sound} THEN finished_at - started_at END"
    rows = store.rows(
        f"SELECT tools, count(*), count(s), sum(max({least}, CAST(s AS INTEGER) + (s > CAST(s AS INTEGER)))) FROM"  # noqa: S608
        f" (SELECT engine = 'cli' AS tools, {ran} AS s FROM done WHERE finished_at >= ? AND state <> 'refused')"
        " GROUP BY tools",
        (since_day * DAY_S,),
    )
    total, tasks = Fraction(0), 0
    for tools, count, known, seconds in rows:
        # Tasks whose own time is not known (Message Batches, a clock that was set) are as long as the others, or the
        # least that is billed.
        mean = Fraction(seconds, known) if known else Fraction(least)
        address = given.cloud.of["ipv4_hour"] if given.network == "public" else Decimal(0)
        hourly = given.cloud.hour_usd(*SIZES[bool(tools)]) + address
        total += count * mean * Fraction(hourly) * 10**12 / 3600
        tasks += count
    return ("estimated", total / tasks) if tasks else (UNKNOWN, None)


def _even(month: int, compute: Fraction | None) -> int | None:
    """Return the tasks a month whose containers cost as much as this."""
    return math.ceil(month / compute) if compute else None


def from_on(tasks: int | None) -> str:
    """Return from which number of tasks a month on something holds."""
    return f"from {tasks} tasks a month on" if tasks else "at any number of tasks"


def _ways(work: _Work, box: int, network: int) -> list[WayCost]:
    def per(amount: Fraction | int) -> int:
        return _micro(Fraction(amount) * _PER / work.tasks)

    calls, batches = per(work.sent.calls_pico), per(work.sent.batches_pico)
    compute = _micro((work.compute or Fraction(0)) * _PER)
    share, box_share = (_micro(month * _PER / work.pace) for month in (network, box))
    remark = {"measured": "as measured on AWS", "estimated": "each task in a container of its own, for its own time"}
    tools = "" if work.sent.batches_pico * 2 == work.sent.calls_pico else "; tasks with tools as calls"
    return [
        _way("plan's token on Fargate", 0, compute, share, f"the model at most {plain(calls)} of list price, drawn on "
             "the plan's shared limits; one task at a time, see docs/subscription.md for the terms"),
        _way("metered on Fargate", calls, compute, share, remark[work.basis]),
        _way("metered on a box", calls, 0, box_share, "its share of the box's month"),
        _way("Message Batches", batches, 0, 0, f"--economy; no container{tools}"),
    ]  # fmt: skip


def _way(name: str, model: int, compute: int, standing: int, remark: str) -> WayCost:
    total = model + compute + standing
    return WayCost(
        way=name, model_pico=model, compute_pico=compute, standing_pico=standing, total_pico=total, remark=remark
    )


def _saving(work: _Work, plans: PlanFigures) -> ClaimAnswer:
    claim = plans.saving
    if not work.tasks or not work.sent.requests:
        return ClaimAnswer(claim=claim.claim, verdict=UNKNOWN, answer="not enough data: no priced task in this period")
    month = work.month(work.sent.calls_pico)
    low, high = pico(claim.low_usd_month), pico(claim.high_usd_month)
    answer = (
        f"at list price your work is US$ {plain(month)} a month by the metered key. A token of the plan saves that at "
        "the most, if the plan's limits have room; Fargate is paid either way"
    )
    if month < low and work.sent.left_out:
        return ClaimAnswer(
            claim=claim.claim,
            verdict=UNKNOWN,
            answer=counted(work.sent.left_out, "request has", "requests have") + " no price",
        )
    if month > high:
        answer += ". It is more than was claimed"
    paid = [name for name, usd in plans.credits_usd_month.items() if pico(usd) >= month]
    if paid:
        answer += f". The API credits of the plans {', '.join(paid)} pay it by the metered key: then it saves nothing"
    return ClaimAnswer(claim=claim.claim, verdict=FALSE if month < low else TRUE, answer=answer)


def _box_or_fargate(work: _Work, box: int, network: int, evens: tuple[int | None, int | None]) -> ClaimAnswer:
    claim = "Fargate costs less than a box for your work"
    if work.compute is None:
        return ClaimAnswer(claim=claim, verdict=UNKNOWN, answer="not enough data: no task has ended in this period")
    compute = _micro(work.compute * work.pace)
    answer = (
        f"at {math.floor(work.pace)} tasks a month: Fargate US$ {plain(compute + network)} (containers {plain(compute)}"
        f", network {plain(network)}), the box {plain(box)}"
    )
    if evens[0] is not None:
        answer += f". The box costs less {from_on(evens[1])}, and {from_on(evens[0])} without the network"
    return ClaimAnswer(claim=claim, verdict=TRUE if compute + network < box else FALSE, answer=answer)


def _batches(work: _Work) -> ClaimAnswer:
    claim, sent = "Message Batches cost half", work.sent
    if not sent.calls_pico:
        return ClaimAnswer(claim=claim, verdict=UNKNOWN, answer="not enough data: no priced request in this period")
    part = Decimal(round(Fraction(sent.batches_pico * 1000, sent.calls_pico))) / 10
    answer = f"{part:.1f} % of the price of calls: US$ {plain(sent.batches_pico)} instead of {plain(sent.calls_pico)}"
    half = sent.batches_pico * 2 <= sent.calls_pico
    if not half:
        answer += "; tasks with tools cannot be in one"
    return ClaimAnswer(claim=claim, verdict=TRUE if half else FALSE, answer=answer)


def _container(plans: PlanFigures, cloud: CloudPrices) -> ClaimAnswer:
    claim = plans.container
    usd = cloud.task_usd(claim.vcpu, claim.memory_mb, Decimal(claim.seconds))
    answer = f"US$ {plain(_micro(Fraction(pico(usd))))} by the prices of {cloud.region} of {cloud.as_of}"
    holds = usd.quantize(claim.usd) == claim.usd
    return ClaimAnswer(claim=claim.claim, verdict=TRUE if holds else FALSE, answer=answer)


def _micro(amount: Fraction) -> int:
    """Return pico-dollars, rounded to a micro-dollar."""
    return round(amount / _MICRO) * _MICRO


def _dated(given: Given) -> list[DatedPrices]:
    table, cloud, plans = given.table, given.cloud, given.plans
    return [
        DatedPrices(what="models", as_of=table.version, source=table.source),
        DatedPrices(what=f"AWS, {cloud.region}", as_of=cloud.as_of.isoformat(), source=cloud.source),
        DatedPrices(what="plans and the box", as_of=plans.as_of.isoformat(), source=plans.source),
    ]


def _notes(work: _Work, basis: Basis, given: Given) -> list[str]:
    today = datetime.fromtimestamp(basis.now, UTC).date()
    lines = [given.cloud.note]
    read = {"models": date.fromisoformat(given.table.version[:10]), "plans and the box": given.plans.as_of}
    lines += [stale(f"the prices of {what}", day, today) for what, day in read.items()]
    if work.tasks and work.days < PACE_DAYS:
        lines.append(f"a month is reckoned from {counted(work.days, 'day')} only")
    if work.sent.left_out:
        lines.append(counted(work.sent.left_out, "request has", "requests have") + " no price: in no sum")
    if unknown := sum(row.runs for row in given.ran if row.pico is None):
        lines.append(f"the time of {counted(unknown, 'container')} on AWS is not known, and is in no sum")
    return [line for line in lines if line]
