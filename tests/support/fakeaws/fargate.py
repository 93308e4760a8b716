"""Tasks as Fargate has them, and the two ways to run one: in containers, or played by a test."""

from __future__ import annotations

import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.fakeaws.options import ACCOUNT, OPTIONS, api

#: What AWS says when Fargate Spot takes a task back. Source: the ECS developer guide, "Fargate capacity providers".
SPOT = "Your Spot Task was interrupted."
ESSENTIAL_ENDED = "Essential container in task exited"
KILLED, TERMINATED = 137, 143
#: The reason of a container of which the kernel has killed any process for its memory. Source: the ECS developer guide,
#: "Stopped tasks error codes"; aws/amazon-ecs-agent#2467.
OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"
_END_S, _HURRY_S = 15.0, 0.5


class NotStartedError(Exception):
    """The task could not start; the message begins with AWS's name for it."""


@dataclass
class Spec:
    """What runs. `containers`, `volumes` and `overrides` are those of the services' APIs."""

    #: ARN of the task, or `job#attempt`.
    id: str
    containers: list[dict[str, Any]]
    volumes: list[dict[str, Any]] = field(default_factory=list)
    role: str | None = None
    memory: int | None = None
    #: Container → its log group and stream; "" is none.
    log_stream: Callable[[dict[str, Any]], tuple[str, str]] = lambda _container: ("", "")
    overrides: list[dict[str, Any]] = field(default_factory=list)
    #: Environment that the service adds to each container.
    extra: dict[str, str] = field(default_factory=dict)

    def override(self, name: str) -> dict[str, Any]:
        """What was overridden for a container; one without a name is for the only one."""
        return next((o for o in self.overrides if o.get("name", name) == name), {})

    def essential(self) -> list[str]:
        """Names of the containers whose end is the task's."""
        return [c["name"] for c in self.containers if c.get("essential", True)]


class Run(ABC):
    """One run of a task. `exits` has the exit code of each container that has ended, `whys` AWS's reason for some."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.running: set[str] = set()
        self.exits: dict[str, int] = {}
        self.whys: dict[str, str] = {}
        self.reason = ""
        self.over = False
        self._stopped = threading.Event()

    def run(self) -> None:
        """Until it has ended. Raise NotStartedError."""
        try:
            self._run()
        except NotStartedError as error:
            self.reason = str(error)
            raise
        finally:
            self.over = True

    @abstractmethod
    def _run(self) -> None: ...

    def stop(self, reason: str) -> None:
        """Send SIGTERM and later SIGKILL; the first reason stays."""
        self.reason = self.reason or reason
        self._stopped.set()

    @property
    def exit_code(self) -> int | None:
        """That of the first essential container."""
        return self.exits.get(self.spec.essential()[0])

    @property
    def why(self) -> str:
        """Why it ended, in AWS's words."""
        return self.reason or ESSENTIAL_ENDED

    def _secrets(self) -> dict[str, dict[str, str]]:
        """Container → its secrets. They are read before anything starts, as Fargate does."""
        try:
            return {
                c["name"]: {s["name"]: _secret(s["valueFrom"]) for s in c.get("secrets") or []}
                for c in self.spec.containers
            }
        except Exception as error:
            raise NotStartedError(
                f"ResourceInitializationError: unable to pull secrets or registry auth: {error}"
            ) from None

    def _log_streams(self) -> dict[str, tuple[str, str]]:
        """Container → log group and stream, which are made now."""
        from moto.logs.models import logs_backends

        streams = {c["name"]: self.spec.log_stream(c) for c in self.spec.containers}
        logs = logs_backends[ACCOUNT][OPTIONS.region]
        for group, stream in streams.values():
            if group and group not in logs.groups:
                raise NotStartedError(
                    "ResourceInitializationError: failed to validate logger args: create stream has been retried 1 "
                    f"times: ResourceNotFoundException: The specified log group does not exist: {group}"
                )
            if group and stream not in logs.groups[group].streams:
                logs.create_log_stream(group, stream)
        return streams


class PlayedRun(Run):
    """A run without containers: `play` starts it and says how it ends."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self._moved = threading.Event()
        self._ends: dict[str, int] | None = None

    def play(self, exits: dict[str, int] | None, reason: str) -> None:
        """Start it; end it if `exits` is given; `reason` without exits: it does not start."""
        if reason and exits is None:
            self.reason = reason
        else:
            self.running |= {c["name"] for c in self.spec.containers}
            self._ends = exits
        self._moved.set()

    def _run(self) -> None:
        self._secrets()
        self._log_streams()
        while not (self._stopped.is_set() or self._ends is not None or (self.reason and not self.running)):
            self._moved.wait(0.05)
            self._moved.clear()
        if self.reason and not self.running:
            raise NotStartedError(self.reason)
        self.exits = dict.fromkeys(self.running, TERMINATED) | (self._ends or {})


RUNS: dict[str, Run] = {}
_SLOTS = threading.Semaphore(OPTIONS.at_once)
_POLL_S = 0.05


class Age:
    """What began before the last reset has no future."""

    current = 0

    def __init__(self) -> None:
        self._born = Age.current

    def slot(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Wait for capacity, which `release` gives back. False: it was stopped, or everything was reset."""
        while not (stopped() or self._born != Age.current):
            if _SLOTS.acquire(timeout=_POLL_S):
                return True
        return False

    @staticmethod
    def release() -> None:
        """Give the capacity back."""
        _SLOTS.release()


def made(spec: Spec) -> Run:
    """A run of the task, in the mode of this process."""
    if OPTIONS.docker:
        from tests.support.fakeaws.containers import ContainerRun

        run: Run = ContainerRun(spec)
    else:
        run = PlayedRun(spec)
    RUNS[spec.id] = run
    return run


def interrupt(task: str) -> bool:
    """Fargate Spot takes the task back: its last attempt, if it is a job."""
    found = _current(task)
    if found is not None:
        found.stop(SPOT)
    return found is not None


def play(task: str, exits: dict[str, int] | None, reason: str) -> bool:
    """Play the task's current run."""
    found = _current(task)
    if isinstance(found, PlayedRun):
        found.play(exits, reason)
    return found is not None


def end_all() -> None:
    """End everything that runs, at once; nothing that waits begins."""
    Age.current += 1
    OPTIONS.spot_s = min(OPTIONS.spot_s, _HURRY_S)
    end = time.monotonic() + _END_S
    while (left := [run for run in list(RUNS.values()) if not run.over]) and time.monotonic() < end:
        for run in left:
            run.reason = SPOT  # which has the shortest way
            run.stop(SPOT)
        time.sleep(_POLL_S)
    RUNS.clear()


def shown() -> dict[str, dict[str, Any]]:
    """All runs, by id."""
    return {
        key: {"running": sorted(run.running - run.exits.keys()), "exits": run.exits, "reason": run.reason}
        for key, run in list(RUNS.items())
    }


def _current(task: str) -> Run | None:
    found = [run for key, run in list(RUNS.items()) if (key == task or key.startswith(f"{task}#")) and not run.over]
    return found[-1] if found else None


def _secret(reference: str) -> str:
    """The value of a container's secret. Source: the ECS developer guide: ARN:json-key:version-stage:version-id."""
    parts = reference.split(":")
    key, stage, version = [*parts[7:], "", "", ""][:3]
    which = {"VersionStage": stage, "VersionId": version}
    answer = api("secretsmanager").get_secret_value(
        SecretId=":".join(parts[:7]), **{name: value for name, value in which.items() if value}
    )
    text = str(answer["SecretString"])
    return str(json.loads(text)[key]) if key else text
