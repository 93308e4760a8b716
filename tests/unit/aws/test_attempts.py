"""The attempts of children as AWS Batch tells them, odd ones too."""

from __future__ import annotations

from typing import Any

from farmhand.aws.client import Aws
from farmhand.aws.places.batch_jobs import BatchJobs, PlannedJob
from farmhand.core.settings import Settings


class Described(Aws):
    """AWS with one child of this description."""

    def __init__(self, **child: Any) -> None:
        super().__init__(Settings(aws_environment="test"))
        self._child = {"jobId": "j", "status": "RUNNING", **child}

    def client(self, service: str, *, once: bool = False) -> Any:
        """See Aws."""
        return self

    def describe_jobs(self, **_: Any) -> dict[str, Any]:
        """See boto3."""
        return {"jobs": [self._child]}


def spans(now: float = 0.0, **child: Any) -> list[tuple[float, float]]:
    tries = BatchJobs(Described(**child), "b").attempts(PlannedJob("n", 0, 1, "j"), now)
    return [(one.began_at, one.ended_at) for one in tries]


def test_times_that_are_missing_or_run_backwards_are_no_money() -> None:
    """Seen by others: ASFHyP3/hyp3#2485."""
    odd = [{"stoppedAt": 5000}, {"startedAt": 9000, "stoppedAt": 8000}, {"startedAt": 1000, "stoppedAt": 3500}]
    assert spans(attempts=odd) == [(0.0, 0.0), (9.0, 9.0), (1.0, 3.5)]


def test_what_runs_now_counts_up_to_now_and_an_ended_attempt_not_twice() -> None:
    ended = [{"startedAt": 1000, "stoppedAt": 3000}]
    assert spans(10.0, attempts=ended, startedAt=4000) == [(1.0, 3.0), (4.0, 10.0)]
    # The job's own time is that of its last attempt, until the next one begins.
    assert spans(10.0, attempts=ended, startedAt=1000) == [(1.0, 3.0)]
    assert spans(10.0, attempts=ended, startedAt=4000, status="RUNNABLE") == [(1.0, 3.0)]
    assert spans(attempts=ended, startedAt=4000) == [(1.0, 3.0)]
