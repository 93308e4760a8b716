"""The jobs of AWS Batch: submitted once each, watched by their parents, and what their children's attempts came to.

SubmitJob has no token that makes it idempotent. A job's name is therefore its identity: it is looked up before the job
is submitted, and boto3 sends the call once only.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from farmhand.aws.client import Aws
from farmhand.aws.errors import explain, explained
from farmhand.aws.names import TAG_BATCH, TAG_ENVIRONMENT
from farmhand.aws.places.task_tries import out_of_memory
from farmhand.core.errors import FarmUnreachable, NotConfigured

#: Source: SubmitJob, arrayProperties.size: 2 to 10,000; DescribeJobs: up to 100 jobs.
MOST_CHILDREN = 10_000
_MOST_DESCRIBED = 100
ENDED = frozenset({"SUCCEEDED", "FAILED"})
#: The states of children that have begun, from statusSummary.
BEGUN = ("STARTING", "RUNNING", "SUCCEEDED", "FAILED")
#: A job that was just submitted may not be listed yet. Seconds, and tries; so the seconds that are waited for it.
_LISTED_S, _LOOKS = 5.0, 4
LISTED_WITHIN_S = _LISTED_S * (_LOOKS - 1)
#: What the attempt says where only the container says more. Seen: nextflow#5099, airflow#15000.
_VAGUE = "Task failed to start"
_UNNAMED = re.compile(r"[^A-Za-z0-9_-]+")


class PlannedJob(NamedTuple):
    """A job for the shards from `first` on: an array, or a plain job if `size` is 1. `id` is "" until it is known."""

    name: str
    first: int
    size: int
    id: str = ""


class JobState(NamedTuple):
    """A job as AWS describes it. `summary` counts an array's children by state."""

    id: str
    status: str
    reason: str
    summary: dict[str, int]
    created_at: float

    @property
    def ended(self) -> bool:
        """Return whether nothing of it runs or will run."""
        return self.status in ENDED

    @property
    def begun(self) -> int:
        """Return how many of its containers have at least begun to start."""
        return sum(self.summary.get(state, 0) for state in BEGUN)


class ChildAttempt(NamedTuple):
    """One run of a child's containers; `reason` is AWS's, with the exit code of the agent's container if it has one.

    Times are in Unix seconds: `began_at` is 0 if the containers never began. `memory` says which container was killed
    for its memory, "" for none.
    """

    began_at: float
    ended_at: float
    reason: str
    exit_code: int | None
    last: bool
    memory: str = ""


def plan(environment: str, batch: str, generation: int, shards: int) -> list[PlannedJob]:
    """Return the jobs for a generation of `shards` shards. An array has at least two children."""
    starts = range(0, shards, MOST_CHILDREN)
    return [
        PlannedJob(job_name(environment, batch, generation, first), first, min(MOST_CHILDREN, shards - first))
        for first in starts
    ]


def job_name(environment: str, batch: str, generation: int, first: int) -> str:
    """Return the name of a job: the same for the same work, and no other's. Source: SubmitJob, jobName."""
    digest = hashlib.sha256(f"{environment}/{batch}".encode()).hexdigest()[:12]
    return f"farmhand-{_UNNAMED.sub('-', batch)[:40]}-{digest}-{generation}-{first}"


