"""moto's ECS with real runs: containers of a task, their exit codes, and the refusals of RunTask."""

from __future__ import annotations

import copy
import json
import threading
import time
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ecs import models, responses
from moto.ecs.exceptions import EcsClientException, InvalidParameterException
from moto.moto_api import state_manager

from tests.support.fakeaws.fargate import SPOT, Age, NotStartedError, Run, Spec, made
from tests.support.fakeaws.options import OPTIONS
from tests.support.fargate_rules import task_definition_faults

_Backend, _Response = models.EC2ContainerServiceBackend, responses.EC2ContainerServiceResponse
#: Bytes and number. Source: the API reference of ECS, RunTask.
_OVERRIDES_MOST, _COUNT_MOST = 8192, 10
_FARGATE = ("FARGATE", "FARGATE_SPOT")
#: clientToken → what it asked for, and its answer.
_ANSWERED: dict[str, tuple[str, list[Any]]] = {}
_TOKENS = threading.Lock()


def change() -> None:
    """Change moto."""
    state_manager.set_transition("ecs::task", {"progression": "manual", "times": 10**9})  # they move as they really do
    register, run, needs = (
        _Response.register_task_definition,
        _Backend.run_task,
        _Backend._calculate_task_resource_requirements,
    )

    def register_task_definition(self: Any) -> Any:
        given = json.loads(self.body)
        fargate = "FARGATE" in (given.get("requiresCompatibilities") or [])
        if fargate and (faults := task_definition_faults(given)):
            raise EcsClientException("; ".join(faults))
        return register(self)

    def run_task(self: Any, *args: Any, **kwargs: Any) -> Any:
        tasks = run(self, *args, **kwargs)
        for task in tasks:
            definition = self.describe_task_definition(task.task_definition_arn)
            task.status, task.made_at, task.launch_type = "PROVISIONING", time.monotonic(), "FARGATE"
            threading.Thread(target=_Story(task, definition).tell, daemon=True).start()
        return tasks

    def requirements(definition: Any, *args: Any, **kwargs: Any) -> Any:
        copied = copy.copy(definition)  # a container on Fargate needs no memory of its own
        memory = int(definition.memory or 512)
        copied.container_definitions = [{"memory": memory, **c} for c in definition.container_definitions]
        return needs(copied, *args, **kwargs)

    _Response.register_task_definition, _Response.run_task = register_task_definition, _run_task
    _Response.describe_tasks = _describe_tasks
    _Backend._calculate_task_resource_requirements = staticmethod(requirements)
    _Backend.run_task, _Backend.stop_task = run_task, _stop_task


def _run_task(self: Any) -> Any:
    """The refusals, and the same tasks again for the same clientToken."""
    given = json.loads(self.body)
    token, asked = given.pop("clientToken", None), json.dumps({**given, "clientToken": None}, sort_keys=True)
    with _TOKENS:
        if token in _ANSWERED:
            before, tasks = _ANSWERED[token]
            if before != asked:
                raise InvalidParameterException(f"clientToken {token} was used with other parameters")
            return ActionResult({"tasks": tasks, "failures": []})
        backend = self.ecs_backend
        _refuse(backend, given)
        tasks = backend.run_task(
            given.get("cluster", "default"),
            given["taskDefinition"],
            int(given.get("count", 1)),
            given.get("overrides"),
            given.get("startedBy"),
            given.get("tags"),
            given.get("launchType"),
            _with_groups(given.get("networkConfiguration")),
            given.get("group"),
            given.get("platformVersion"),
            given.get("capacityProviderStrategy"),
        )
        if token:
            _ANSWERED[token] = (asked, tasks)
    return ActionResult({"tasks": tasks, "failures": []})


def _with_groups(network: dict[str, Any] | None) -> dict[str, Any] | None:
    """moto wants security groups, where AWS takes the default one."""
    if network and "awsvpcConfiguration" in network:
        network["awsvpcConfiguration"].setdefault("securityGroups", [])
    return network


