"""Runs of containers and what Fargate asks for them, gathered into stretches of time in which at least one ran."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import groupby
from typing import Annotated, NamedTuple

import msgspec

from farmhand.aws.prices import CloudPrices, billed_seconds
from farmhand.core.money import pico
from farmhand.core.shard import Count, Moment, PlaceInfo

_DAY_S = 86400
#: US$ 500,000 of one stretch, more than the largest batch can cost.
Cost = Annotated[int, msgspec.Meta(ge=0, le=5 * 10**17)]


class ContainerRun(NamedTuple):
    """One run of a task's containers, in Unix seconds."""

    began_at: float
    ended_at: float


class Stretch(msgspec.Struct, kw_only=True, frozen=True):
    """Runs without a gap between them, all of which began on one day (UTC).

    `seconds` are those that are billed, the sum over the runs; `pico` is their price.
    """

    began_at: Moment
    ended_at: Moment
    runs: Count
    seconds: Count
    pico: Cost

    @property
    def span(self) -> ContainerRun:
        """Return the time in which at least one of them ran."""
        return ContainerRun(self.began_at, self.ended_at)


def price_of(prices: CloudPrices, place: PlaceInfo, seconds: float) -> int:
    """Return the pico-dollars of a container of this size that ran for so long, and of its public address."""
    vcpu, lasted = Decimal(place.vcpu_milli) / 1000, Decimal(str(seconds))
    address = prices.of["ipv4_hour"] * billed_seconds(lasted) / 3600 if place.public else 0
    return pico(prices.task_usd(vcpu, place.memory_mb, lasted, spot=place.spot) + address)


def gather(runs: Iterable[ContainerRun], place: PlaceInfo, prices: CloudPrices) -> list[Stretch]:
    """Return the stretches of these runs of containers of one size, the earliest first."""
    found = []
    for _, of_day in groupby(sorted(runs), key=lambda run: run.began_at // _DAY_S):
        for together in _together(list(of_day)):
            lasted = [round(run.ended_at - run.began_at, 3) for run in together]
            made = Stretch(
                began_at=together[0].began_at,
                ended_at=max(run.ended_at for run in together),
                runs=len(together),
                seconds=sum(map(billed_seconds, lasted)),
                pico=sum(price_of(prices, place, seconds) for seconds in lasted),
            )
            found.append(made)
    return found


def _together(runs: list[ContainerRun]) -> Iterator[list[ContainerRun]]:
    """Yield runs, in order of their beginning, by groups without a gap."""
    group: list[ContainerRun] = []
    until = 0.0
    for run in runs:
        if group and run.began_at > until:
            yield group
            group = []
        group.append(run)
        until = max(until, run.ended_at) if len(group) > 1 else run.ended_at
    if group:
        yield group
