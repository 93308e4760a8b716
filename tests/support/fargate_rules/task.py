"""The rules for a task definition of ECS that is meant for Fargate. Keys are those of the service's API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.support.fargate_rules.containers import container_faults
from tests.support.fargate_rules.model import unknown_members
from tests.support.fargate_rules.sizes import cpu_units, mebibytes, pair_fault

_UNSUPPORTED = ("ipcMode", "inferenceAccelerators", "placementConstraints")
#: GiB. Source: the API reference of ECS, EphemeralStorage.
DISK = range(21, 201)


def task_definition_faults(definition: dict[str, Any]) -> list[str]:
    """What RegisterTaskDefinition and Fargate refuse, one sentence each."""
    containers = definition.get("containerDefinitions") or []
    members = unknown_members("ecs", "RegisterTaskDefinitionRequest", definition)
    return [
        *(f"ECS has no {member}" for member in members),
        *_task_faults(definition, containers),
        *container_faults(containers, definition.get("volumes") or []),
    ]


def _task_faults(definition: dict[str, Any], containers: list[dict[str, Any]]) -> Iterator[str]:
    if definition.get("networkMode") != "awsvpc":
        yield "Fargate requires networkMode awsvpc"
    if definition.get("pidMode") not in (None, "task"):
        yield f"Fargate does not support pidMode {definition['pidMode']}"
    yield from (f"Fargate does not support {key}" for key in _UNSUPPORTED if definition.get(key))
    yield from disk_faults(definition)
    if not definition.get("executionRoleArn"):
        if any(container.get("secrets") for container in containers):
            yield "secrets need executionRoleArn"
        if any((container.get("logConfiguration") or {}).get("logDriver") == "awslogs" for container in containers):
            yield "the log driver awslogs needs executionRoleArn"
        if any(".dkr.ecr." in str(container.get("image")) for container in containers):
            yield "images of ECR need executionRoleArn"
    yield from _size_faults(definition, containers)


def _size_faults(definition: dict[str, Any], containers: list[dict[str, Any]]) -> Iterator[str]:
    if not definition.get("cpu") or not definition.get("memory"):
        yield "Fargate requires cpu and memory of the task"
        return
    if isinstance(definition["cpu"], dict) or isinstance(definition["memory"], dict):
        return  # a function that is not resolved
    cpu, memory = cpu_units(definition["cpu"]), mebibytes(definition["memory"])
    if cpu is None or memory is None:
        yield f"cpu {definition['cpu']} or memory {definition['memory']} is no size"
        return
    if fault := pair_fault(cpu, memory):
        yield fault
    for what, most, keys in (("cpu", cpu, ("cpu",)), ("memory", memory, ("memory", "memoryReservation"))):
        total = sum(_first(container, keys) for container in containers)
        if total > most:
            yield f"{what} of the containers is {total} together, of the task {most}"


def _first(container: dict[str, Any], keys: tuple[str, ...]) -> int:
    value = next((container[key] for key in keys if container.get(key)), 0)
    return 0 if isinstance(value, dict) else int(value)


def disk_faults(definition: dict[str, Any]) -> Iterator[str]:
    """What is wrong with ephemeralStorage."""
    size = (definition.get("ephemeralStorage") or {}).get("sizeInGiB")
    if size is not None and not isinstance(size, dict) and int(size) not in DISK:
        yield f"ephemeralStorage is not from {DISK.start} to {DISK.stop - 1} GiB"
