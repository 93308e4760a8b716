"""A million tasks on AWS Batch, on paper: python -m benchmarks.million prints the table of docs/aws.md.

Nothing here is measured. Sizes come from the sources, prices from the price tables, and the rest are the assumptions
below. It is not a group of `make bench`, which measures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

from farmhand.aws.places.batch_jobs import MOST_CHILDREN
from farmhand.aws.places.shards import CLI_TASKS, TEXT_TASKS
from farmhand.aws.prices import CloudPrices, cloud_prices
from farmhand.core.money import PICO_PER_USD
from farmhand.core.prices import price_table
from farmhand.core.shard import PART_RESULTS, AgentOptions
from farmhand.core.task import Usage

TASKS = 1_000_000
#: Tokens of a task without tools, and seconds of its one call.
INPUT, OUTPUT, CALL_S = 300, 100, 2.0
#: Seconds of a task with tools.
TOOLS_S = 20.0
#: Seconds from the start of the image's pull until the first task runs, as others report them.
START_S = 40.0
#: US$ of a thousand writes and reads of S3, of a million writes of the table, of ten thousand reads of a secret.
#: From memory, to be checked with the provider's pages.
S3_WRITES, S3_READS, TABLE_WRITES, SECRET_READS = 0.005, 0.0004, 0.625, 0.05


@dataclass(frozen=True)
class Shape:
    """A kind of work: its containers, and how long one shard takes in one of them."""

    name: str
    vcpu: Decimal
    memory_mb: int
    shard: int
    shard_s: float

    @property
    def shards(self) -> int:
        """Return the number of containers that the million needs."""
        return math.ceil(TASKS / self.shard)

    @property
    def hours(self) -> float:
        """Return the hours of all containers together."""
        return self.shards * (START_S + self.shard_s) / 3600

    def usd(self, prices: CloudPrices, *, spot: bool) -> float:
        """Return what Fargate takes for all of it."""
        seconds = Decimal(str(START_S + self.shard_s))
        return float(self.shards * prices.task_usd(self.vcpu, self.memory_mb, seconds, spot=spot))

    def requests_usd(self) -> float:
        """Return what S3, the table and the secret take."""
        parts = self.shards * math.ceil(self.shard / PART_RESULTS)
        writes, reads = self.shards + 2 * parts, 3 * self.shards + 2 * parts
        leases = 10 * self.shards
        return (
            writes / 1e3 * S3_WRITES
            + reads / 1e3 * S3_READS
            + leases / 1e6 * TABLE_WRITES
            + self.shards / 1e4 * SECRET_READS
        )


_SLOTS = AgentOptions()
TEXT = Shape("text", Decimal("0.5"), 1024, TEXT_TASKS, TEXT_TASKS * CALL_S / _SLOTS.slots_api)
TOOLS = Shape("tools", Decimal(1), 4096, CLI_TASKS, CLI_TASKS * TOOLS_S / _SLOTS.slots_cli)


def rows() -> list[tuple[str, str]]:
    """Return the lines of the table: what, how much."""
    prices = cloud_prices("us-east-1")
    usage = Usage(input_tokens=INPUT, output_tokens=OUTPUT)
    model, batches = (
        (price_table().cost("haiku", usage, economy=economy) or 0) * TASKS / PICO_PER_USD for economy in (False, True)
    )
    found = [
        ("tokens of a text task", f"{INPUT} in, {OUTPUT} out, haiku"),
        ("model, as calls", f"US$ {model:.2f}"),
        ("model, as Message Batches (--economy), no container", f"US$ {batches:.2f}"),
    ]
    for shape in (TEXT, TOOLS):
        arrays = math.ceil(shape.shards / MOST_CHILDREN)
        jobs = f"{arrays} array job{'s' if arrays > 1 else ''}"
        found += [
            (f"{shape.name}: shards", f"{shape.shards:,} of {shape.shard} tasks, {jobs}"),
            (f"{shape.name}: hours of containers", f"{shape.hours:,.0f} of {shape.vcpu} vCPU, {shape.memory_mb} MB"),
            (f"{shape.name}: Fargate on demand", f"US$ {shape.usd(prices, spot=False):,.2f}"),
            (f"{shape.name}: Fargate Spot", f"US$ {shape.usd(prices, spot=True):,.2f}"),
            (f"{shape.name}: S3, table, secret", f"US$ {shape.requests_usd():,.2f}"),
        ]
    for rate in (4_000, 50_000):
        seconds = TASKS / rate * 60
        busy = math.ceil(rate * CALL_S / 60 / _SLOTS.slots_api)
        usd = busy * float(prices.task_usd(TEXT.vcpu, TEXT.memory_mb, Decimal(str(seconds)), spot=True))
        found.append((f"text where the API takes {rate:,} requests a minute", f"at least {duration(seconds)}"))
        found.append((f"text: the {busy} containers that this keeps busy, on Spot", f"US$ {usd:.2f}"))
    for vcpus in (256, 4_000):
        at_once = Decimal(vcpus) / TOOLS.vcpu
        found.append((f"tools with {vcpus:,} vCPUs", duration(TOOLS.hours * 3600 / float(at_once))))
    return [*found, ("prices", f"{prices.region}, {prices.as_of.isoformat()}")]


def duration(seconds: float) -> str:
    """Return hours, or minutes of less than two hours."""
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def table() -> str:
    """Return the table in Markdown."""
    return "\n".join(["| a million tasks | |", "|---|---|", *(f"| {what} | {much} |" for what, much in rows())])


if __name__ == "__main__":
    print(table())
