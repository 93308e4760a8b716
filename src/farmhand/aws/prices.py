"""What AWS costs: a task by its size and time, and what stands idle, from a dated table (prices.toml)."""

from __future__ import annotations

import math
import os
import tomllib
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from farmhand.core.errors import NotConfigured
from farmhand.core.readable import counted

#: Hours of a month. Source: the provider's own calculator.
HOURS = Decimal(730)
STALE_DAYS = 180
#: A clock may be behind; a table from further ahead has a slip in its day, and would seem fresh for years.
_AHEAD_DAYS = 30
#: The region whose prices stand in for those of a region without any.
DEFAULT_REGION = "us-east-1"
#: Source: the provider's price page of Fargate: from the start of the image's pull to the end of the task, rounded up
#: to a second, and one minute at least.
_LEAST_S = 60
#: What a price can be: a pico-dollar at least, or nothing.
_LEAST_USD, _MOST_USD = Decimal("1e-12"), 1_000_000
_NAMES = (
    *("fargate_vcpu_hour", "fargate_gb_hour", "fargate_spot_factor", "endpoint_hour", "endpoint_gb", "nat_hour"),
    *("nat_gb", "ipv4_hour", "key_month", "secret_month", "alarm_month", "ecr_gb_month", "s3_gb_month", "log_gb"),
)
#: What a stack keeps standing, by the names of templates' types (tests compare them with the templates).
SECRETS, ALARMS, NETWORK_ALARMS, ENDPOINTS, IMAGE_GB = 4, 9, 1, 4, Decimal("0.3")
#: The metrics of a farm host's alarms. An alarm is billed by its metrics. Source: the price page of CloudWatch.
HOST_METRICS = 10


class Extras(msgspec.Struct, frozen=True):
    """What an environment may have besides: farm hosts with alarms, an image with the credential, a federation."""

    hosts: int = 0
    baked: bool = False
    federation: bool = False


@dataclass(frozen=True)
class CloudPrices:
    """The prices of one region in US$. `note` says what is doubtful about them, "" for nothing."""

    region: str
    as_of: date
    source: str
    of: dict[str, Decimal]
    note: str = ""

    def hour_usd(self, vcpu: Decimal, memory_mb: int, *, spot: bool = False) -> Decimal:
        """Return what a container task of this size costs in an hour."""
        hourly = vcpu * self.of["fargate_vcpu_hour"] + Decimal(memory_mb) / 1024 * self.of["fargate_gb_hour"]
        return hourly * (self.of["fargate_spot_factor"] if spot else 1)

    def task_usd(self, vcpu: Decimal, memory_mb: int, seconds: Decimal, *, spot: bool = False) -> Decimal:
        """Return what a container task of this size costs that ran for `seconds`. One that never ran costs nothing."""
        return self.hour_usd(vcpu, memory_mb, spot=spot) * billed_seconds(seconds) / 3600

    def network_hour(self, mode: str, *, ipv4: bool = False, federation: bool = False) -> Decimal:
        """Return what the network stack costs in an hour while nothing runs. `mode` is private or public."""
        if mode != "private":
            return Decimal(0)
        endpoints = (ENDPOINTS + federation) * self.of["endpoint_hour"]
        return endpoints + (self.of["nat_hour"] + self.of["ipv4_hour"] if ipv4 else 0)

    def idle_month(self, extras: Extras) -> dict[str, Decimal]:
        """Return what stands without the network, by name: US$ a month."""
        image = IMAGE_GB * self.of["ecr_gb_month"]
        hosts = counted(extras.hosts, "farm host")
        more = {f"alarms of {hosts}": extras.hosts * HOST_METRICS * self.of["alarm_month"]} if extras.hosts else {}
        more |= {"image with the credential": image} if extras.baked else {}
        return {
            "key": self.of["key_month"],
            f"{SECRETS} secrets": SECRETS * self.of["secret_month"],
            f"{ALARMS} alarms": ALARMS * self.of["alarm_month"],
            "image": image,
            **more,
        }

    def estimate(self, mode: str, *, ipv4: bool = False, extras: Extras | None = None) -> dict[str, Any]:
        """Return what `farmhand cloud up` will cost while nothing runs: US$ an hour and a month, and of what.

        Amounts are decimal strings.
        """
        extras = extras or Extras()
        rest, hourly = self.idle_month(extras), self.network_hour(mode, ipv4=ipv4, federation=extras.federation)
        network = hourly * HOURS + (self.of["alarm_month"] if mode == "private" else 0)
        month = sum(rest.values(), network)
        return {
            "usd_hour": str(round(month / HOURS, 4)),
            "usd_month": str(round(month, 2)),
            "network_usd_month": str(round(network, 2)),
            "rest_usd_month": str(round(month - network, 2)),
            "rest": {name: str(round(usd, 2)) for name, usd in rest.items()},
            "task_usd_5_min": str(round(self.task_usd(Decimal(1), 4096, Decimal(300)), 4)),
            "prices_as_of": self.as_of.isoformat(),
            "prices_region": self.region,
        }


