"""The dated figures of plans.toml: credits of plans, the price of a box, and the claims that are answered."""

from __future__ import annotations

import tomllib
from datetime import date
from decimal import Decimal
from functools import cache
from importlib.resources import files

import msgspec

from farmhand.aws.prices import STALE_DAYS
from farmhand.core.typed import ready


class BoxFigure(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a box costs a month, in US$."""

    usd_month: Decimal


class SavingClaim(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A claim that something saves an amount of US$ a month."""

    claim: str
    low_usd_month: Decimal
    high_usd_month: Decimal


class ContainerClaim(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A claim on the price of a container of this size for this time; as exact as the digits of `usd`."""

    claim: str
    vcpu: Decimal
    memory_mb: int
    seconds: int
    usd: Decimal


class PlanFigures(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The file. `credits_usd_month` is by plan."""

    as_of: str
    source: str
    credits_usd_month: dict[str, Decimal]
    box: BoxFigure
    saving: SavingClaim
    container: ContainerClaim


@cache
def plan_figures() -> PlanFigures:
    """Return the figures of the file that comes with farmhand."""
    text = files("farmhand.cost").joinpath("plans.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), ready(PlanFigures))


def stale(what: str, as_of: str, today: date) -> str:
    """Return a line about a table that was read on the day `as_of` (2026-11-28 and more) and is too old; "" if not."""
    age = (today - date.fromisoformat(as_of[:10])).days
    return f"{what} are of {as_of[:10]}, {age} days old: read their source again" if age > STALE_DAYS else ""
