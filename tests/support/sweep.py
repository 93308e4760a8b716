"""The sweep for a canary: what the containers of a place show of it while they run, and the account afterwards.

The processes of all containers are in this machine's /proc. The key is looked for there and in what the engine tells of
a container; it is never an argument of a program that looks.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from farmhand.aws.names import Names
from tests.support.aws_site import AwsSite

_CONTAINER = re.compile(r"\b[0-9a-f]{64}\b")
_EVERY_S = 0.1


class Shown(NamedTuple):
    """Where the key was seen: the container (agent, worker, pause; "" for none), the kind of place, the program."""

    container: str
    where: str
    program: str


#: Where a secret of the agent container has to be, so where a sweep has to see it.
GIVEN = frozenset({Shown("agent", "inspect", ""), Shown("agent", "environ", "docker-init")})
#: The container's own program blots it out as it starts.
_AT_FIRST = frozenset({Shown("agent", "environ", "farmhand.cloud.entry")})


class CanarySweep:
    """`with CanarySweep(site, key) as sweep:` looks until the end of the block, at the containers of the site's AWS.

    `shown` is where the key was, `looked` the (container, program, uid) of every process that it has read.
    """

    def __init__(self, site: AwsSite, key: str) -> None:
        import docker

        self.shown: set[Shown] = set()
        self.looked: set[tuple[str, str, int]] = set()
        self._key, self._label = key.encode(), site.label
        self._engine = docker.from_env()
        self._names: dict[str, str] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(30)
        self._engine.close()

    def check(self, given: frozenset[Shown] = GIVEN) -> None:
        """The key was seen where it has to be and nowhere else; the processes of agent and worker were looked at."""
        assert self.shown - _AT_FIRST == given
        looked = {(container, program) for container, program, _ in self.looked}
        must = {("agent", "farmhand.cloud.entry"), ("agent", "farmhand.cloud.agent"), ("worker", "docker-init")}
        assert must <= looked
        assert {uid for container, _, uid in self.looked if container == "agent"} >= {900}
        assert any(uid >= 20_000 for container, _, uid in self.looked if container == "worker")

    def _run(self) -> None:
        while not self._over.wait(_EVERY_S):
            for container in self._engine.containers.list(filters={"label": self._label}, ignore_removed=True):
                if container.id not in self._names:
                    self._names[container.id] = container.labels.get("farmhand.container", "pause")
                    self._see(self._names[container.id], "inspect", "", repr(container.attrs).encode())
            for directory in Path("/proc").glob("[0-9]*"):
                self._process(directory)

    def _process(self, directory: Path) -> None:
        try:
            found = _CONTAINER.findall((directory / "cgroup").read_text())
            if found and found[0] not in self._names:
                return  # a new one, which is listed the next time
            name = self._names[found[0]] if found else ""
            argv = (directory / "cmdline").read_bytes()
            words = argv.decode("utf-8", "replace").split("\0")
            program = Path(words[0]).name
            if program.startswith("python"):
                program = next((word for word in words if word.startswith("farmhand.")), program)
            for where, text in (("argv", argv), ("environ", (directory / "environ").read_bytes())):
                self._see(name, where, program, text)
            if name:
                self.looked.add((name, program, directory.stat().st_uid))
        except OSError:
            return  # it has just ended

    def _see(self, container: str, where: str, program: str, text: bytes) -> None:
        if self._key in text:
            self.shown.add(Shown(container, where, program))


def account(site: AwsSite, names: Names) -> dict[str, Any]:
    """What the account tells of an environment, by name: descriptions, items, every log and object with its text."""
    batch, ecs, logs = site.aws.client("batch"), site.aws.client("ecs"), site.aws.client("logs")
    parents = _jobs(batch, [one["jobId"] for queue in (True, False) for one in _listed(batch, names.queue(spot=queue))])
    sizes = {one["jobId"]: (one.get("arrayProperties") or {}).get("size", 0) for one in parents}
    children = [f"{parent}:{number}" for parent, size in sizes.items() for number in range(size)]
    groups = [one["logGroupName"] for one in logs.describe_log_groups()["logGroups"]]
    lines: dict[str, Any] = {}
    for group in groups:
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group):
            for event in page["events"]:
                lines.setdefault(f"log {group}/{event['logStreamName']}", []).append(event)
    states = ("RUNNING", "STOPPED")
    tasks = [arn for one in states for arn in ecs.list_tasks(cluster=names.base, desiredStatus=one)["taskArns"]]
    definitions = ecs.list_task_definitions()["taskDefinitionArns"]
    stacks = site.aws.client("cloudformation").describe_stacks()["Stacks"]
    return {
        "jobs": [*parents, *_jobs(batch, children)],
        "job definitions": batch.describe_job_definitions()["jobDefinitions"],
        "tasks": ecs.describe_tasks(cluster=names.base, tasks=tasks, include=["TAGS"])["tasks"] if tasks else [],
        **{one: ecs.describe_task_definition(taskDefinition=one)["taskDefinition"] for one in definitions},
        **{f"stack {one['StackName']}": one for one in stacks},
        "items": site.aws.client("dynamodb").scan(TableName=names.base)["Items"],
        "secrets": site.aws.client("secretsmanager").list_secrets()["SecretList"],
        "alarms": site.aws.client("cloudwatch").describe_alarms(),
        **lines,
        **site.objects("", names),
    }


def _listed(batch: Any, queue: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = batch.list_jobs(
        jobQueue=queue, filters=[{"name": "JOB_NAME", "values": ["farmhand-*"]}]
    )["jobSummaryList"]
    return found


def _jobs(batch: Any, ids: list[str]) -> list[dict[str, Any]]:
    """AWS describes a hundred at a time."""
    return [job for at in range(0, len(ids), 100) for job in batch.describe_jobs(jobs=ids[at : at + 100])["jobs"]]


def holding(key: str, things: dict[str, Any]) -> list[str]:
    """The names of the things that have the key in them, as bytes or as what they print."""
    texts = {name: thing if isinstance(thing, bytes) else repr(thing).encode() for name, thing in things.items()}
    return sorted(name for name, text in texts.items() if key.encode() in text)
