"""What `farmhand batch` says at its end: one line of figures, and why lines failed."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from farmhand.batch.failures import CAUSES
from farmhand.core.readable import counted, dollars, duration, local_time

#: What is said of tasks for which the budget had no room at the price that was asked.
_BENT = {
    "economy": "went on at half price when the budget had no more room",
    "haiku": "went on with haiku when the budget had no more room",
}


def summary(whole: dict[str, Any]) -> str:
    """Return the last line: counts, cost, time and rate; of a batch that was finished before, when and for how much."""
    left = f", {whole['left']} left" if whole["left"] else ""
    unpriced = f" ({whole['unpriced']} unpriced)" if whole["unpriced"] else ""
    states = f"{whole['done']} done, {whole['failed']} failed, {whole['cancelled']} cancelled{left}"
    cost, now = whole["cost_usd"], whole.get("cost_now_usd", whole["cost_usd"])
    of_it = f", {dollars(now)} of it now" if now != cost else ""
    bent = [f"{counted(times, 'task')} {_BENT[way]}" for way, times in whole.get("bent", {}).items()]
    parts = [
        f"{counted(whole['total'], 'task')}: {states}",
        f"{dollars(cost)}{unpriced}{of_it}",
        f"{counted(whole['uncertain'], 'request')} may have cost something besides" if whole["uncertain"] else "",
        f"{whole['twice']} ran twice, {dollars(whole['twice_usd'])} of it" if whole["twice"] else "",
        *bent,
        _of_place(whole.get("place") or {}),
        duration(whole["seconds"]),
        f"{whole['per_s']:.1f} tasks/s",
    ]
    if whole.get("before"):
        at = whole.get("finished_at")
        when = local_time(at, " on %Y-%m-%d at %H:%M") if at else ""
        then = f"{dollars(cost)}{unpriced} was spent then"
        parts = [
            f"{counted(whole['total'], 'task')}, finished before{when}: {states}",
            *bent,
            then,
            "nothing was spent now",
        ]
    return " · ".join(filter(None, parts))


def why_failed(whole: dict[str, Any], *, listed: bool) -> list[str]:
    """Return the lines that say why tasks failed, where they are, and how they run again.

    `listed`: `farmhand list` knows them too.
    """
    found = whole["failures"]
    if not found:
        return []
    said = [f"{one['times']} with {_said(one)}" for one in found[:CAUSES]]
    if rest := found[CAUSES:]:
        said.append(f"{sum(one['times'] for one in rest)} for other reasons")
    lines = sorted({n for one in found[:CAUSES] for n in one["lines"]})
    more = ", …" if len(lines) < sum(one["times"] for one in found) else ""
    also = f", or farmhand list --failed --batch {whole['batch']}" if listed else ""
    first = f"{', '.join(map(str, lines))}{more} of the input"
    return [
        f"not done: {'; '.join(said)}",
        f"{'line' if len(lines) == 1 and not more else 'lines'} {first}: see {whole['out']}{also}; "
        "the same command with --retry-failed runs them again",
    ]


def not_whole(whole: dict[str, Any]) -> list[str]:
    """Return the line that says which answers were cut off before their end; none if all are whole."""
    found = whole["cut_off"]
    if not found["times"]:
        return []
    more = ", …" if len(found["lines"]) < found["times"] else ""
    lines = f"{'line' if found['times'] == 1 else 'lines'} {', '.join(map(str, found['lines']))}{more} of the input"
    answers = counted(found["times"], "answer was", "answers were")
    return [f"{answers} cut off before the end: {lines} (raise --max-tokens)"]


def _said(cause: dict[str, Any]) -> str:
    hint = f" ({cause['hint']})" if cause["hint"] else ""
    return f"{cause['code']}{': ' if cause['message'] else ''}{cause['message']:.200}{hint:.200}"


def _of_place(place: dict[str, Any]) -> str:
    """Return what the place itself came to: containers, and what they cost."""
    if not place.get("attempts"):
        return ""
    again = sum(int(one["times"]) for one in place.get("retries") or [])
    retried = f", {again} of them started again" if again else ""
    return f"{counted(place['containers'], 'container')}{retried}, {dollars(Decimal(place['usd']))} for them"
