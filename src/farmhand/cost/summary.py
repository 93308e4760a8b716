"""All figures of `farmhand cost` in one structure: whole pico-dollars inside, exact decimal strings in the document.

Days are UTC. An unknown value is None and counted separately; it is never zero.
"""

from __future__ import annotations

import calendar
import json
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec

from farmhand.core.money import pico, plain
from farmhand.core.prices import PriceTable
from farmhand.core.readable import counted, money
from farmhand.cost import queries
from farmhand.cost.compute import ComputeSpent, add_compute, compute_spent, read_compute
from farmhand.cost.queries import DAY_S, Part, Sums, Unpriced, day_text
from farmhand.cost.savings import OnModel, Savings, on_each_model, repriced, savings
from farmhand.cost.store import GATEWAY, CostStore

#: The version of the JSON document.
DOCUMENT_VERSION = 1
#: The project's goal: the baseline's bill as a multiple of the spending.
TARGET = (10, 20)
#: Number of whole days that a projection's pace is taken from.
PACE_DAYS = 7
MONTH_DAYS = 30
#: The amounts of a day budget, as agents report it.
_AMOUNTS = ("limit_usd", "spent_usd", "reserved_usd")


class Basis(NamedTuple):
    """The basis of figures: the first day (since 1970), and the time of the request (Unix seconds).

    `baseline` is the model for comparison, `boxes` the monthly price of each host in pico-dollars (None if unknown),
    `errors` why hosts could not be asked.
    """

    since_day: int
    now: float
    baseline: str
    boxes: dict[str, int | None]
    errors: dict[str, str]


class HostState(msgspec.Struct, kw_only=True):
    """The state of a host's data. `error` says why the host could not be asked; its last figures are kept.

    `merged_at` is Unix seconds, None if nothing was ever merged. `missing` counts charges that the host deleted before
    they were merged; no sum includes their cost.
    """

    host: str
    merged_at: float | None
    missing: int = 0
    error: str | None = None


class DayBudget(msgspec.Struct):
    """A host's budget of the day `day`, as last reported by the host."""

    host: str
    day: str
    limit_pico: int
    spent_pico: int
    reserved_pico: int
    left_pico: int


class Uncertain(msgspec.Struct):
    """Requests that may have been charged at an unknown cost, and the most they can have cost. No sum includes them."""

    requests: int
    upper_bound_pico: int | None


class KeptLocal(msgspec.Struct):
    """The gateway's turns that a model on the operator's machine answered, and what they would have cost at list price.

    It is no saving: a paid model would have been asked other things, and its answers might have needed fewer turns.
    `without_price` of the turns have no list price.
    """

    turns: int
    list_pico: int
    without_price: int


class Spent(msgspec.Struct, kw_only=True):
    """The spending since `since`, today, and in this month, and the month's projection at the recent pace."""

    since: str
    days: int
    total_pico: int
    per_day_pico: int
    today_pico: int
    month_pico: int
    projection_month_pico: int
    budget_month_pico: int | None


class Target(msgspec.Struct):
    """The target of 10 to 20 times (baseline's bill / ours, rounded down). Verdicts: missed, met, above, unknown."""

    low: int
    high: int
    factor: str | None
    verdict: str
    factor_with_box: str | None
    verdict_with_box: str


class Box(msgspec.Struct, kw_only=True):
    """The hosts' own monthly price, and the tasks per month that pay for it. None if unknown or never."""

    usd_month_pico: int | None
    hosts_without_price: list[str]
    tasks_a_month: int
    break_even_tasks_a_month: int | None
    verdict: str


class Figures(msgspec.Struct, kw_only=True):
    """All figures. `groups` are grouped by `by` and add up to `whole`.

    All money is the model's but what `compute` has, which is None if nothing ever ran in containers on AWS.
    """

    version: int = DOCUMENT_VERSION
    price_version: str
    generated_at: str
    hosts: list[HostState]
    spent: Spent
    whole: Part
    by: str
    groups: list[Part]
    days: list[Part]
    unpriced: list[Unpriced]
    uncertain: Uncertain
    budgets: list[DayBudget]
    models: list[OnModel]
    savings: Savings
    target: Target
    box: Box
    subscription: str
    compute: ComputeSpent | None = None
    kept_local: KeptLocal | None = None
    repriced_pico: int | None = None
    repriced_unpriced: int | None = None


