"""Our sum of a month beside the provider's: typed in from the Console, or of the Admin report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal

import msgspec

from farmhand.core.errors import UsageError
from farmhand.core.money import pico
from farmhand.core.readable import counted
from farmhand.cost.admin import AdminApi
from farmhand.cost.queries import Part

_GIVEN = re.compile(r"(\d{4})-(\d{2})=(?:US)?\$?(\d{1,9}(?:\.\d{1,12})?)", re.ASCII)
#: A difference up to this share of the provider's sum, or up to a cent, to which the Console rounds, is none.
_SHARE, _CENT = 100, 10**10
_EPOCH = date(1970, 1, 1)
#: The provider's report is asked for no more months than these, the newest.
_MOST_MONTHS = 12
TYPED, REPORTED = "typed in", "admin report"
_SAID = {
    "agrees": "no difference to speak of",
    "ours is lower": "others may use the organisation's keys, or a price is out of date: farmhand prices check",
    "ours is higher": "a price may be out of date: farmhand prices check",
    "nothing of ours": "no ledger here has a request of this month",
}


class MonthCheck(msgspec.Struct, kw_only=True, frozen=True):
    """A month: ours, the provider's, and the provider's minus ours, also in per cent of the provider's.

    `source` is where the provider's figure is from. `percent` is None if the provider's is 0.
    """

    month: str
    source: str
    theirs_pico: int
    ours_pico: int
    difference_pico: int
    percent: str | None
    verdict: str
    said: str


def typed_in(given: Iterable[str], today: date) -> dict[str, int]:
    """Return pico-dollars by month, of `2026-10=12.34` each. Raise UsageError."""
    found: dict[str, int] = {}
    for text in given:
        parts = _GIVEN.fullmatch(text.strip())
        if parts is None or not 1 <= int(parts[2]) <= 12:
            raise UsageError(f"--console-usd {text!r:.60} is not a month and US$", hint="such as 2026-10=12.34")
        month = f"{parts[1]}-{parts[2]}"
        if month in found:
            raise UsageError(f"--console-usd has two figures of {month}", hint="give one")
        if month > f"{today:%Y-%m}":
            raise UsageError(f"--console-usd {month}: that month is still to come")
        found[month] = pico(Decimal(parts[3]))
    return found


def reported(api: AdminApi, first: int, today: date) -> dict[str, int]:
    """Return the provider's pico-dollars by month, from that of the day `first` (since 1970) to this one.

    Raise ProviderFailed.
    """
    month = max(date.fromordinal(_EPOCH.toordinal() + first).replace(day=1), _back(today, _MOST_MONTHS - 1))
    found: dict[str, int] = {}
    while month <= today:
        after = _back(month, -1)
        end = min((after - _EPOCH).days, (today - _EPOCH).days + 1)
        found[f"{month:%Y-%m}"] = api.spent_pico((month - _EPOCH).days, end)
        month = after
    return found


def _back(day: date, months: int) -> date:
    """Return the first day of the month so many months before that of `day`."""
    number = day.year * 12 + day.month - 1 - months
    return date(number // 12, number % 12 + 1, 1)


def month_checks(theirs: Mapping[str, Mapping[str, int]], days: Iterable[Part], today: date) -> list[MonthCheck]:
    """Compare the provider's months, by source, with the sums of our days. The keys of `days` are days."""
    ours: dict[str, tuple[int, int, int]] = {}
    for day in days:
        spent, requests, unknown = ours.get(day.key[:7], (0, 0, 0))
        ours[day.key[:7]] = spent + day.spent_pico, requests + day.requests, unknown + day.unpriced + day.uncertain
    found = [
        _check(month, source, amount, *ours.get(month, (0, 0, 0)), today=today)
        for source, months in theirs.items()
        for month, amount in months.items()
    ]
    return sorted(found, key=lambda one: (one.month, one.source))


def _check(month: str, source: str, theirs: int, spent: int, requests: int, unknown: int, *, today: date) -> MonthCheck:
    difference = theirs - spent
    if abs(difference) <= max(theirs // _SHARE, _CENT):
        verdict = "agrees"
    elif not requests:
        verdict = "nothing of ours"
    else:
        verdict = "ours is lower" if difference > 0 else "ours is higher"
    said = _SAID[verdict]
    if unknown and verdict != "agrees":
        said = f"{counted(unknown, 'request')} of ours without a known cost; {said}"
    if month == f"{today:%Y-%m}":
        said += "; the month is not over"
    percent = f"{Decimal(difference * 100) / theirs:.1f}" if theirs else None
    return MonthCheck(
        month=month,
        source=source,
        theirs_pico=theirs,
        ours_pico=spent,
        difference_pico=difference,
        percent=percent,
        verdict=verdict,
        said=said,
    )
