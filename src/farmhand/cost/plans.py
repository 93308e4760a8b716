"""The dated figures of plans.toml: credits of plans, the price of a box, and the claims that are answered."""

from __future__ import annotations

import tomllib
from datetime import date
from decimal import Decimal
from functools import cache
from importlib.resources import files

import msgspec

from farmhand.aws.prices import checked_usd
from farmhand.core.errors import NotConfigured
from farmhand.core.typed import ready


class _Amounts(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A part of the file. All its amounts can be ones."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            given = getattr(self, name)
            for amount in given.values() if isinstance(given, dict) else [given]:
                if isinstance(amount, Decimal | int):
                    checked_usd(name, Decimal(amount))


class BoxFigure(_Amounts):
    """What a box costs a month, in US$."""

    usd_month: Decimal


class SavingClaim(_Amounts):
    """A claim that something saves an amount of US$ a month."""

    claim: str
    low_usd_month: Decimal
    high_usd_month: Decimal


class ContainerClaim(_Amounts):
    """A claim on the price of a container of this size for this time; as exact as the digits of `usd`."""

    claim: str
    vcpu: Decimal
    memory_mb: int
    seconds: int
    usd: Decimal


class PlanFigures(_Amounts):
    """The file. `credits_usd_month` is by plan."""

    as_of: date
    source: str
    credits_usd_month: dict[str, Decimal]
    box: BoxFigure
    saving: SavingClaim
    container: ContainerClaim


@cache
def plan_figures() -> PlanFigures:
    """Return the figures of the file that comes with farmhand. Raise NotConfigured if a change has broken it."""
    path = files("farmhand.cost").joinpath("plans.toml")
    return parse(path.read_text("utf-8"), str(path))


def parse(text: str, where: str) -> PlanFigures:
    """Return the figures of the file's text. Raise NotConfigured, with its name `where`."""
    try:
        return msgspec.convert(tomllib.loads(text), ready(PlanFigures))
    except (ValueError, RecursionError) as error:
        raise NotConfigured(f"{where}: {error}", hint="see the comments in it") from None
