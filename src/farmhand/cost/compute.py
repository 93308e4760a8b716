"""The money of containers on AWS (Fargate), which is beside the model's: whole pico-dollars by day, host and batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from farmhand.cost.queries import DAY_S, Part, day_text
from farmhand.cost.store import CostStore

#: The groupings by which containers can be told apart: one of them may run tasks of several models.
ATTRIBUTED = ("", "day", "host", "batch")


class ComputeRow(NamedTuple):
    """Runs of containers that began on `day` (since 1970, UTC). `pico` is None where their time is not known."""

    day: int
    host: str
    batch: str
    runs: int
    seconds: int
    pico: int | None


class ComputeSpent(msgspec.Struct, kw_only=True):
    """What the containers cost. `with_model_pico` adds what the model cost, on all hosts.

    `seconds` are billed ones. The time of `unknown_runs` is not known, and no sum has them.
    """

    total_pico: int = 0
    with_model_pico: int = 0
    runs: int = 0
    seconds: int = 0
    unknown_runs: int = 0


def read_compute(store: CostStore, since_day: int = 0) -> list[ComputeRow]:
    """Return all runs of containers since a day; those without a known time have no day, and are always there."""
    rows = store.rows(
        f"SELECT CAST(began_at / {DAY_S} AS INTEGER), host, batch, runs, seconds, pico FROM container"  # noqa: S608
        " WHERE began_at >= ? OR pico IS NULL",
        (since_day * DAY_S,),
    )
    return [ComputeRow(*row) for row in rows]


def compute_spent(rows: Iterable[ComputeRow], model_pico: int) -> ComputeSpent | None:
    """Return the sum of all rows; None if nothing ever ran in containers on AWS."""
    found: ComputeSpent | None = None
    for row in rows:
        found = found or ComputeSpent(with_model_pico=model_pico)
        if row.pico is None:
            found.unknown_runs += row.runs
            continue
        found.total_pico += row.pico
        found.with_model_pico += row.pico
        found.runs += row.runs
        found.seconds += row.seconds
    return found


def add_compute(parts: list[Part], rows: Iterable[ComputeRow], by: str) -> list[Part]:
    """Return the groups, each with its containers' money; groups that only have containers are appended.

    By any key that is not in ATTRIBUTED the money of a group is not known, and stays None.
    """
    if by not in ATTRIBUTED:
        return parts
    sums: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        if row.pico is not None:
            sums[{"": "", "day": day_text(row.day), "host": row.host, "batch": row.batch}[by]] += row.pico
    for part in parts:
        part.compute_pico = sums.pop(part.key, 0)
    more = [Part(key=key, compute_pico=pico) for key, pico in sums.items()]
    return sorted([*parts, *more], key=lambda part: part.key) if by in ("day", "host") else [*parts, *more]
