"""Alarms of CloudWatch that tell their topics when their state is set, and statistics of one metric only."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from moto.cloudwatch.models import CloudWatchBackend

from tests.support.fakeaws.options import api


def change() -> None:
    """Change moto."""
    set_state = CloudWatchBackend.set_alarm_state

    def set_alarm_state(self: Any, alarm_name: str, reason: str, reason_data: str, state_value: str) -> None:
        set_state(self, alarm_name, reason, reason_data, state_value)
        alarm = self.alarms[alarm_name]
        actions = {"ALARM": alarm.alarm_actions, "OK": alarm.ok_actions}.get(state_value) or []
        if not alarm.actions_enabled:
            return
        told = {"AlarmName": alarm_name, "NewStateValue": state_value, "NewStateReason": reason}
        for topic in actions:
            api("sns").publish(TopicArn=topic, Subject=f"{state_value}: {alarm_name}", Message=json.dumps(told))

    CloudWatchBackend.set_alarm_state = set_alarm_state
    statistics = CloudWatchBackend.get_metric_statistics

    def get_metric_statistics(
        self: Any, namespace: str, *given: Any, dimensions: list[dict[str, str]], unit: str | None = None
    ) -> Any:
        # A metric is a name and all its dimensions. moto adds up those that have others besides.
        wanted = {(one["Name"], one["Value"]) for one in dimensions}
        found = [one for one in self.get_all_metrics() if {(d.name, d.value) for d in one.dimensions} == wanted]
        return statistics(SimpleNamespace(get_all_metrics=lambda: found), namespace, *given, dimensions=[], unit=unit)

    CloudWatchBackend.get_metric_statistics = get_metric_statistics
