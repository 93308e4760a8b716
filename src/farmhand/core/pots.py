"""Pots: API keys with what is in them, by name. A pot is filled each month, or once, and ends on a day if that is set.

Days are UTC. Standard library only: the action plugins read them where nothing but Ansible is installed.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_DOWN, Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any, NamedTuple

from . import readable
from .errors import NotConfigured, UsageError
from .money import pico

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
WAYS = ("park", "next")
#: The largest amount, in US$: that of a budget.
_MOST_USD = 1_000_000
_MICRO = Decimal("0.000001")
_NONE: Mapping[str, float | None] = MappingProxyType({})


class PotSettings(NamedTuple):
    """A table `[pots.NAME]` of config.toml. Without `funding_usd` nothing is counted: the key is simply paid.

    None stands for what is left out: it is filled once, it never expires.
    """

    name: str
    key_source: str
    funding_usd: Decimal | None = None
    cycle_day: int | None = None
    expires: str | None = None
    when_spent: str = WAYS[0]


def _turns(year: int, month: int, day: int) -> date:
    """Return the day of that month on which a cycle turns: its last one where it has fewer days."""
    return date(year, month, min(day, monthrange(year, month)[1]))


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def period(cycle_day: int | None, expires: str | None, at: float) -> tuple[float, float | None]:
    """Return since when what was spent counts, and until when the pot lasts or None: Unix seconds.

    Without a `cycle_day` all counts that was ever spent. `expires` is the first day without the pot.
    """
    since, until = 0.0, None
    if cycle_day is not None:
        today = datetime.fromtimestamp(at, UTC).date()
        first = today.replace(day=1)
        this = _turns(today.year, today.month, cycle_day)
        if today < this:
            last = first - timedelta(days=1)
            before, after = _turns(last.year, last.month, cycle_day), this
        else:
            then = first + timedelta(days=31)
            before, after = this, _turns(then.year, then.month, cycle_day)
        since, until = _midnight(before), _midnight(after)
    if expires is not None:
        end = _midnight(date.fromisoformat(expires))
        until = end if until is None else min(until, end)
    return since, until


class Left(NamedTuple):
    """What is left in a pot, in pico-dollars, until when (Unix seconds, None: for good), and that in words.

    `api_closed_at`: when the API refused to be paid by it, in Unix seconds, if it pays for nothing since then.
    """

    name: str
    left_pico: int
    until: float | None
    said: str
    api_closed_at: float | None = None


def since(pots: Sequence[PotSettings], at: float) -> dict[str, float]:
    """Return since when the charges of each pot with a funding count, in Unix seconds."""
    return {pot.name: period(pot.cycle_day, pot.expires, at)[0] for pot in pots if pot.funding_usd is not None}


def left(
    pots: Sequence[PotSettings], spent: Mapping[str, int], at: float, closed: Mapping[str, float | None] = _NONE
) -> list[Left]:
    """Return what is left in each pot with a funding, given the pico-dollars that its charges since then come to.

    Those in `closed` pay for nothing now; with a time (Unix seconds) if the API has said so then.
    """
    found = []
    for pot in pots:
        if pot.funding_usd is None:
            continue
        _, until = period(pot.cycle_day, pot.expires, at)
        rest = max(0, pico(pot.funding_usd) - spent.get(pot.name, 0))
        said = in_words(
            pot.name, rest, pot.funding_usd, until, at, spent=pot.name in closed, api_closed_at=closed.get(pot.name)
        )
        found.append(Left(pot.name, rest, until, said, closed.get(pot.name)))
    return found


def in_words(
    name: str,
    left_pico: int,
    of: Decimal,
    until: float | None,
    at: float,
    *,
    spent: bool = False,
    api_closed_at: float | None = None,
) -> str:
    """Return `pot plan: US$ 63.00 of 100 left, 12 days`; a pot that is `spent`, or expired, is said to be.

    Of one that the API has closed only our own ledger says what is left.
    """
    by_api = ""
    if api_closed_at is not None:
        by_api = f"closed by the API on {datetime.fromtimestamp(api_closed_at, UTC).date()}; by our ledger "
    text = f"pot {name}: {by_api}{readable.money(left_pico)} of {of.normalize():,f} left"
    if until is not None and until <= at:
        return f"{text}, and it has expired"
    text += "" if until is None else f", {readable.duration(until - at)}"
    return f"{text}; it is spent" if spent and not by_api else text


def has_expired(expires: str | None, at: float) -> bool:
    """Return whether the day `expires` has come."""
    return expires is not None and at >= _midnight(date.fromisoformat(expires))


def check(cycle_day: object, expires: object, when_spent: object, *, funded: bool) -> str:
    """Return the rule that the funding of a pot breaks, or ""; None: not given."""
    if cycle_day is not None and (type(cycle_day) is not int or not 1 <= cycle_day <= 31):
        return f"cycle_day is {cycle_day!r:.40}, not 1 to 31 (leave it out if it is filled once)"
    if when_spent not in WAYS:
        return f"when_spent is {when_spent!r:.40}, not one of {', '.join(WAYS)}"
    try:
        if expires is not None and not (isinstance(expires, str) and 1971 <= date.fromisoformat(expires).year <= 2098):
            raise ValueError
    except ValueError:
        return f"expires is {expires!r:.40}, not a day such as 2027-11-01 (leave it out for never)"
    if not funded and ((cycle_day, expires) != (None, None) or when_spent != WAYS[0]):
        return "cycle_day, expires and when_spent need funding_usd"
    return ""


def amount(value: object) -> Decimal | None:
    """Return an amount in whole micro-dollars, above 0; None if `value` is none."""
    try:
        usd = Decimal(str(value))
        whole = not isinstance(value, bool) and usd.is_finite() and 0 < usd <= _MOST_USD and usd * 10**6 % 1 == 0
    except (InvalidOperation, ValueError):
        return None
    return usd if whole else None


def read(tables: object, where: str) -> tuple[PotSettings, ...]:
    """Return the pots in the tables `[pots.NAME]` of the settings file `where`, in their order. Raise NotConfigured."""
    if not isinstance(tables, dict) or not tables:
        raise NotConfigured(f"{where}: pots is no table", hint="[pots.NAME], with key_source in it")
    pots = [_pot(str(name), table, f"{where}: pots.{str(name)!s:.40}") for name, table in tables.items()]
    if pots[-1].when_spent == "next":
        what = f"{where}: pots.{pots[-1].name}.when_spent is next, and it is the last pot"
        raise NotConfigured(what, hint="the next one is the table after it")
    return tuple(pots)


def _pot(name: str, table: object, where: str) -> PotSettings:
    if not NAME.fullmatch(name):
        raise NotConfigured(f"{where}: the name does not match {NAME.pattern}")
    if not isinstance(table, dict) or not isinstance(table.get("key_source"), str) or not table["key_source"]:
        raise NotConfigured(f"{where}.key_source is missing", hint='such as "file:~/repos.env#PLAN_KEY"')
    odd = sorted(table.keys() - set(PotSettings._fields[1:]))
    if odd:
        raise NotConfigured(f"{where}: unknown key {odd[0]!r}", hint=f"known: {', '.join(PotSettings._fields[1:])}")
    funding = amount(table["funding_usd"]) if "funding_usd" in table else None
    if "funding_usd" in table and funding is None:
        raise NotConfigured(f"{where}.funding_usd is {table['funding_usd']!r:.40}, not US$ above 0 in micro-dollars")
    expires = table.get("expires")
    expires = expires.isoformat() if type(expires) is date else expires
    pot = PotSettings(
        name, table["key_source"], funding, table.get("cycle_day"), expires, table.get("when_spent", WAYS[0])
    )
    if broken := check(pot.cycle_day, expires, pot.when_spent, funded=funding is not None):
        raise NotConfigured(f"{where}: {broken}")
    return pot


def chosen(pots: Sequence[PotSettings], name: str) -> PotSettings:
    """Return the pot of that name; the first for "". Raise UsageError."""
    by_name = {pot.name: pot for pot in pots}
    if not name and pots:
        return pots[0]
    if name not in by_name:
        hint = f"known: {', '.join(by_name)}" if pots else "config.toml has no table [pots.NAME]"
        raise UsageError(f"there is no pot {name!r:.80}", hint=hint)
    return by_name[name]


def led_to(pots: Sequence[PotSettings], name: str) -> list[PotSettings]:
    """Return the pot of that name and those that pay when it is spent."""
    names = [pot.name for pot in pots]
    found = []
    for pot in pots[names.index(name) :]:
        found.append(pot)
        if pot.when_spent != "next":
            break
    return found


def keys_of(
    pots: Sequence[PotSettings], chosen: str, hosts: int, *, every: bool, read: Callable[[str], str]
) -> list[dict[str, Any]]:
    """Return what is sent to a host: the key and the funding of the chosen pot and those it leads to, or of every pot.

    Each of several `hosts` gets an equal part of the funding, so that they spend no more together. Raise WireError for
    a key that cannot be read, NotConfigured for one that is in two pots.
    """
    sent: list[dict[str, Any]] = []
    known: dict[str, str] = {}
    for pot in pots if every else led_to(pots, chosen):
        key = read(pot.key_source)
        if (other := known.setdefault(key, pot.name)) != pot.name:
            raise NotConfigured(
                f"the pots {other} and {pot.name} have the same key", hint="each needs a key of its own"
            )
        following = led_to(pots, pot.name)[1:2]
        part = None if pot.funding_usd is None else (pot.funding_usd / hosts).quantize(_MICRO, ROUND_DOWN)
        funding = {"amount_usd": None if part is None else f"{part:f}", "next": following[0].name if following else ""}
        given = {name: value for name in ("cycle_day", "expires") if (value := getattr(pot, name)) is not None}
        sent.append({"name": pot.name, "key": key, "funding": funding | given})
    return sent