class BatchJobs:
    """The jobs of one batch. Every method raises FarmhandError for what `explained` knows."""

    def __init__(self, aws: Aws, batch: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._aws = aws
        self._batch = batch
        self._sleep = sleep

    def submit(self, job: PlannedJob, queue: str, definition: str, environment: dict[str, str]) -> str:
        """Submit a job whose name is in no queue yet, and return its id. `environment` is for the agent's container."""
        tags = {TAG_ENVIRONMENT: self._aws.names.environment, TAG_BATCH: self._batch}
        containers = [{"name": "agent", "environment": [{"name": k, "value": v} for k, v in environment.items()]}]
        request: dict[str, Any] = {
            "jobName": job.name,
            "jobQueue": queue,
            "jobDefinition": definition,
            "tags": tags,
            # The tags of a job do not reach its ECS task by themselves.
            "propagateTags": True,
            "ecsPropertiesOverride": {"taskProperties": [{"containers": containers}]},
        }
        if job.size > 1:
            request["arrayProperties"] = {"size": job.size}
        doing = f"submitting the job {job.name}"
        for _ in range(_LOOKS):
            try:
                return str(self._aws.client("batch", once=True).submit_job(**request)["jobId"])
            except Exception as error:
                known = explain(error, doing)
                if not isinstance(known, FarmUnreachable):
                    raise (known or error) from None
                failure = known
            # It may have arrived all the same.
            if found := self.find(queue, job.name, patiently=True):
                return found
        raise failure

    def find(self, queue: str, name: str, *, patiently: bool = False) -> str:
        """Return the id of the job with that name, or "". `patiently`: wait until one that is new would be listed."""
        for look in range(_LOOKS if patiently else 1):
            if look:
                self._sleep(_LISTED_S)
            with explained(f"looking for the job {name}"):
                pages = self._aws.client("batch").get_paginator("list_jobs")
                # A filter by name matches whatever the case, and jobs of all states.
                filters = [{"name": "JOB_NAME", "values": [name]}]
                for page in pages.paginate(jobQueue=queue, filters=filters):
                    for job in page["jobSummaryList"]:
                        if job["jobName"] == name:
                            return str(job["jobId"])
        return ""

    def describe(self, ids: Sequence[str]) -> dict[str, JobState]:
        """Return the states of the jobs by id. A job that AWS has forgotten is left out."""
        return {job["jobId"]: _state(job) for job in self._described(ids)}

    def terminate(self, job_id: str, reason: str) -> None:
        """End a job and all its children. One that has ended already is left alone."""
        with explained(f"ending the job {job_id}"):
            self._aws.client("batch").terminate_job(jobId=job_id, reason=reason[:256])

    def attempts(self, job: PlannedJob, now: float = 0.0) -> Iterator[ChildAttempt]:
        """Yield the ended attempts of a job's containers, with `now` also those that run: a call for 100 children."""
        ids: Iterable[str] = [f"{job.id}:{number}" for number in range(job.size)] if job.size > 1 else [job.id]
        for some in _hundreds(ids):
            for child in self._described(some):
                found = child.get("attempts") or []
                for number, attempt in enumerate(found, start=1):
                    yield _attempt(attempt, last=number == len(found))
                began = float(child.get("startedAt") or 0) / 1000
                # Seen by others (ASFHyP3/hyp3#2485): the job's own time is that of its last attempt.
                ended = {float(attempt.get("startedAt") or 0) / 1000 for attempt in found}
                if now and child["status"] == "RUNNING" and began and began not in ended:
                    yield ChildAttempt(began, now, "", None, last=True)

    def _described(self, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
        for some in _hundreds(ids):
            with explained("asking AWS Batch how far the jobs are"):
                yield from self._aws.client("batch").describe_jobs(jobs=some)["jobs"]


def size_of(aws: Aws, definition: str) -> tuple[int, int]:
    """Return the size of a job definition's containers together: thousandths of a vCPU, MB.

    Raise NotConfigured if the definition is not there.
    """
    with explained(f"looking at the job definition {definition}"):
        found = aws.client("batch").describe_job_definitions(jobDefinitionName=definition, status="ACTIVE")
    if not found["jobDefinitions"]:
        raise missing(f"the job definition {definition}")
    newest = max(found["jobDefinitions"], key=lambda one: int(one["revision"]))
    containers = newest.get("ecsProperties", {}).get("taskProperties", [{}])[0].get("containers", [])
    needs = [need for one in containers or [newest.get("containerProperties", {})] for need in _needs(one)]
    vcpu = sum(float(value) for kind, value in needs if kind == "VCPU")
    return round(1000 * vcpu), round(sum(float(value) for kind, value in needs if kind == "MEMORY"))


def missing(what: str) -> NotConfigured:
    """Return the error for a part of the environment that is not there."""
    return NotConfigured(f"{what} is not there", hint="farmhand cloud up makes it")


def _hundreds(ids: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(ids)
    while some := list(islice(rest, _MOST_DESCRIBED)):
        yield some


def _needs(container: dict[str, Any]) -> list[tuple[str, str]]:
    return [(need["type"], need["value"]) for need in container.get("resourceRequirements") or []]


def _state(job: dict[str, Any]) -> JobState:
    summary = dict((job.get("arrayProperties") or {}).get("statusSummary") or {}) or {str(job["status"]): 1}
    created = float(job.get("createdAt") or 0) / 1000
    return JobState(str(job["jobId"]), str(job["status"]), str(job.get("statusReason") or ""), summary, created)


def _attempt(attempt: dict[str, Any], *, last: bool) -> ChildAttempt:
    started, stopped = attempt.get("startedAt") or 0, attempt.get("stoppedAt") or 0
    containers = [one for task in attempt.get("taskProperties") or [] for one in task.get("containers") or []]
    agent = next((one for one in containers if one.get("name") == "agent"), attempt.get("container") or {})
    # Why AWS ended a task stands at the attempt; why a container could not start, there or at the container.
    reason, why = str(attempt.get("statusReason") or ""), str(agent.get("reason") or "")
    if not reason or (why and reason.startswith(_VAGUE)):
        reason = why
    began = float(started) / 1000
    # Seen by others (ASFHyP3/hyp3#2485): an end without a start, and one before its start.
    ended = max(began, float(stopped) / 1000) if began else 0.0
    return ChildAttempt(began, ended, reason, agent.get("exitCode"), last, out_of_memory(containers))
