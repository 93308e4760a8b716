"""What CloudWatch makes of its alarms: moto keeps them and the metrics, and never compares them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.fakeaws.client import FakeAws


def evaluate(aws: FakeAws, at: datetime) -> dict[str, str]:
    """Set the state of every alarm as of the time `at`; return those that are there. The topics hear of a change."""
    client = aws.client("cloudwatch")
    states = {}
    for alarm in client.describe_alarms()["MetricAlarms"]:
        period = alarm.get("Period") or max(one["MetricStat"]["Period"] for one in _stats(alarm))
        ends = [at - n * timedelta(seconds=period) for n in range(alarm["EvaluationPeriods"])]
        state = "ALARM" if all(_breaches(client, alarm, period, end) for end in ends) else "OK"
        states[alarm["AlarmName"]] = state
        if state != alarm["StateValue"]:
            client.set_alarm_state(AlarmName=alarm["AlarmName"], StateValue=state, StateReason="compared")
    return states


def sum_of(aws: FakeAws, metric: str, **dimensions: str) -> float:
    """The sum of everything that one metric ever got."""
    places = [{"Name": name, "Value": text} for name, text in dimensions.items()]
    end = datetime.now(UTC) + timedelta(hours=1)
    about = {"Namespace": "Farmhand", "MetricName": metric, "Dimensions": places}
    return _statistic(aws.client("cloudwatch"), about, "Sum", 15 * 86_400, end) or 0.0


def _stats(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in alarm.get("Metrics", []) if "MetricStat" in one]


def _breaches(client: Any, alarm: dict[str, Any], period: int, end: datetime) -> bool:
    value = _value(client, alarm, period, end)
    if value is None:
        return bool(alarm["TreatMissingData"] == "breaching")
    below = alarm["ComparisonOperator"] == "LessThanThreshold"
    return bool(value < alarm["Threshold"] if below else value > alarm["Threshold"])


def _value(client: Any, alarm: dict[str, Any], period: int, end: datetime) -> float | None:
    if "MetricName" in alarm:
        return _statistic(client, alarm, alarm["Statistic"], period, end)
    values: dict[str, Any] = {"FILL": lambda value, other: other if value is None else value}
    values["IF"] = lambda condition, yes, no: yes if condition else no
    for one in _stats(alarm):
        stat = one["MetricStat"]
        values[one["Id"]] = _statistic(client, stat["Metric"], stat["Stat"], stat["Period"], end)
    if all(values[one["Id"]] is None for one in _stats(alarm)):
        return None
    [expression] = [one["Expression"] for one in alarm["Metrics"] if one.get("Expression")]
    # Ours are calls and arithmetic, which Python reads as CloudWatch does.
    return float(eval(expression, {"__builtins__": {}}, values))  # noqa: S307


def _statistic(client: Any, metric: dict[str, Any], statistic: str, period: int, end: datetime) -> float | None:
    """The statistic of one metric over the `period` (seconds) up to `end`, None without data."""
    given = {name: metric[name] for name in ("Namespace", "MetricName", "Dimensions") if name in metric}
    begin = end - timedelta(seconds=period)
    found = client.get_metric_statistics(**given, Statistics=[statistic], StartTime=begin, EndTime=end, Period=period)[
        "Datapoints"
    ]
    return sum(one[statistic] for one in found) if found else None
