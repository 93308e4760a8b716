"""Data for PutMetricData: charges as sums of minutes, counters as what they rose by, gauges as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from farmhand.cloudwatch.marks import Mark
from farmhand.cloudwatch.reading import AgentSample, ChargedRequest
from farmhand.core import money

NAMESPACE = "Farmhand"
#: The error that has an alarm of its own: its zeros are pushed as well.
RATE_LIMIT = "rate_limit_error"
#: How far back a time may be, in seconds: two weeks, but for an hour. Source: PutMetricData's reference.
OLDEST_S = 14 * 86_400 - 3_600
#: The most kinds of errors that are told; each is a metric that costs money. More than the API has.
_KINDS = 30


@dataclass(frozen=True)
class Labels:
    """What the metrics of a host are told apart by."""

    environment: str
    host: str

    def datum(self, name: str, value: float, minute: int, unit: str = "Count", code: str = "") -> dict[str, Any]:
        """Return one datum, at the beginning of the minute `minute` (minutes since 1970)."""
        places = {"Environment": self.environment, "Host": self.host} | ({"Code": code} if code else {})
        return {
            "MetricName": name,
            "Dimensions": [{"Name": key, "Value": text} for key, text in places.items()],
            "Timestamp": datetime.fromtimestamp(minute * 60, UTC),
            "Value": value,
            "Unit": unit,
        }


def risen(before: Mark, now: AgentSample) -> dict[str, int]:
    """Return what the counters of errors rose by, never less than 0.

    A counter begins again with its process, and may be past its old value by then: the start decides, not the value.
    """
    old: Mapping[str, int] = before.errors if before.started == now.started else {}
    return {kind: max(0, count - old.get(kind, 0)) for kind, count in now.errors.items()}


def of_moment(labels: Labels, sample: AgentSample, errors: Mapping[str, int], at: float) -> list[dict[str, Any]]:
    """Return the data of the moment `at` (Unix seconds); `errors` is what they rose by. Zeros say: the host lives."""
    minute = int(at // 60)
    seen = {RATE_LIMIT: 0} | {kind: count for kind, count in sorted(errors.items())[:_KINDS] if count}
    return [
        labels.datum("Queued", sample.queued, minute),
        labels.datum("Refused", sample.refused, minute),
        labels.datum("Errors", sum(errors.values()), minute),
        *(labels.datum("Errors", count, minute, code=kind) for kind, count in seen.items()),
        labels.datum("CostUsd", 0, minute, "None"),
        labels.datum("Requests", 0, minute),
    ]


def is_too_old(charge: ChargedRequest, at: float) -> bool:
    """Return whether CloudWatch takes this charge no more at the time `at` (Unix seconds)."""
    return charge.created_at < at - OLDEST_S


def of_charges(labels: Labels, charges: Iterable[ChargedRequest], at: float) -> list[dict[str, Any]]:
    """Return the data of charges, added up by minute. What is too old for CloudWatch is left out.

    A time after `at` (Unix seconds), from a clock that was set back, is taken as `at`.
    """
    pico: Counter[int] = Counter()
    requests: Counter[int] = Counter()
    for charge in charges:
        if not is_too_old(charge, at):
            minute = int(min(charge.created_at, at) // 60)
            pico[minute] += charge.pico
            requests[minute] += charge.requests
    return [
        datum
        for minute in pico
        for datum in (
            labels.datum("CostUsd", float(money.usd(pico[minute])), minute, "None"),
            labels.datum("Requests", requests[minute], minute),
        )
    ]
