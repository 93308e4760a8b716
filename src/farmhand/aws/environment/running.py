"""What runs on AWS: the cluster's tasks and the queues' jobs, found by their ids or by the tags of farmhand's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from farmhand.aws.client import Aws
from farmhand.aws.errors import code_of, explained
from farmhand.aws.names import TAG_BATCH, TAG_TASK
from farmhand.core.errors import NotConfigured, UsageError

#: Source: ListJobs, jobStatus.
ACTIVE = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
ENDED = ("SUCCEEDED", "FAILED")
_HUNDRED = 100
#: What a cluster or queue that is not there is answered with.
_MISSING = frozenset({"ClusterNotFoundException", "ClientException", "ResourceNotFoundException"})


@dataclass(frozen=True)
class Running:
    """A task of ECS or a job of AWS Batch. Times are in Unix seconds, 0 for not yet.

    `kind` is task, job or array. `batch` and `task` are farmhand's own ids, from the tags. `children` counts an array's
    by state. `streams` are its streams of the log group. `attempts` are start and end of each.
    """

    kind: str
    id: str
    name: str
    status: str
    reason: str
    batch: str
    task: str
    spot: bool
    vcpu: str
    memory_mb: int
    made_at: float
    attempts: tuple[tuple[float, float], ...] = ()
    streams: tuple[str, ...] = ()
    children: dict[str, int] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        """Return whether it runs or waits to."""
        return self.status not in (*ENDED, "STOPPED", "DEPROVISIONING", "DELETED")

    def is_called(self, name: str) -> bool:
        """Return whether `name` means this: its id, its ARN, or farmhand's id of task or batch."""
        return name in (self.id, self.batch, self.task) or name.rpartition("/")[2] == self.id

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        shown = ("kind", "id", "name", "status", "reason", "batch", "task", "spot", "vcpu", "memory_mb", "children")
        return {name: getattr(self, name) for name in shown} | {"made_at": self.made_at}


def everything(aws: Aws, *, ended: bool = False) -> list[Running]:
    """Return what runs or waits, with `ended` also what has ended as long as AWS knows it. Raise FarmhandError."""
    found = [*_tasks(aws, ended=ended)]
    for spot in (True, False):
        found += _jobs(aws, aws.names.queue(spot=spot), [*ACTIVE, *(ENDED if ended else ())], spot=spot)
    return sorted(found, key=lambda one: one.made_at)


def busy(aws: Aws) -> list[str]:
    """Return the ids of what runs or waits."""
    return [one.id for one in everything(aws)]


def named(aws: Aws, name: str) -> list[Running]:
    """Return what is called `name`; an array comes with its children.

    Raise UsageError for an empty name, which would be that of everything without a batch; NotConfigured for nothing.
    """
    if not name.strip():
        raise UsageError("the name of the task or batch is empty", hint="farmhand cloud status lists what runs")
    found = [one for one in everything(aws, ended=True) if one.is_called(name)]
    if not found and ":" in name and "/" not in name:
        found = [_job(job, spot=False) for job in _described(aws, [name])]
    if not found:
        where = f"{aws.names.base}, region {aws.region}"
        raise NotConfigured(f"nothing is called {name:.80} in {where}", hint="farmhand cloud status lists what runs")
    return found


def children(aws: Aws, array: Running) -> Iterator[Running]:
    """Yield the children of an array that have begun. Raise FarmhandError."""
    for status in ("STARTING", "RUNNING", *ENDED):
        ids = [job["jobId"] for job in _listed(aws, {"arrayJobId": array.id, "jobStatus": status})]
        yield from (_job(job, spot=array.spot) for job in _described(aws, ids))


def end(aws: Aws, one: Running, reason: str) -> None:
    """End a task, or a job with all its children. Raise FarmhandError."""
    with explained(f"ending {one.id}"):
        if one.kind == "task":
            aws.client("ecs").stop_task(cluster=aws.names.base, task=one.id, reason=reason)
        else:
            aws.client("batch").terminate_job(jobId=one.id, reason=reason)


def _tasks(aws: Aws, *, ended: bool) -> Iterator[Running]:
    ecs, cluster = aws.client("ecs"), aws.names.base
    arns: list[str] = []
    with explained("asking what runs in the cluster"):
        try:
            for status in ("RUNNING", "STOPPED") if ended else ("RUNNING",):
                for page in ecs.get_paginator("list_tasks").paginate(cluster=cluster, desiredStatus=status):
                    arns += page["taskArns"]
        except Exception as error:
            if code_of(error) not in _MISSING:
                raise
            return
        for some in _hundreds(arns):
            for task in ecs.describe_tasks(cluster=cluster, tasks=some, include=["TAGS"])["tasks"]:
                yield _task(task)


