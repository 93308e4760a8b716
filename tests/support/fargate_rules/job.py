"""The rules for a job definition of AWS Batch that is meant for Fargate. Keys are those of the service's API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.support.fargate_rules.containers import container_faults
from tests.support.fargate_rules.model import unknown_members
from tests.support.fargate_rules.sizes import cpu_units, mebibytes, pair_fault
from tests.support.fargate_rules.task import disk_faults

#: Source: the Batch user guide, "Service quotas".
_DEFINITION_BYTES = 24 * 1024
_ATTEMPTS = range(1, 11)
_RULES_MOST, _CONTAINERS_MOST = 5, 10
_TIMEOUT_LEAST_S = 60
#: Source: the API reference of Batch, EvaluateOnExit: a star only at the end.
_REASON, _EXIT_CODE = re.compile(r"[A-Za-z0-9.:\s]{0,511}\*?"), re.compile(r"[0-9]{0,511}\*?")
_ONLY_ON_EC2 = ("ulimits", "instanceType", "vcpus", "memory")


def job_definition_faults(definition: dict[str, Any]) -> list[str]:
    """What RegisterJobDefinition and Fargate refuse, one sentence each."""
    members = unknown_members("batch", "RegisterJobDefinitionRequest", definition)
    return [
        *(f"Batch has no {member}" for member in members),
        *_job_faults(definition),
        *_retry_faults(definition.get("retryStrategy") or {}),
        *_body_faults(definition),
    ]


def environment_faults(environment: list[dict[str, Any]] | None) -> Iterator[str]:
    """Names that belong to Batch. It refuses them in definitions and in overrides."""
    for one in environment or []:
        if str(one.get("name")).startswith("AWS_BATCH"):
            yield f"environment names must not begin with AWS_BATCH: {one['name']}"


def _job_faults(definition: dict[str, Any]) -> Iterator[str]:
    if "FARGATE" not in (definition.get("platformCapabilities") or []):
        yield "platformCapabilities lacks FARGATE"
    seconds = (definition.get("timeout") or {}).get("attemptDurationSeconds")
    if seconds is not None and not isinstance(seconds, dict) and int(seconds) < _TIMEOUT_LEAST_S:
        yield f"timeout is less than {_TIMEOUT_LEAST_S} s"
    if len(json.dumps(definition)) > _DEFINITION_BYTES:
        yield f"the definition has more than {_DEFINITION_BYTES} bytes"


def _retry_faults(retry: dict[str, Any]) -> Iterator[str]:
    attempts, rules = retry.get("attempts"), retry.get("evaluateOnExit") or []
    if attempts is not None and not isinstance(attempts, dict) and int(attempts) not in _ATTEMPTS:
        yield "retryStrategy.attempts is not from 1 to 10"
    if len(rules) > _RULES_MOST:
        yield f"evaluateOnExit has more than {_RULES_MOST} rules"
    if rules and attempts is None:
        yield "evaluateOnExit needs attempts"
    for rule in rules:
        if str(rule.get("action")).upper() not in ("RETRY", "EXIT"):
            yield f"evaluateOnExit has no action {rule.get('action')}"
        if not rule.keys() & {"onReason", "onStatusReason", "onExitCode"}:
            yield "a rule of evaluateOnExit has no condition"
        for key, pattern in (("onReason", _REASON), ("onStatusReason", _REASON), ("onExitCode", _EXIT_CODE)):
            if isinstance(rule.get(key), str | int) and not pattern.fullmatch(str(rule[key])):
                yield f"{key} {rule[key]!r} is no pattern of Batch: a star may only be its end"


def _body_faults(definition: dict[str, Any]) -> Iterator[str]:
    ecs, plain = definition.get("ecsProperties"), definition.get("containerProperties")
    if (ecs is None) == (plain is None):
        yield "a job on Fargate has ecsProperties or containerProperties"
    elif ecs is not None:
        tasks = ecs.get("taskProperties") or []
        if len(tasks) != 1:
            yield "ecsProperties.taskProperties must have one element"
        for task in tasks:
            yield from _task_faults(task, task.get("containers") or [])
    elif plain is not None:
        yield from _task_faults(plain, [{**plain, "name": "default"}])


def _task_faults(task: dict[str, Any], containers: list[dict[str, Any]]) -> Iterator[str]:
    if not 1 <= len(containers) <= _CONTAINERS_MOST:
        yield f"a task has 1 to {_CONTAINERS_MOST} containers, not {len(containers)}"
    if not task.get("executionRoleArn"):
        yield "Fargate requires executionRoleArn"
    if task.get("ipcMode") or task.get("pidMode") not in (None, "task"):
        yield "Fargate does not support ipcMode, nor pidMode but task"
    yield from disk_faults(task)
    yield from container_faults(containers, task.get("volumes") or [])
    sizes = []
    for container in containers:
        name = container.get("name")
        for key in _ONLY_ON_EC2:
            if container.get(key):
                yield f"container {name}: {key} is not for Fargate"
        for fault in environment_faults(container.get("environment")):
            yield f"container {name}: {fault}"
        needs = {str(n.get("type")): n.get("value") for n in container.get("resourceRequirements") or []}
        if not {"VCPU", "MEMORY"} <= needs.keys():
            yield f"container {name}: resourceRequirements lack VCPU or MEMORY"
        sizes.append((needs.get("VCPU"), needs.get("MEMORY")))
    yield from _size_faults(sizes)


def _size_faults(sizes: list[tuple[Any, Any]]) -> Iterator[str]:
    """The sizes of all containers together must be one of Fargate's."""
    if any(value is None or isinstance(value, dict) for size in sizes for value in size):
        return
    cpu = [cpu_units(f"{cpu} vCPU") for cpu, _ in sizes]
    memory = [mebibytes(memory) for _, memory in sizes]
    if None in cpu or None in memory:
        yield f"sizes {sizes} are no numbers"
    elif fault := pair_fault(sum(filter(None, cpu)), sum(filter(None, memory))):
        yield fault
