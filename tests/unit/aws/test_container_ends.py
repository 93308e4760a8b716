"""How the end of an attempt is told, from what AWS says of its containers."""

from __future__ import annotations

from typing import Any

import pytest

from farmhand.aws.places.batch_jobs import _attempt
from farmhand.aws.places.generations import reason_of
from farmhand.aws.places.run_task import _why

ENDED = "Essential container in task exited"
MEMORY = "OutOfMemoryError: Container killed due to memory usage"


def part(name: str, code: int, reason: str = "") -> dict[str, Any]:
    return {"name": name, "exitCode": code, **({"reason": reason} if reason else {})}


@pytest.mark.parametrize(
    ("agent", "worker", "status", "told"),
    [
        (part("agent", 75), part("worker", 137, MEMORY), ENDED, "the worker container ran out of memory"),
        (part("agent", 70), part("worker", 137, MEMORY), ENDED, "the worker container ran out of memory"),
        (part("agent", 137, MEMORY), part("worker", 0), ENDED, "the agent container ran out of memory"),
        # One of its processes was killed, as a task that takes too much is, and not the container.
        (part("agent", 75), part("worker", 0, MEMORY), ENDED, "stopped with work left"),
        (part("agent", 75), part("worker", 137, MEMORY), "Your Spot Task was interrupted.", "Spot interruption"),
        (part("agent", 137), part("worker", 0), ENDED, "the agent container was killed"),
        (part("agent", 139), part("worker", 0), ENDED, "exit status 139"),
    ],
)
def test_an_attempt_of_a_job(agent: dict[str, Any], worker: dict[str, Any], status: str, told: str) -> None:
    said = {"statusReason": status, "startedAt": 1000, "stoppedAt": 2000}
    for attempt in (
        {**said, "taskProperties": [{"containers": [agent, worker]}]},
        {**said, "taskProperties": [{"containers": [worker, agent]}]},
    ):
        assert reason_of(_attempt(attempt, last=True)) == told


@pytest.mark.parametrize(
    ("agent", "told"),
    [
        (part("agent", 137, MEMORY), "the agent container ran out of memory (exit status 137)"),
        (part("agent", 137), f"{ENDED} (exit status 137)"),
    ],
)
def test_a_single_task(agent: dict[str, Any], told: str) -> None:
    ended = {"stopCode": "EssentialContainerExited", "stoppedReason": ENDED, "containers": [agent, part("worker", 0)]}
    assert _why(ended) == (told, False)
