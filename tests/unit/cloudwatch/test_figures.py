"""What becomes of charges and counters: sums of minutes, differences, and the limits of a call."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from farmhand.cloudwatch.figures import NAMESPACE, OLDEST_S, Labels, of_charges, of_moment, risen
from farmhand.cloudwatch.marks import Mark
from farmhand.cloudwatch.reading import PAGE, AgentSample, ChargedRequest
from farmhand.meter.errors import KINDS

NOW = 1_764_000_030.0
LABELS = Labels("prod", "farm1")


def sample(started: float = 5.0, **errors: int) -> AgentSample:
    return AgentSample("ledger", started, errors, queued=3, refused=1)


def mark(started: float = 5.0, **errors: int) -> Mark:
    return Mark("ledger", 7, started, errors)


@pytest.mark.parametrize(
    ("before", "now", "rose"),
    [
        (mark(overloaded_error=2), sample(overloaded_error=5), {"overloaded_error": 3}),
        (mark(), sample(overloaded_error=5), {"overloaded_error": 5}),
        # The agent has begun again, and its counter is below, at, or past the old value by now.
        (mark(overloaded_error=4), sample(9.0, overloaded_error=1), {"overloaded_error": 1}),
        (mark(overloaded_error=4), sample(9.0, overloaded_error=4), {"overloaded_error": 4}),
        (mark(overloaded_error=4), sample(9.0, overloaded_error=6), {"overloaded_error": 6}),
        # A counter should not fall while its process goes on. If it does, no negative sum comes of it.
        (mark(overloaded_error=4), sample(overloaded_error=1), {"overloaded_error": 0}),
    ],
)
def test_a_counter_becomes_what_it_rose_by(before: Mark, now: AgentSample, rose: Mapping[str, int]) -> None:
    assert risen(before, now) == rose


def test_charges_are_added_up_by_minute_and_exactly() -> None:
    charges = [
        ChargedRequest(1, NOW - 120, Decimal("0.1"), 2),
        ChargedRequest(2, NOW - 119, Decimal("0.2"), 1),
        ChargedRequest(3, NOW, None, 1),
        ChargedRequest(4, NOW + 5_000, Decimal("0.000001"), 1),
        ChargedRequest(5, NOW - OLDEST_S - 1, Decimal(9), 1),
    ]
    data = of_charges(LABELS, charges, NOW)
    found = {(one["MetricName"], one["Timestamp"].timestamp()): one["Value"] for one in data}
    minute = NOW // 60 * 60
    assert found == {
        ("CostUsd", minute - 120): 0.3,  # of floats it would be 0.30000000000000004
        ("Requests", minute - 120): 3,
        ("CostUsd", minute): 0.000001,
        ("Requests", minute): 2,
    }
    assert all(one["Dimensions"][:2] == LABELS.datum("x", 0, 0)["Dimensions"] for one in data)


def test_a_host_without_any_task_tells_zeros_and_only_errors_that_there_were() -> None:
    data = of_moment(LABELS, sample(), {"overloaded_error": 2, "api_error": 0}, NOW)
    found = {(one["MetricName"], *(part["Value"] for part in one["Dimensions"])): one["Value"] for one in data}
    assert found == {
        ("Queued", "prod", "farm1"): 3,
        ("Refused", "prod", "farm1"): 1,
        ("Errors", "prod", "farm1"): 2,
        ("Errors", "prod", "farm1", "rate_limit_error"): 0,
        ("Errors", "prod", "farm1", "overloaded_error"): 2,
        ("CostUsd", "prod", "farm1"): 0,
        ("Requests", "prod", "farm1"): 0,
    }


def test_the_largest_call_is_within_the_limits_of_cloudwatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 data and 1 MB. Source: PutMetricData's reference."""
    labels = Labels("e" * 20, "h" * 63)
    charges = [ChargedRequest(n + 1, NOW - 60 * n, Decimal("0.123456789012"), 1) for n in range(PAGE)]
    errors = dict.fromkeys([*KINDS, *(f"{n:064}" for n in range(100))], 2**50)
    data = of_charges(labels, charges, NOW) + of_moment(labels, sample(), errors, NOW)
    assert len(data) <= 1000
    sent: list[AWSPreparedRequest] = []

    def send(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        sent.append(request)
        raise ConnectionError

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DISABLE_REQUEST_COMPRESSION", "true")
    client = boto3.client("cloudwatch", region_name="us-east-1")
    client.meta.events.register("before-send", send)
    with pytest.raises(ConnectionError):
        client.put_metric_data(Namespace=NAMESPACE, MetricData=data)
    body = sent[0].body
    assert len(body if isinstance(body, bytes) else str(body).encode()) < 1_000_000
