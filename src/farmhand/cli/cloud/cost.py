"""`farmhand cloud cost`: what tasks on AWS have cost, model and Fargate, and what stands idle."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import click

from farmhand.aws.client import Aws
from farmhand.aws.environment.baked_images import REPOSITORY_URI
from farmhand.aws.environment.idle import NetworkUse, network_use, removed_networks
from farmhand.aws.environment.spent import ContainerSum, SpentRecords, batch_items
from farmhand.aws.environment.stacks import Stacks
from farmhand.aws.prices import Extras, cloud_prices
from farmhand.cli.amount import FiniteRange
from farmhand.cli.cloud.verb import cloud_verb
from farmhand.cli.verb import VerbResult
from farmhand.core.errors import NotConfigured
from farmhand.core.money import plain
from farmhand.core.readable import counted
from farmhand.core.settings import Settings


@dataclass
class CloudSpent:
    """What a batch or a single task cost, in pico-dollars. `model` is None where nothing says it.

    `containers` counts runs of containers, `seconds` their billed time; the time of `unknown` more is not known.
    """

    id: str
    kind: str
    compute: int = 0
    model: int | None = None
    uncertain: int = 0
    containers: int = 0
    seconds: int = 0
    unknown: int = 0
    spot: bool = False

    def document(self) -> dict[str, Any]:
        """Return it for JSON; amounts are exact strings in US$."""
        shown = {name: getattr(self, name) for name in ("id", "kind", "spot", "containers", "seconds", "unknown")}
        shown |= {"compute_usd": plain(self.compute), "model_usd": None if self.model is None else plain(self.model)}
        return shown | {"uncertain_usd": plain(self.uncertain)}

    def line(self) -> str:
        """Return it for people."""
        more = f"  uncertain {plain(self.uncertain)}" if self.uncertain else ""
        more += f"  and {counted(self.unknown, 'container')} of unknown time" if self.unknown else ""
        model = "?" if self.model is None else plain(self.model)
        return f"{self.kind:<5}  {self.id:<40}  Fargate {plain(self.compute)}  model {model}{more}"


@cloud_verb("cost")
@click.option("--days", type=FiniteRange(min=0), default=0, metavar="N", help="Only what began N days ago.")
def command(conf: Settings, *, as_json: bool, days: float) -> VerbResult:
    """Show what the tasks on AWS have cost, by batch and task, and what stands there while nothing runs.

    Fargate is counted by the time and the size of the containers, from dated prices; the bill is AWS's.
    """
    aws = Aws(conf)
    stacks = Stacks(aws)
    prices = cloud_prices(aws.region, conf.aws_prices_file)
    network = stacks.look(aws.names.network)
    base = stacks.look(aws.names.base)
    stands = network is not None or base is not None
    records = SpentRecords(aws, prices)
    sums = [*records.sums()]
    rows = spent(sums, records, batch_items(aws), time.time() - days * 86400 if days else 0.0)
    runs = [one.span for row in sums for one in row.stretches]
    use = network_use(network, prices, runs) if network else None
    notes = [prices.note] if prices.note else []
    removed: list[NetworkUse] = []
    try:
        removed = removed_networks(stacks, aws.names.network, prices, runs)
    except NotConfigured as error:  # a login of before, without that right
        notes += [f"networks that were removed are not in here: {error}"]
    ipv4 = bool(network and network.parameters.get("Ipv4") == "true")
    federation = bool(network and network.parameters.get("Federation") == "true")
    extras = Extras(len(stacks.hosts()), bool(base and REPOSITORY_URI in base.outputs), federation)
    estimate = prices.estimate(use.mode if use else "public", ipv4=ipv4, extras=extras)
    compute, model = sum(row.compute for row in rows), sum(row.model or 0 for row in rows)
    document = {
        "rows": [row.document() for row in rows],
        "total": {
            **{"compute_usd": plain(compute), "model_usd": plain(model), "all_usd": plain(compute + model)},
            **{"uncertain_usd": plain(sum(row.uncertain for row in rows))},
        },
        "network": use.document() if use else {},
        "removed_networks": [one.document() for one in removed],
        "idle": estimate if stands else {},
    }
    lines = [row.line() for row in rows]
    lines += [f"all: US$ {plain(compute + model)}: Fargate {plain(compute)}, model {plain(model)}"]
    lines += [one.line() for one in (*removed, *([use] if use else [])) if one.pico_hour]
    up = f"the {use.mode} network" if use else "no network"
    idle = f"while nothing runs: US$ {estimate['usd_month']} a month, with {up}"
    lines += [idle if stands else f"nothing of {aws.names.base} stands there"]
    return VerbResult(document, "\n".join(lines), notes=[*notes, *map(str, records.damaged)])


def spent(
    sums: Iterable[ContainerSum], records: SpentRecords, items: Iterable[tuple[str, Any]], since: float
) -> list[CloudSpent]:
    """Return what was spent by what began since `since` (Unix seconds), by batch and task; 0 is for all."""
    found: dict[str, CloudSpent] = {}
    for one in sums:
        stretches = [stretch for stretch in one.stretches if stretch.began_at >= since]
        if since and not stretches:
            continue
        row = found.setdefault(one.id, CloudSpent(one.id, one.kind, spot=one.spot))
        row.compute += sum(stretch.pico for stretch in stretches)
        row.containers += sum(stretch.runs for stretch in stretches)
        row.seconds += sum(stretch.seconds for stretch in stretches)
        row.unknown += one.unknown
    for name, item in items:
        if name in found or not since:
            row = found.setdefault(name, CloudSpent(name, "batch"))
            row.model, row.uncertain = item.spent, item.uncertain
    for row in found.values():
        if row.kind == "task":
            row.model = records.model_pico(row.id)
    return sorted(found.values(), key=lambda row: row.id)
