"""What the account's quotas mean for tasks, said before anything is made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from farmhand.aws.client import Aws
from farmhand.aws.environment.readiness import quota_notes


class Quotas:
    """Service Quotas: the value of each, or the code with which it is refused."""

    def __init__(self, *answers: float | str) -> None:
        self.answers = list(answers)

    def get_service_quota(self, **_given: str) -> dict[str, Any]:
        answer = self.answers.pop(0)
        if isinstance(answer, str):
            raise ClientError({"Error": {"Code": answer}}, "GetServiceQuota")
        return {"Quota": {"Value": answer}}


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ((64.0, 100.0), []),
        ((6.0, 64.0), ["may use 6 Fargate vCPUs on demand, and cloud_max_vcpus is 64: more waits in the queue"]),
        ((64.0, 0.0), ["may use no Fargate vCPUs on Spot: nothing would ever start there"]),
        (("AccessDeniedException", 64.0), ["on demand could not be asked (AccessDeniedException)"]),
    ],
)
def test_a_quota_of_nothing_is_no_queue_that_moves(answers: tuple[float | str, ...], said: list[str]) -> None:
    quotas = Quotas(*answers)
    notes = quota_notes(cast(Aws, SimpleNamespace(client=lambda _service: quotas)), 64.0)
    assert len(notes) == len(said)
    assert all(part in note for part, note in zip(said, notes, strict=True))