def _refuse(backend: Any, given: dict[str, Any]) -> None:
    """What AWS refuses and moto lets pass."""
    strategy, launch = given.get("capacityProviderStrategy"), given.get("launchType")
    if strategy and launch:
        raise InvalidParameterException(
            "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again."
        )
    cluster = backend._get_cluster(given.get("cluster", "default"))
    for provider in [one["capacityProvider"] for one in strategy or []]:
        if provider not in (cluster.capacity_providers or []):
            raise InvalidParameterException(f"The specified capacity provider '{provider}' was not found.")
    if int(given.get("count", 1)) > _COUNT_MOST:
        raise InvalidParameterException(f"Count cannot be more than {_COUNT_MOST}.")
    definition = backend.describe_task_definition(given["taskDefinition"])
    fargate = launch == "FARGATE" or any(one["capacityProvider"] in _FARGATE for one in strategy or [])
    if fargate and "FARGATE" not in (definition.requires_compatibilities or []):
        raise InvalidParameterException("Task definition does not support launch_type FARGATE.")
    overrides = given.get("overrides") or {}
    if len(json.dumps(overrides)) > _OVERRIDES_MOST:
        raise InvalidParameterException(f"Container Overrides length must be at most {_OVERRIDES_MOST}")
    names = {container["name"] for container in definition.container_definitions}
    for override in overrides.get("containerOverrides", []):
        if override.get("name") not in names:
            raise InvalidParameterException(
                f"Override for container named {override.get('name')} is not a container in the TaskDefinition."
            )


def _describe_tasks(self: Any) -> Any:
    """Those that were made less than `lag_s` ago, and those that never were, are MISSING."""
    wanted, cluster = self._get_param("tasks", []), self._get_param("cluster", "default")
    found = [task for task in self.ecs_backend.describe_tasks(cluster, wanted) if _is_known(task)]
    known = {task.task_arn for task in found} | {task.task_arn.rpartition("/")[2] for task in found}
    missing = [{"arn": arn, "reason": "MISSING"} for arn in wanted if arn not in known]
    if "TAGS" in self._get_param("include", []):
        self._include_in_response(responses.DESCRIBE_TASKS_TAGS)
    else:
        self._exclude_from_response(responses.DESCRIBE_TASKS_TAGS)
    return ActionResult({"tasks": found, "failures": missing})


def _is_known(task: Any) -> bool:
    return time.monotonic() - getattr(task, "made_at", 0.0) >= OPTIONS.lag_s


def _stop_task(self: Any, cluster_str: str, task_str: str, reason: str) -> Any:
    task = next(iter(self.describe_tasks(cluster_str, [task_str])), None)
    if task is None:
        raise InvalidParameterException("The referenced task was not found.")
    task.desired_status = "STOPPED"
    task.story.run.stop(reason or "Task stopped by user")
    return task


class _Story:
    """What becomes of one task of moto: its run, shown in its states."""

    def __init__(self, task: Any, definition: Any) -> None:
        self._task, self._age = task, Age()
        task.story = self
        for container in definition.container_definitions[1:]:  # moto knows the first
            task.containers.append(copy.copy(task.containers[0]))
            task.containers[-1].name, task.containers[-1].image = container["name"], container["image"]
        for container in task.containers:
            container.exitCode, container.reason, container.task_arn = None, None, task.task_arn
        self.run: Run = made(
            Spec(
                task.task_arn,
                definition.container_definitions,
                definition.volumes,
                (task.overrides or {}).get("taskRoleArn") or getattr(definition, "task_role_arn", None),
                int(definition.memory) if definition.memory else None,
                self._stream,
                (task.overrides or {}).get("containerOverrides", []),
            )
        )
        task.created_at = utcnow()
        task.cpu, task.memory = str(definition.cpu), str(definition.memory)  # as strings, and always on Fargate

    def _stream(self, container: dict[str, Any]) -> tuple[str, str]:
        options = (container.get("logConfiguration") or {}).get("options", {})
        prefix = options.get("awslogs-stream-prefix")
        return options.get("awslogs-group", ""), f"{prefix}/{container['name']}/{self._task.id}"

    def tell(self) -> None:
        """From PROVISIONING to STOPPED."""
        if not self._age.slot():
            return
        try:
            self._show("PENDING")
            self._task.pull_started_at = utcnow()
            follower = threading.Thread(target=self._follow, daemon=True)
            follower.start()
            try:
                self.run.run()
                stopped = {SPOT: "SpotInterruption", "": "EssentialContainerExited"}
                code = stopped.get(self.run.reason, "UserInitiated")
            except NotStartedError:
                code = "TaskFailedToStart"
            follower.join()
        finally:
            self._age.release()
        self._task.stop_code, self._task.stopped_reason, self._task.desired_status = code, self.run.why, "STOPPED"
        self._task.stopped_at = utcnow()
        self._show("STOPPED")

    def _follow(self) -> None:
        while not self.run.over:
            if self.run.running and self._task.status == "PENDING":
                self._task.started_at = self._task.pull_stopped_at = utcnow()
                self._show("RUNNING")
            elif self.run.running:
                self._show("RUNNING")
            time.sleep(0.05)

    def _show(self, status: str) -> None:
        for container in self._task.containers:
            ended = container.name in self.run.exits
            container.last_status = "STOPPED" if ended else status
            container.exitCode = self.run.exits.get(container.name)
            container.reason = self.run.whys.get(container.name)
        self._task.status = status