def figures(
    store: CostStore, table: PriceTable, everything: Sums, basis: Basis, *, by: str, reprice: bool = False
) -> Figures:
    """Return the figures of `everything` in the store.

    `by` is the key that `everything` was read with, or one that `queries.parts` supports anyway.
    """
    first, today = everything.first_day, int(basis.now // DAY_S)
    start = max(basis.since_day, today if first is None else first)
    days = max(1, today - start + 1)
    sums = everything.since(basis.since_day)
    priced = queries.price_groups(sums.spend, table)
    ran = read_compute(store, basis.since_day)
    [whole] = add_compute(queries.parts(sums, "") or [Part()], ran, "")
    # A turn of the gateway has no other way to be done that these figures could compare it with.
    of_farm = [group for group in priced if group.engine != GATEWAY]
    saved = savings(of_farm, table, basis.baseline)
    budgets = _budgets(store)
    paid = [group for group in priced if group.engine != GATEWAY or group.pico != 0]
    again = repriced(paid, table) if reprice else (None, None)
    box = _box(basis.boxes, whole, saved, days)
    # What the same work costs on the plan: no extra dollars, but a share of limits that have no price.
    subscription = (
        f"{counted(whole.tasks, 'task')}, {whole.prompt_tokens} tokens in and {whole.output_tokens} out would be"
        " US$0.00 more, drawn on the plan's own limits"
    )
    return Figures(
        price_version=table.version,
        generated_at=_moment(basis.now),
        hosts=_hosts(store, basis.errors),
        spent=_spent(everything, whole, start, days, basis.now, budgets),
        whole=whole,
        by=by,
        groups=add_compute(queries.parts(sums, by), ran, by),
        days=add_compute(queries.parts(sums, "day"), ran, "day"),
        unpriced=queries.unpriced(sums),
        uncertain=_uncertain(store, basis.since_day),
        budgets=budgets,
        models=on_each_model([group for group in of_farm if group.pico is not None], table),
        savings=saved,
        target=_target(saved, box, days),
        box=box,
        subscription=subscription,
        compute=compute_spent(ran, whole.spent_pico),
        kept_local=_kept_local(store, basis.since_day),
        repriced_pico=again[0],
        repriced_unpriced=again[1],
    )


def _moment(at: float) -> str:
    return datetime.fromtimestamp(int(at), UTC).isoformat().replace("+00:00", "Z")


def _hosts(store: CostStore, errors: dict[str, str]) -> list[HostState]:
    query = (
        "SELECT host, max(merged_at), sum(charge_no - (SELECT count(*) FROM charge WHERE ledger = l.id))"
        " FROM ledger AS l GROUP BY host"
    )
    known = {host: HostState(host=host, merged_at=at, missing=missing) for host, at, missing in store.rows(query)}
    for host, error in errors.items():
        known.setdefault(host, HostState(host=host, merged_at=None)).error = error
    return [known[host] for host in sorted(known)]


def _uncertain(store: CostStore, since_day: int) -> Uncertain:
    # Summed here, since hosts could claim bounds that overflow SQLite's sums.
    query = "SELECT uncertain, uncertain_pico FROM done WHERE uncertain > 0 AND finished_at >= ?"
    rows = store.rows(query, (since_day * DAY_S,))
    held = "SELECT 1, held FROM turn WHERE held > 0 AND created_at >= ?"
    rows += store.rows(held, (since_day * DAY_S,))
    known = [bound for _, bound in rows if bound is not None]
    return Uncertain(sum(requests for requests, _ in rows), sum(known) if len(known) == len(rows) else None)


def _kept_local(store: CostStore, since_day: int) -> KeptLocal | None:
    query = "SELECT list_pico FROM turn WHERE local AND created_at >= ?"
    rows = [listed for (listed,) in store.rows(query, (since_day * DAY_S,))]
    known = [listed for listed in rows if listed is not None]
    return KeptLocal(len(rows), sum(known), len(rows) - len(known)) if rows else None


def _budgets(store: CostStore) -> list[DayBudget]:
    found = []
    query = "SELECT host, budget FROM ledger WHERE budget IS NOT NULL ORDER BY host, merged_at"
    for host, text in store.rows(query):
        budget = json.loads(text, parse_float=Decimal)
        limit, spent, reserved = (pico(Decimal(budget.get(name) or 0)) for name in _AMOUNTS)
        found.append(DayBudget(host, str(budget.get("day", "")), limit, spent, reserved, limit - spent - reserved))
    return found


def _spent(everything: Sums, whole: Part, start: int, days: int, now: float, budgets: list[DayBudget]) -> Spent:
    today, date = int(now // DAY_S), datetime.fromtimestamp(now, UTC).date()
    month_days = calendar.monthrange(date.year, date.month)[1]
    month = everything.spent(today - date.day + 1, today + 1)
    of_today = everything.spent(today, today + 1)
    # The pace: of the last whole days, or today's if there are none.
    whole_days = 0 if everything.first_day is None else min(PACE_DAYS, today - everything.first_day)
    pace = everything.spent(today - whole_days, today) // whole_days if whole_days > 0 else of_today
    return Spent(
        since=day_text(start),
        days=days,
        total_pico=whole.spent_pico,
        per_day_pico=whole.spent_pico // days,
        today_pico=of_today,
        month_pico=month,
        projection_month_pico=month + pace * (month_days - date.day),
        budget_month_pico=sum(budget.limit_pico for budget in budgets) * month_days if budgets else None,
    )


def _target(saved: Savings, box: Box, days: int) -> Target:
    low, high = TARGET

    def judge(factor: Fraction | None) -> tuple[str | None, str]:
        if factor is None:
            return None, "unknown"
        verdict = "missed" if factor < low else "met" if factor <= high else "above"
        shown = (Decimal(factor.numerator) / Decimal(factor.denominator)).quantize(Decimal("0.01"), ROUND_DOWN)
        return str(shown), verdict

    alone = Fraction(saved.baseline_pico, saved.spent_pico) if saved.spent_pico else None
    with_box = None
    if box.usd_month_pico is not None and saved.baseline_pico:
        ours = Fraction(saved.spent_pico * MONTH_DAYS, days) + box.usd_month_pico
        with_box = Fraction(saved.baseline_pico * MONTH_DAYS, days) / ours if ours else None
    return Target(low, high, *judge(alone), *judge(with_box))


def _box(boxes: dict[str, int | None], whole: Part, saved: Savings, days: int) -> Box:
    missing = sorted(host for host, price in boxes.items() if price is None)
    total = sum(price or 0 for price in boxes.values()) if boxes and not missing else None
    pace = whole.tasks * MONTH_DAYS // days
    even = None
    if total is None:
        verdict = "unknown: set box_usd_month"
    elif not whole.tasks:
        verdict = "unknown: no task is finished"
    elif saved.saving_pico <= 0:
        verdict = "never: a task saves nothing"
    else:
        even = -(-total * whole.tasks // saved.saving_pico)
        verdict = "pays for itself" if pace >= even else "does not pay for itself at this pace"
    return Box(
        usd_month_pico=total,
        hosts_without_price=missing,
        tasks_a_month=pace,
        break_even_tasks_a_month=even,
        verdict=verdict,
    )


def headline(found: Figures) -> dict[str, str]:
    """Return what it cost, as one number, and a sentence on what it would have cost: factor and verdict.

    What cannot be compared (no price is known, or it is a turn of the gateway) is said, and never counted as saved.
    """
    saved, target, whole = found.savings, found.target, found.whole
    if target.factor is None:
        said = "There is nothing yet that it could be compared with."
    else:
        compared = "" if saved.spent_pico == whole.spent_pico else f"{money(saved.spent_pico)} of it can be compared: "
        less = f"{target.factor} times as much" if saved.saving_pico >= 0 else f"{target.factor} times that, so less"
        said = (
            f"{compared}plain claude -p on {saved.baseline_model} would have cost {money(saved.baseline_pico)}, {less}."
            f" Target {target.low}-{target.high}x: {target.verdict}."
        )
        said = said[:1].upper() + said[1:]
    if whole.unpriced:
        said += f" Without a known price, and in no sum: {counted(whole.unpriced, 'request')}."
    return {"spent": money(whole.spent_pico), "tasks": counted(whole.tasks, "task"), "said": said}


def document(found: msgspec.Struct) -> dict[str, Any]:
    """Return figures as JSON data: exact strings in US$ named `…_usd`, times in RFC 3339, no floats for money."""
    built: dict[str, Any] = _shown(msgspec.to_builtins(found))
    return built


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return [_shown(part) for part in value]
    if not isinstance(value, dict):
        return value
    answer = {}
    for name, part in value.items():
        if name.endswith("_pico"):
            name = name.removesuffix("_pico")
            answer[name if "usd" in name.split("_") else f"{name}_usd"] = None if part is None else plain(part)
        elif name.endswith("_at") and isinstance(part, float):
            answer[name] = _moment(part)
        else:
            answer[name] = _shown(part)
    return answer
