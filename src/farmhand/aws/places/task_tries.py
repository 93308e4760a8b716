"""The tries of a single task on Fargate: what the bucket has of them, and what ECS tells of their containers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

import msgspec

from farmhand.aws.environment.stretches import ContainerRun, Stretch
from farmhand.core.shard import EXIT_KILLED, PlaceInfo

#: Source: the ECS developer guide, "Stopped tasks error codes". A container has this reason with any exit code if one
#: of its processes was killed (aws/amazon-ecs-agent#2467): only with that of a kill it is the container's own end.
_OUT_OF_MEMORY = "OutOfMemoryError"


class TaskTry(msgspec.Struct, kw_only=True):
    """`in/run.json`: the try that was begun last. `arn` is "" until AWS has answered."""

    number: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    token: str
    arn: str = ""


class EndedTry(msgspec.Struct, kw_only=True):
    """`in/runs/N.json`: what the containers of a try came to, as AWS told it when they had ended."""

    arn: str
    spot: bool
    stretches: list[Stretch]


def run_of(task: dict[str, Any], now: float = 0.0) -> list[ContainerRun]:
    """Return the run that is billed of a task as ECS describes it, none if it has none; `now` ends one that runs.

    Source: Fargate's price page: from the start of the image's pull until the task has stopped.
    """
    began = _seconds(task.get("pullStartedAt") or task.get("startedAt"))
    ended = _seconds(task.get("stoppedAt")) or now
    return [ContainerRun(began, max(began, ended))] if began and ended else []


def out_of_memory(containers: Iterable[dict[str, Any]]) -> str:
    """Return which of these containers, as ECS or AWS Batch describes them, was killed for its memory; "" for none."""
    for one in containers:
        if str(one.get("reason") or "").startswith(_OUT_OF_MEMORY) and one.get("exitCode") == EXIT_KILLED:
            return f"the {one.get('name') or 'agent'} container ran out of memory"
    return ""


def placed(order: PlaceInfo, task: dict[str, Any]) -> PlaceInfo:
    """Return what an order says of its containers, and whether they are on Spot as ECS says, if it does."""
    provider = task.get("capacityProviderName")
    return msgspec.structs.replace(order, spot=provider == "FARGATE_SPOT") if provider else order


def _seconds(when: Any) -> float:
    return when.timestamp() if isinstance(when, datetime) else 0.0
