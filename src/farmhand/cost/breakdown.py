"""How long tasks take, and labels as people write them."""

from __future__ import annotations

import json

import msgspec

from farmhand.cost.queries import DAY_S
from farmhand.cost.store import CostStore

#: The ranks, in percent.
_RANKS = (50, 95)


class Latency(msgspec.Struct, kw_only=True):
    """How long the finished tasks of an engine ("": of all) ran, and waited before: the median and the 95th percentile.

    Seconds, by the nearest rank. Tasks that never started, or that ended before they started, are left out.
    """

    engine: str
    tasks: int
    run_median: float
    run_p95: float
    wait_median: float
    wait_p95: float


def latency(store: CostStore, since_day: int) -> list[Latency]:
    """Return the percentiles of all tasks, and of each engine if there are several; nothing if no task ran."""
    found: dict[str, dict[str, float]] = {}
    for name, value in (("wait", "started_at - created_at"), ("run", "finished_at - started_at")):
        for engine in ("''", "engine"):
            rows = store.rows(
                f"SELECT engine, number, tasks, value FROM (SELECT engine, value,"  # noqa: S608  (names of this module)
                " row_number() OVER (PARTITION BY engine ORDER BY value) AS number,"
                " count(*) OVER (PARTITION BY engine) AS tasks"
                f" FROM (SELECT {engine} AS engine, {value} AS value FROM done"
                " WHERE finished_at >= ? AND started_at BETWEEN created_at AND finished_at))"
                f" WHERE number IN ({', '.join(f'(tasks * {rank} + 99) / 100' for rank in _RANKS)}) ORDER BY 1, 2",
                (since_day * DAY_S,),
            )
            for key, _, tasks, seconds in rows:
                one = found.setdefault(key, {"tasks": tasks})
                one.setdefault(f"{name}_median", seconds)
                one[f"{name}_p95"] = seconds  # of one task both ranks are one row
    shown = sorted(found) if len(found) > 2 else [""] * bool(found)
    return [msgspec.convert({"engine": key, **found[key]}, Latency) for key in shown]


def label_text(key: str) -> str:
    """Return a set of labels, given as JSON, in the form `name=value, …`; any other key unchanged."""
    if not key.startswith("{"):
        return key
    try:
        labels = json.loads(key)
    except ValueError:
        return key
    return ", ".join(f"{name}={value}" for name, value in labels.items()) if isinstance(labels, dict) else key