def _task(task: dict[str, Any]) -> Running:
    tags = {tag["key"]: tag["value"] for tag in task.get("tags") or []}
    family = str(task.get("taskDefinitionArn", "")).rpartition("/")[2].partition(":")[0]
    number = str(task["taskArn"]).rpartition("/")[2]
    # Source: Fargate's price page: from the start of the pull.
    began, stopped = (_seconds(task.get("pullStartedAt") or task.get("startedAt")), _seconds(task.get("stoppedAt")))
    size = family.rpartition("-")[2]
    return Running(
        kind="task",
        id=number,
        name=family,
        status=str(task.get("lastStatus", "")),
        reason=" ".join(str(task.get("stoppedReason") or "").split()),
        batch=tags.get(TAG_BATCH, ""),
        task=tags.get(TAG_TASK, ""),
        spot=task.get("capacityProviderName") == "FARGATE_SPOT",
        vcpu=f"{int(task.get('cpu') or 0) / 1024:g}",
        memory_mb=int(task.get("memory") or 0),
        made_at=_seconds(task.get("createdAt")),
        attempts=((began, stopped),) if began else (),
        streams=tuple(f"{size}/{container['name']}/{number}" for container in task.get("containers") or []),
    )


def _jobs(aws: Aws, queue: str, statuses: Iterable[str], *, spot: bool) -> Iterator[Running]:
    ids: list[str] = []
    for status in statuses:
        ids += [job["jobId"] for job in _listed(aws, {"jobQueue": queue, "jobStatus": status})]
    yield from (_job(job, spot=spot) for job in _described(aws, ids))


def _listed(aws: Aws, what: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the jobs of a queue or an array; a queue that is not there has none."""
    with explained("asking what is in the queues"):
        try:
            for page in aws.client("batch").get_paginator("list_jobs").paginate(**what):
                yield from page["jobSummaryList"]
        except Exception as error:
            if code_of(error) not in _MISSING:
                raise


def _described(aws: Aws, ids: list[str]) -> Iterator[dict[str, Any]]:
    for some in _hundreds(ids):
        with explained("asking about jobs"):
            yield from aws.client("batch").describe_jobs(jobs=some)["jobs"]


def _job(job: dict[str, Any], *, spot: bool) -> Running:
    array, tags = job.get("arrayProperties") or {}, job.get("tags") or {}
    parts = [
        part for task in (job.get("ecsProperties") or {}).get("taskProperties") or [] for part in task["containers"]
    ]
    needs = [need for part in parts or [job.get("container") or {}] for need in part.get("resourceRequirements") or []]
    attempts, streams = [], [part["logStreamName"] for part in parts if part.get("logStreamName")]
    for attempt in job.get("attempts") or []:
        began, ended = (attempt.get("startedAt") or 0) / 1000, (attempt.get("stoppedAt") or 0) / 1000
        if began:
            attempts.append((began, ended))
        for task in attempt.get("taskProperties") or []:
            streams += [part["logStreamName"] for part in task.get("containers") or [] if part.get("logStreamName")]
    if job.get("status") == "RUNNING" and job.get("startedAt") and (job["startedAt"] / 1000, 0.0) not in attempts:
        attempts.append((job["startedAt"] / 1000, 0.0))
    return Running(
        kind="array" if array.get("size") else "job",
        id=str(job["jobId"]),
        name=str(job.get("jobName", "")),
        status=str(job.get("status", "")),
        reason=" ".join(str(job.get("statusReason") or "").split()),
        batch=tags.get(TAG_BATCH, ""),
        task=tags.get(TAG_TASK, ""),
        spot=spot,
        vcpu=f"{sum(float(need['value']) for need in needs if need['type'] == 'VCPU'):g}",
        memory_mb=int(sum(float(need["value"]) for need in needs if need["type"] == "MEMORY")),
        made_at=(job.get("createdAt") or 0) / 1000,
        attempts=tuple(attempts),
        streams=tuple(dict.fromkeys(streams)),
        children=dict(array.get("statusSummary") or {}),
    )


def _seconds(when: Any) -> float:
    return when.timestamp() if isinstance(when, datetime) else float(when or 0)


def _hundreds(ids: list[str]) -> Iterator[list[str]]:
    yield from (ids[start : start + _HUNDRED] for start in range(0, len(ids), _HUNDRED))