def billed_seconds(seconds: Decimal | float) -> int:
    """Return the seconds that are billed for a task that ran for so long; 0 for one that never ran."""
    return max(math.ceil(seconds), _LEAST_S) if seconds else 0


def estimate_lines(estimate: dict[str, Any], mode: str) -> list[str]:
    """Return an estimate for people."""
    rest = ", ".join(f"{name} {usd}" for name, usd in estimate["rest"].items())
    return [
        f"while nothing runs it costs US$ {estimate['usd_hour']} an hour, {estimate['usd_month']} a month",
        f"of that the {mode} network {estimate['network_usd_month']} (farmhand cloud down --network-only), "
        f"the rest {estimate['rest_usd_month']}: {rest}",
        f"a task of 5 minutes with 1 vCPU and 4 GB: {estimate['task_usd_5_min']}, and the model",
        f"prices of {estimate['prices_region']}, {estimate['prices_as_of']}",
    ]


def cloud_prices(region: str, own: str = "", today: date | None = None) -> CloudPrices:
    """Return the prices of `region`; `own` is the operator's file, "" for none. Raise NotConfigured."""
    table = _table(files("farmhand.aws").joinpath("prices.toml").read_text("utf-8"), "the price table of AWS")
    found, notes = region, []
    if own:
        path = os.path.expanduser(own)
        try:
            text = Path(path).read_text("utf-8")
        except (OSError, ValueError) as error:
            raise NotConfigured(f"aws_prices_file {path} cannot be read: {error}") from None
        mine = _table(text, path)
        if region in mine["regions"]:
            table = mine
        else:
            known = ", ".join(mine["regions"]) or "none"
            notes.append(f"{path} has no prices of {region}, only of {known}")
    if region not in table["regions"]:
        found = DEFAULT_REGION
        notes.append(f"no prices of {region}: those of {found} stand in (aws_prices_file)")
    as_of = table["as_of"]
    if old := stale("the prices of AWS", as_of, today or datetime.now(UTC).date()):
        notes.append(f"{old} (aws_prices_file)")
    return CloudPrices(found, as_of, table["source"], table["regions"][found], "; ".join(notes))


def stale(what: str, as_of: date, today: date) -> str:
    """Return a line about a table that was read on the day `as_of` and is too old, or of a day to come; "" if not."""
    age = (today - as_of).days
    if age > STALE_DAYS:
        return f"{what} are of {as_of}, {age} days old: read their source again"
    return f"{what} are of {as_of}, which is still to come: correct as_of" if age < -_AHEAD_DAYS else ""


def checked_usd(name: str, price: Decimal) -> Decimal:
    """Return a price of a table. Raise ValueError, with its name, for what can be none: it would spoil every sum."""
    if price.is_finite() and (price == 0 or _LEAST_USD <= price <= _MOST_USD):
        return price
    raise ValueError(f"{name} is {price:.6g}, not US$ from 0 to {_MOST_USD}")


def _table(text: str, where: str) -> dict[str, Any]:
    try:
        given = tomllib.loads(text)
        as_of = date.fromisoformat(str(given["as_of"]))
        regions = {name: _region(prices) for name, prices in given["regions"].items()}
    except KeyError as error:
        raise NotConfigured(f"{where}: {error.args[0]} is missing") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise NotConfigured(f"{where}: not a price table: {error}") from None
    return {"as_of": as_of, "source": str(given.get("source", "")), "regions": regions}


def _region(prices: dict[str, Any]) -> dict[str, Decimal]:
    found = {}
    for name in _NAMES:
        try:
            price = Decimal(str(prices[name]))
        except InvalidOperation:
            raise ValueError(f"{name} is {str(prices[name])!r:.40}, not US$") from None
        found[name] = checked_usd(name, price)
    if found["fargate_spot_factor"] > 1:
        raise ValueError(f"fargate_spot_factor is {found['fargate_spot_factor']}, not at most 1")
    return found
