"""What a farm host on EC2 costs a month, from the dated table (prices.toml)."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from importlib.resources import files
from typing import Any

from farmhand.aws.boxes.box import BoxPrice, BoxSpec
from farmhand.core.errors import NotConfigured

_HOURS = Decimal(730)


def price_table() -> dict[str, Any]:
    """Return the dated table."""
    return tomllib.loads(files("farmhand.aws.boxes").joinpath("prices.toml").read_text("utf-8"))


def month_price(spec: BoxSpec) -> BoxPrice:
    """Return the price of a month. Raise NotConfigured for a size that the table does not have."""
    table = price_table()
    if spec.size not in table["hour"]:
        raise NotConfigured(
            f"no price of {spec.size} is known, and it is said before anything is made",
            hint=f"box_usd_month=US$ from the provider's page, or one of {', '.join(table['hour'])}",
        )
    machine, address = Decimal(table["hour"][spec.size]) * _HOURS, Decimal(table["ipv4_hour"]) * _HOURS
    disk = Decimal(table["gp3_gb_month"]) * spec.disk_gb
    other = "" if spec.region == table["region"] else f"; {spec.region} may cost more"
    return BoxPrice(
        round(machine + address + disk, 2),
        f"{spec.size} {machine:.2f}, {spec.disk_gb} GB disk {disk:.2f}, static address {address:.2f}",
        f"{table['source']}, {table['as_of']}{other}",
    )
