"""moto's Batch with what it lacks: ecsProperties, the rules of Fargate, arrays, retries, paging, and real runs."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from moto.batch import models, responses
from moto.batch.exceptions import ClientException

from tests.support.fakeaws.batch_job import Story, described
from tests.support.fakeaws.options import OPTIONS
from tests.support.fargate_rules import compute_faults, job_definition_faults
from tests.support.fargate_rules.job import environment_faults

_Response, _Backend, _Job, _Definition = (
    responses.BatchResponse,
    models.BatchBackend,
    models.Job,
    models.JobDefinition,
)
#: Source: the API reference of Batch and its quotas.
_ARRAY, _PAGE, _TIMEOUT_LEAST_S = range(2, 10_001), 100, 60
_PAYLOAD_MOST = 30 * 1024
_submitted = threading.local()


def change() -> None:
    """Change moto."""
    register, submit, initialise = _Response.registerjobdefinition, _Response.submitjob, _Job.__init__
    describe_definition, describe = _Definition.describe, _Job.describe
    create, create_queue = _Response.createcomputeenvironment, _Response.createjobqueue

    def register_job_definition(self: Any) -> Any:
        given = json.loads(self.body)
        if faults := job_definition_faults(given):
            raise ClientException("; ".join(faults))
        ecs, get = given.get("ecsProperties"), self._get_param
        if ecs is not None:
            stand_in = _stand_in(ecs["taskProperties"][0])
            self._get_param = lambda key, default=None: stand_in if key == "containerProperties" else get(key, default)
        answer = json.loads(register(self))
        self.batch_backend._job_definitions[answer["jobDefinitionArn"]].ecs_properties = copy.deepcopy(ecs)
        return json.dumps(answer)

    def submit_job(self: Any) -> Any:
        given = json.loads(self.body)
        _refuse_submission(self.batch_backend, given)
        _submitted.overrides, _submitted.retry = given.get("ecsPropertiesOverride"), given.get("retryStrategy")
        return submit(self)

    def job_init(self: Any, *args: Any, **kwargs: Any) -> None:
        self.made_at = time.monotonic()
        self.ecs_override, self.retry_override = _submitted.overrides, _submitted.retry
        initialise(self, *args, **kwargs)

    def describe_job_definition(self: Any) -> Any:
        shown = describe_definition(self)
        if getattr(self, "ecs_properties", None):
            shown["ecsProperties"] = self.ecs_properties
            shown.pop("containerProperties", None)
        return shown

    def create_compute_environment(self: Any) -> Any:
        given = json.loads(self.body)
        if faults := compute_faults(given):
            raise ClientException("; ".join(faults))
        return _enabled(self, create)

    def create_job_queue(self: Any) -> Any:
        return _enabled(self, create_queue)

    _Response.registerjobdefinition, _Response.submitjob = register_job_definition, submit_job
    _Response.createcomputeenvironment, _Response.createjobqueue = create_compute_environment, create_job_queue
    _Response.describejobs, _Response.listjobs = _describe_jobs, _list_jobs
    _Definition.describe, _Job.describe = describe_job_definition, lambda self: described(self, describe(self))
    _Job.__init__, _Job.run = job_init, lambda self: Story(self).tell()
    _Backend.terminate_job, _Backend.cancel_job = _terminate_job, _cancel_job


def _enabled(self: Any, create: Callable[[Any], Any]) -> Any:
    """What is made is ENABLED where nothing is said; moto insists."""
    get = self._get_param
    self._get_param = lambda key, default=None: get(key, "ENABLED" if key == "state" else default)
    return create(self)


def _stand_in(task: dict[str, Any]) -> dict[str, Any]:
    """What moto gets for ecsProperties, which it does not know: one container of the sizes of all."""
    total = {"VCPU": 0.0, "MEMORY": 0.0}
    for container in task["containers"]:
        for need in container.get("resourceRequirements") or []:
            total[need["type"]] += float(need["value"])
    return {
        "image": task["containers"][0]["image"],
        "executionRoleArn": task["executionRoleArn"],
        "networkConfiguration": {},
        "resourceRequirements": [{"type": kind, "value": f"{value:g}"} for kind, value in total.items()],
    }


def _refuse_submission(backend: Any, given: dict[str, Any]) -> None:
    size = (given.get("arrayProperties") or {}).get("size")
    if size is not None and size not in _ARRAY:
        raise ClientException(f"Array size must be from {_ARRAY.start} to {_ARRAY.stop - 1}, not {size}.")
    if len(json.dumps(given)) > _PAYLOAD_MOST:
        raise ClientException(f"The request is larger than {_PAYLOAD_MOST} bytes.")
    seconds = (given.get("timeout") or {}).get("attemptDurationSeconds")
    if seconds is not None and seconds < _TIMEOUT_LEAST_S:
        raise ClientException(f"The timeout must be at least {_TIMEOUT_LEAST_S} seconds.")
    definition = backend.get_job_definition(given["jobDefinition"])
    ecs = getattr(definition, "ecs_properties", None)
    if ecs and given.get("containerOverrides"):
        raise ClientException("containerOverrides are not for a job definition with ecsProperties.")
    if given.get("ecsPropertiesOverride") and not ecs:
        raise ClientException("ecsPropertiesOverride is for a job definition with ecsProperties only.")
    tasks = (given.get("ecsPropertiesOverride") or {}).get("taskProperties") or []
    overrides = [container for task in tasks for container in task.get("containers") or []]
    names = {
        container["name"] for container in (ecs or {"taskProperties": [{}]})["taskProperties"][0].get("containers", [])
    }
    for override in overrides:
        if override.get("name") not in names:
            raise ClientException(f"The override names no container of the job definition: {override.get('name')}.")
    for override in [*overrides, given.get("containerOverrides") or {}]:
        for fault in environment_faults(override.get("environment")):
            raise ClientException(fault)


def _describe_jobs(self: Any) -> str:
    """At most 100 by their ids. Those submitted less than `lag_s` ago are not known yet."""
    wanted = self._get_param("jobs") or []
    if not 1 <= len(wanted) <= _PAGE:
        raise ClientException(f"jobs has 1 to {_PAGE} ids, not {len(wanted)}.")
    backend = self.batch_backend
    found = [job for name in wanted if (job := backend._jobs.get(name.rpartition("/")[2])) and _is_known(job)]
    return json.dumps({"jobs": [job.describe() for job in found]})


def _list_jobs(self: Any) -> str:
    """Pages of 100. Without a status and filters only RUNNING jobs, as the service does."""
    status, filters = self._get_param("jobStatus"), self._get_param("filters")
    jobs = self.batch_backend.list_jobs(
        job_queue_name=self._get_param("jobQueue"),
        array_job_id=self._get_param("arrayJobId"),
        job_status=None if filters else status or "RUNNING",
        filters=filters,
    )
    if not self._get_param("arrayJobId"):
        jobs = [job for job in jobs if ":" not in job.job_id]
    jobs = [job for job in jobs if _is_known(job)]
    first, most = int(self._get_param("nextToken") or 0), min(int(self._get_param("maxResults") or _PAGE), _PAGE)
    for job in jobs:
        job.describe()  # an array's status is that of its children
    answer: dict[str, Any] = {"jobSummaryList": [job.describe_short() for job in jobs[first : first + most]]}
    if first + most < len(jobs):
        answer["nextToken"] = str(first + most)
    return json.dumps(answer)


def _is_known(job: Any) -> bool:
    return bool(time.monotonic() - job.made_at >= OPTIONS.lag_s)


def _terminate_job(self: Any, job_id: str, reason: str) -> None:
    for job in _family(self, job_id):
        job.terminate(reason)


def _cancel_job(self: Any, job_id: str, reason: str) -> None:
    """What has started goes on."""
    for job in _family(self, job_id):
        if job.status in ("SUBMITTED", "PENDING", "RUNNABLE"):
            job.terminate(reason)


def _family(backend: Any, job_id: str) -> list[Any]:
    """The job, and the children of an array."""
    if not job_id:
        raise ClientException("'jobId' is a required field")
    job = backend.get_job_by_id(job_id)
    return [] if job is None else [job, *(job._child_jobs or [])]
