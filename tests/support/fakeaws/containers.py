"""A task in containers of this machine's Docker engine."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from functools import cache
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound

from tests.support.fakeaws.fargate import KILLED, OUT_OF_MEMORY, SPOT, NotStartedError, Run, Spec
from tests.support.fakeaws.namespace import METADATA, Carrier, Metadata, add_metadata_address
from tests.support.fakeaws.options import ACCOUNT, OPTIONS, api

_STOP_S, _READY_S, _POLL_S = 30.0, 120.0, 0.05
_TEN_MINUTES = 600


@cache
def _engine() -> Any:
    return docker.from_env(timeout=_TEN_MINUTES, max_pool_size=64)


class ContainerRun(Run):
    """All containers join the network namespace of a first one that does nothing, as they do on Fargate."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self._began = int(time.time())
        self._labels = {"farmhand": "", "farmhand.fakeaws": OPTIONS.name}
        self._prefix = f"{OPTIONS.name}-{secrets.token_hex(4)}"
        self._path = f"/v2/credentials/{secrets.token_urlsafe(24)}"
        self._containers: dict[str, Any] = {}
        self._threads: list[threading.Thread] = []
        self._open: list[Carrier | Metadata] = []
        self._volumes: dict[str, Any] = {}
        self._streams: dict[str, tuple[str, str]] = {}
        self._secret: dict[str, dict[str, str]] = {}

    def _run(self) -> None:
        self._secret = self._secrets()
        self._streams = self._log_streams()
        images = {c["image"]: found_image(c["image"]) for c in self.spec.containers}
        pause = None
        try:
            pause = _engine().containers.run(
                next(iter(images.values())).id,
                ["infinity"],
                entrypoint=["sleep"],
                detach=True,
                network_mode="none",
                user="0",
                name=f"{self._prefix}-pause",
                labels=self._labels,
            )
            pause.reload()
            self._join(int(pause.attrs["State"]["Pid"]))
            for volume in self.spec.volumes:
                name = f"{self._prefix}-{volume['name']}"
                self._volumes[volume["name"]] = _engine().volumes.create(name, labels=self._labels)
            self._start_all(pause, images)
            self._end_all()
        except APIError as error:
            raise NotStartedError(f"CannotStartContainerError: {error.explanation or error}") from error
        finally:
            for one in self._open:
                one.close()
            for thread in self._threads:
                thread.join(5)
            for container in [*self._containers.values(), *([pause] if pause else [])]:
                _removed(container, force=True, v=True)
            for volume in self._volumes.values():
                _removed(volume, force=True)

    def _join(self, pid: int) -> None:
        """What the network namespace has: the ports out, and the metadata server."""
        add_metadata_address(pid)
        for port in {OPTIONS.port, *OPTIONS.reach}:
            self._open.append(Carrier(pid, port, (OPTIONS.host, port)))
        task = {"TaskARN": self.spec.id, "Cluster": "fakeaws", "LaunchType": "FARGATE", "DesiredStatus": "RUNNING"}
        answers = {"/v4/task": lambda: task, "/v4/task/task": lambda: task, self._path: self._credentials}
        self._open.append(Metadata(pid, answers))

    def _credentials(self) -> dict[str, Any] | None:
        """The role's, as Fargate's agent gives them."""
        if not self.spec.role:
            return None
        made = api("sts").assume_role(RoleArn=self.spec.role, RoleSessionName="task")["Credentials"]
        return {
            "RoleArn": self.spec.role,
            "AccessKeyId": made["AccessKeyId"],
            "SecretAccessKey": made["SecretAccessKey"],
            "Token": made["SessionToken"],
            "Expiration": made["Expiration"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    # Start.

    def _start_all(self, pause: Any, images: dict[str, Any]) -> None:
        """Start each when what it depends on has come about, until the task is over or all have been started."""
        waiting = list(self.spec.containers)
        end = time.monotonic() + _READY_S
        while waiting and not self._is_over():
            for container in [c for c in waiting if self._ready(c)]:
                waiting.remove(container)
                self._start(container, pause, images[container["image"]])
            if waiting:
                if time.monotonic() > end:
                    self.stop(f"Task failed to start: {waiting[0]['name']} waited for too long")
                time.sleep(_POLL_S)
        while not self._is_over():
            time.sleep(_POLL_S)

    def _is_over(self) -> bool:
        ended = any(name in self.exits for name in self.spec.essential())
        return self._stopped.is_set() or ended or len(self.exits) == len(self.spec.containers)

    def _ready(self, container: dict[str, Any]) -> bool:
        return all(self._met(on["containerName"], on["condition"]) for on in container.get("dependsOn") or [])

    def _met(self, name: str, condition: str) -> bool:
        if condition == "SUCCESS" and self.exits.get(name, 0) != 0:
            self.stop(f"Task failed to start: {name} exited with {self.exits[name]}")
        if condition == "HEALTHY" and name in self._containers:
            self._containers[name].reload()
            return bool(self._containers[name].attrs["State"].get("Health", {}).get("Status") == "healthy")
        return {"START": name in self.running, "COMPLETE": name in self.exits}.get(condition, self.exits.get(name) == 0)

    def _start(self, container: dict[str, Any], pause: Any, image: Any) -> None:
        name = container["name"]
        made = _engine().containers.create(
            image.id,
            self.spec.override(name).get("command") or container.get("command"),
            name=f"{self._prefix}-{name}",
            labels=self._labels | {"farmhand.container": name},
            environment=self._environment(container),
            network_mode=f"container:{pause.id}",
            user=container.get("user"),
            read_only=bool(container.get("readonlyRootFilesystem")),
            mounts=self._mounts(container, image),
            **self._limits(container),
        )
        self._containers[name] = made
        made.start()
        self.running.add(name)
        for work in (self._watch, self._log):
            thread = threading.Thread(target=work, args=(name, made), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _environment(self, container: dict[str, Any]) -> dict[str, str]:
        override = self.spec.override(container["name"])
        said = {
            one["name"]: one["value"]
            for one in [*(container.get("environment") or []), *(override.get("environment") or [])]
        }
        role = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": self._path} if self.spec.role else {}
        return {
            **self._secret[container["name"]],
            **said,
            **self.spec.extra,
            **role,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{OPTIONS.port}",
            "AWS_REGION": OPTIONS.region,
            "AWS_DEFAULT_REGION": OPTIONS.region,
            "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
            "ECS_CONTAINER_METADATA_URI_V4": f"http://{METADATA}/v4/task",
        }

    def _mounts(self, container: dict[str, Any], image: Any) -> list[Any]:
        """An empty volume takes the image's directory, with its modes, only where the image says VOLUME: as Fargate."""
        declared = set(image.attrs["Config"].get("Volumes") or {})
        return [
            docker.types.Mount(
                mount["containerPath"],
                self._volumes[mount["sourceVolume"]].name,
                type="volume",
                read_only=bool(mount.get("readOnly")),
                no_copy=mount["containerPath"] not in declared,
            )
            for mount in container.get("mountPoints") or []
        ]

    def _limits(self, container: dict[str, Any]) -> dict[str, Any]:
        linux, health = container.get("linuxParameters") or {}, container.get("healthCheck")
        capabilities = linux.get("capabilities") or {}
        needs = {need["type"]: need["value"] for need in container.get("resourceRequirements") or []}
        memory = container.get("memory") or needs.get("MEMORY") or self.spec.memory
        limits: dict[str, Any] = {
            "init": bool(linux.get("initProcessEnabled")),
            "cap_drop": capabilities.get("drop"),
            "cap_add": capabilities.get("add"),
        }
        if memory:
            limits |= {"mem_limit": f"{memory}m", "memswap_limit": f"{memory}m"}
        if container.get("entryPoint"):
            limits["entrypoint"] = container["entryPoint"]
        if health:
            interval, retries = int(health.get("interval", 30)), int(health.get("retries", 3))
            limits["healthcheck"] = {"test": health["command"], "interval": interval * 10**9, "retries": retries}
        return limits

    # While they run.

    def _watch(self, name: str, container: Any) -> None:
        try:
            code = int(container.wait()["StatusCode"])
            if code == KILLED and not self._was_killed(container):
                self.whys[name] = OUT_OF_MEMORY
        except APIError:
            code = KILLED
        self.exits[name] = code

    def _was_killed(self, container: Any) -> bool:
        """Whether the engine sent SIGKILL; else the kernel did. Docker's own OOMKilled lacks many a quick end.

        SIGTERM does not count: the task's end sends it to a container that Docker does not yet know to have ended.
        """
        told = {"container": container.id, "event": "kill"}
        events = _engine().events(since=self._began, until=f"{time.time():.3f}", filters=told, decode=True)
        return any(event["Actor"]["Attributes"].get("signal") == "9" for event in events)

    def _log(self, name: str, container: Any) -> None:
        group, stream = self._streams[name]
        if not group:
            return
        rest = b""
        for chunk in container.logs(stream=True, follow=True):
            *lines, rest = (rest + chunk).split(b"\n")
            self._put(group, stream, lines)
        self._put(group, stream, [rest] if rest else [])

    def _put(self, group: str, stream: str, lines: list[bytes]) -> None:
        from moto.logs.models import logs_backends

        now = int(time.time() * 1000)
        events = [{"timestamp": now, "message": line.decode("utf-8", "replace")} for line in lines if line]
        if events:
            logs_backends[ACCOUNT][OPTIONS.region].put_log_events(group, stream, events)

    # The end.

    def _end_all(self) -> None:
        """SIGTERM to those that none depends on, then to the rest; SIGKILL after each one's time, or that of Spot."""
        grace = {c["name"]: float(c.get("stopTimeout") or _STOP_S) for c in self.spec.containers}
        began, told = time.monotonic(), {}
        while left := self.running - self.exits.keys():
            now = time.monotonic()
            for name in left:
                if name not in told and not self._dependents(name) & left:
                    told[name] = now
                    self._kill(name, "SIGTERM")
                late = name in told and now - told[name] > grace[name]
                if late or (self.reason == SPOT and now - began > OPTIONS.spot_s):
                    self._kill(name, "SIGKILL")
            time.sleep(_POLL_S)

    def _dependents(self, name: str) -> set[str]:
        return {
            c["name"]
            for c in self.spec.containers
            if any(on["containerName"] == name for on in c.get("dependsOn") or [])
        }

    def _kill(self, name: str, signal: str) -> None:
        with contextlib.suppress(APIError):  # it has just ended
            self._containers[name].kill(signal)


def found_image(name: str) -> Any:
    """The image of exactly this name. Raise NotStartedError."""
    with contextlib.suppress(ImageNotFound):
        return _engine().images.get(name)
    host, _, path = name.partition("/")
    if OPTIONS.registry and ".dkr.ecr." in host:
        with contextlib.suppress(APIError):
            _engine().api.pull(f"{OPTIONS.registry}/{path}", auth_config=OPTIONS.registry_login)
            return _engine().images.get(f"{OPTIONS.registry}/{path}")
    raise NotStartedError(
        f"CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref {name}: "
        f"{name}: not found"
    )


def _removed(thing: Any, **options: Any) -> None:
    with contextlib.suppress(APIError):
        thing.remove(**options)
