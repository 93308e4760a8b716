"""EventBridge Scheduler never fires by itself here: a test says that it is time."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from tests.support.fakeaws.options import api

#: Source: the EventBridge Scheduler user guide, "Adding context attributes".
_TIME = "<aws.scheduler.scheduled-time>"


def fire(name: str, at: str | None = None, group: str = "default") -> dict[str, Any]:
    """Call the target of a schedule, as if the time were `at` (ISO 8601). Return what the function answered."""
    schedule = api("scheduler").get_schedule(Name=name, GroupName=group)
    target = schedule["Target"]
    if schedule.get("State") == "DISABLED":
        return {"payload": None, "error": "the schedule is disabled"}
    if ":lambda:" not in target["Arn"]:
        raise ValueError(f"the target {target['Arn']} is no function")
    now = at or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    event = target.get("Input", "{}").replace(_TIME, now)
    answer = api("lambda").invoke(FunctionName=target["Arn"], Payload=event.encode())
    text = answer["Payload"].read().decode()
    return {"payload": json.loads(text) if text else None, "error": answer.get("FunctionError")}
