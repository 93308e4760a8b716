"""How long the network stack has been up, and the hours of that in which no container ran."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from farmhand.aws.credentials.credential import stamp
from farmhand.aws.environment.spent import KEPT_S
from farmhand.aws.environment.stacks import Stack, Stacks
from farmhand.aws.environment.stretches import ContainerRun
from farmhand.aws.prices import CloudPrices
from farmhand.core.money import pico, plain

_HOUR_S = 3600


@dataclass(frozen=True, kw_only=True)
class NetworkUse:
    """The time of a network that is up since `since` (Unix seconds), in hours that have begun, as they are billed.

    `until` is when it was removed, 0 as long as it is up.

    `unused` are those since `known_since` in which no container ran, by (from, to) in Unix seconds. `pico_hour` is in
    pico-dollars.
    """

    mode: str
    since: float
    until: float = 0.0
    known_since: float
    hours: int
    unused: tuple[tuple[float, float], ...]
    pico_hour: int

    @property
    def unused_hours(self) -> int:
        """Return how many hours were not used."""
        return sum(round((end - begin) / _HOUR_S) for begin, end in self.unused)

    @property
    def pico(self) -> int:
        """Return what the network has cost since it was made."""
        return self.hours * self.pico_hour

    @property
    def unused_pico(self) -> int:
        """Return what the unused hours of that have cost."""
        return self.unused_hours * self.pico_hour

    def document(self) -> dict[str, Any]:
        """Return it for JSON; amounts are exact strings in US$."""
        return {
            **{"mode": self.mode, "since": stamp(self.since), "until": stamp(self.until) if self.until else None},
            "known_since": stamp(self.known_since),
            **{"hours": self.hours, "usd_hour": plain(self.pico_hour), "usd_so_far": plain(self.pico)},
            **{"unused_hours": self.unused_hours, "unused_usd": plain(self.unused_pico)},
            "unused": [{"from": stamp(begin), "to": stamp(end)} for begin, end in self.unused],
        }

    def line(self) -> str:
        """Return it for people."""
        unused = f"unused in {self.unused_hours} of them since {stamp(self.known_since)}: US$ {plain(self.unused_pico)}"
        if self.until:
            return (
                f"a {self.mode} network was up from {stamp(self.since)} to {stamp(self.until)}: {self.hours} h, US$ "
                f"{plain(self.pico)}; {unused}"
            )
        return (
            f"the {self.mode} network is up since {stamp(self.since)}: {self.hours} h, US$ {plain(self.pico_hour)} an "
            f"hour, {plain(self.pico)} so far; {unused} (farmhand cloud down --network-only)"
        )


def removed_networks(
    stacks: Stacks, name: str, prices: CloudPrices, runs: Sequence[ContainerRun], now: float | None = None
) -> list[NetworkUse]:
    """Return the use of the networks `name` that were removed in the time of which it is known what ran.

    Raise FarmhandError.
    """
    now = time.time() if now is None else now
    return [network_use(stack, prices, runs, now) for stack in stacks.removed(name, now - KEPT_S)]


def hourly_pico(prices: CloudPrices, stack: Stack) -> int:
    """Return what a network stack costs in an hour."""
    on = {name for name, given in stack.parameters.items() if given == "true"}
    return pico(prices.network_hour(_mode(stack), ipv4="Ipv4" in on, federation="Federation" in on))


def network_use(
    stack: Stack, prices: CloudPrices, runs: Iterable[ContainerRun], now: float | None = None
) -> NetworkUse:
    """Return the use of the network of `stack` from when it was made, by these runs of containers.

    What ran longer ago than objects are kept is not known any more, and such hours are not called unused. Source: the
    price page of PrivateLink: an hour that has begun is billed as a whole one, whatever goes through.
    """
    now = time.time() if now is None else now
    since = stack.made_at
    hours = math.ceil(max(0.0, (stack.removed_at or now) - since) / _HOUR_S)
    first_known = max(0, math.ceil((now - KEPT_S - since) / _HOUR_S))
    used: set[int] = set()
    for one in runs:
        first, last = (math.floor((at - since) / _HOUR_S) for at in (one.began_at, one.ended_at))
        used.update(range(max(0, first), min(hours, last + 1)))
    unused: list[tuple[float, float]] = []
    for hour in (hour for hour in range(first_known, hours) if hour not in used):
        begin, end = since + hour * _HOUR_S, since + (hour + 1) * _HOUR_S
        if unused and unused[-1][1] == begin:
            begin = unused.pop()[0]
        unused.append((begin, end))
    return NetworkUse(
        mode=_mode(stack),
        since=since,
        until=stack.removed_at,
        known_since=since + first_known * _HOUR_S,
        hours=hours,
        unused=tuple(unused),
        pico_hour=hourly_pico(prices, stack),
    )


def _mode(stack: Stack) -> str:
    """Return private or public. One that was removed may have no outputs any more."""
    return stack.outputs.get("NetworkMode") or stack.parameters.get("NetworkMode", "")
