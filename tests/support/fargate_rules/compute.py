"""The rules for a compute environment of AWS Batch on Fargate. Keys are those of the service's API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: Source: the API reference of Batch, ComputeResource: "isn't applicable to jobs that are running on Fargate".
_ONLY_ON_EC2 = (
    *("allocationStrategy", "bidPercentage", "desiredvCpus", "ec2KeyPair", "imageId", "instanceRole"),
    *("instanceTypes", "launchTemplate", "minvCpus", "placementGroup", "spotIamFleetRole", "tags", "ec2Configuration"),
)
_REQUIRED = ("maxvCpus", "subnets", "securityGroupIds")


def compute_faults(environment: dict[str, Any]) -> list[str]:
    """What CreateComputeEnvironment refuses for Fargate, one sentence each."""
    return list(_faults(environment.get("computeResources") or {}))


def _faults(resources: dict[str, Any]) -> Iterator[str]:
    if resources.get("type") not in ("FARGATE", "FARGATE_SPOT"):
        yield f"computeResources.type is {resources.get('type')}, not FARGATE or FARGATE_SPOT"
    yield from (f"{key} is not for Fargate" for key in _ONLY_ON_EC2 if resources.get(key) is not None)
    yield from (f"Fargate requires {key}" for key in _REQUIRED if not resources.get(key))
