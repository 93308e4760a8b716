"""The rules for the containers of a task, which ECS and Batch share. Keys are those of the services' APIs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

_UNSUPPORTED = (
    *("links", "dnsServers", "dnsSearchDomains", "dockerSecurityOptions", "extraHosts", "hostname"),
    *("disableNetworking", "privileged"),
)
_UNSUPPORTED_LINUX = ("devices", "tmpfs", "sharedMemorySize", "maxSwap", "swappiness")
_LOG_DRIVERS = ("awslogs", "splunk", "awsfirelens")
_AWSLOGS_REQUIRED = ("awslogs-group", "awslogs-region", "awslogs-stream-prefix")
#: Seconds. Source: the API reference of ECS and of Batch.
_STOP_LEAST, _TIMEOUT_MOST = 2, 120
_DEPENDENCIES = ("START", "COMPLETE", "SUCCESS", "HEALTHY")


def container_faults(containers: list[dict[str, Any]], volumes: list[dict[str, Any]]) -> Iterator[str]:
    """What is wrong with each container, and with what they say of each other and of the volumes."""
    for container in containers:
        for fault in _faults(container):
            yield f"container {container.get('name')}: {fault}"
    yield from _relation_faults({str(c.get("name")): c for c in containers})
    if not any(container.get("essential", True) is not False for container in containers):
        yield "no container is essential"
    yield from (f"two containers are called {name}" for name, n in _names(containers).items() if n > 1)
    yield from _volume_faults(containers, volumes)


def is_essential(container: dict[str, Any]) -> bool:
    """Whether the task ends with the container: the default is yes."""
    return container.get("essential", True) not in (False, "false")


def _names(containers: list[dict[str, Any]]) -> Counter[str]:
    return Counter(str(container.get("name")) for container in containers)


def _faults(container: dict[str, Any]) -> Iterator[str]:
    linux = _map(container.get("linuxParameters"))
    if not container.get("image"):
        yield "no image"
    yield from (f"Fargate does not support {key}" for key in _UNSUPPORTED if container.get(key))
    yield from (
        f"Fargate does not support linuxParameters.{key}" for key in _UNSUPPORTED_LINUX if linux.get(key) is not None
    )
    for capability in _map(linux.get("capabilities")).get("add") or []:
        if capability != "SYS_PTRACE":
            yield f"Fargate does not add the capability {capability}"
    if any(need.get("type") == "GPU" for need in container.get("resourceRequirements") or []):
        yield "Fargate has no GPU"
    for port in container.get("portMappings") or []:
        if port.get("hostPort") not in (None, 0, port.get("containerPort")):
            yield f"hostPort {port['hostPort']} is not containerPort"
    for key, least in (("stopTimeout", _STOP_LEAST), ("startTimeout", _STOP_LEAST)):
        if (seconds := _number(container.get(key))) is not None and not least <= seconds <= _TIMEOUT_MOST:
            yield f"{key} is not from {least} to {_TIMEOUT_MOST} s"
    yield from _log_faults(_map(container.get("logConfiguration")))
    yield from _environment_faults(container)


def _log_faults(log: dict[str, Any]) -> Iterator[str]:
    driver, options = log.get("logDriver"), _map(log.get("options"))
    if isinstance(driver, str) and driver not in _LOG_DRIVERS:
        yield f"Fargate has no log driver {driver}"
    if driver == "awslogs":
        yield from (f"awslogs on Fargate wants {key}" for key in _AWSLOGS_REQUIRED if not options.get(key))


def _environment_faults(container: dict[str, Any]) -> Iterator[str]:
    names = Counter(str(one.get("name")) for one in container.get("environment") or [])
    secrets = Counter(str(one.get("name")) for one in container.get("secrets") or [])
    yield from (f"{name} is a secret and an environment variable" for name in names.keys() & secrets.keys())
    yield from (f"secret {name} is named twice" for name, n in secrets.items() if n > 1)


def _relation_faults(containers: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name, container in containers.items():
        for dependency in container.get("dependsOn") or []:
            on, condition = str(dependency.get("containerName")), dependency.get("condition")
            if condition not in _DEPENDENCIES:
                yield f"container {name}: no dependency is called {condition}"
            elif on not in containers or on == name:
                yield f"container {name}: depends on {on}, which is no other container of the task"
            elif condition == "HEALTHY" and not containers[on].get("healthCheck"):
                yield f"container {name}: depends on the health of {on}, which has no healthCheck"
            elif condition in ("COMPLETE", "SUCCESS") and is_essential(containers[on]):
                yield f"container {name}: waits for the end of {on}, which is essential"
    if _has_circle(containers):
        yield "containers depend on each other in a circle"


def _has_circle(containers: dict[str, dict[str, Any]]) -> bool:
    left = {n: {str(d.get("containerName")) for d in c.get("dependsOn") or []} for n, c in containers.items()}
    while free := {name for name, on in left.items() if not on & left.keys()}:
        left = {name: on for name, on in left.items() if name not in free}
    return bool(left)


def _volume_faults(containers: list[dict[str, Any]], volumes: list[dict[str, Any]]) -> Iterator[str]:
    known = {volume.get("name") for volume in volumes}
    for container in containers:
        for mount in container.get("mountPoints") or []:
            if mount.get("sourceVolume") not in known:
                yield f"container {container.get('name')}: there is no volume {mount.get('sourceVolume')}"
    for volume in volumes:
        if _map(volume.get("host")).get("sourcePath"):
            yield f"volume {volume.get('name')}: Fargate does not support host.sourcePath"
        if volume.get("dockerVolumeConfiguration"):
            yield f"volume {volume.get('name')}: Fargate does not support dockerVolumeConfiguration"


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, dict) else float(value)
    except (TypeError, ValueError):
        return None
