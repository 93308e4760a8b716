"""What becomes of a job: attempt by attempt, from SUBMITTED to its end, and how DescribeJobs shows it."""

from __future__ import annotations

import fnmatch
import threading
import time
from datetime import datetime
from typing import Any

from tests.support.fakeaws.fargate import Age, NotStartedError, Run, Spec, made
from tests.support.fakeaws.options import OPTIONS

_OVER = ("SUCCEEDED", "FAILED")
_POLL_S = 0.05
_DEFAULT_GROUP = "/aws/batch/job"
_TIMEOUT = "Job attempt duration exceeded timeout"


def moves_on(retry: dict[str, Any], attempt: int, code: int | None, status_reason: str, reason: str) -> bool:
    """Whether a failed attempt is tried again: the first rule that matches decides, and none means yes.

    Source: the Batch user guide, "Automated job retries" and "Job timeouts".
    """
    if attempt >= int(retry.get("attempts", 1)) or status_reason == _TIMEOUT:
        return False
    seen = {"onExitCode": "" if code is None else str(code), "onStatusReason": status_reason, "onReason": reason}
    for rule in retry.get("evaluateOnExit") or []:
        if all(fnmatch.fnmatchcase(seen[key], str(rule[key])) for key in seen if key in rule):
            return str(rule["action"]).upper() == "RETRY"
    return True


class Story:
    """The run of a job, which is moto's thread for it."""

    def __init__(self, job: Any) -> None:
        self._job, self._age = job, Age()
        self._retry = job.retry_override or job.job_definition.retry_strategy or {}
        self._limit = job._get_attempt_duration()

    def tell(self) -> None:
        """Until its end. An array's parent is never run: its status is that of its children."""
        job = self._job
        if job.depends_on and not job._wait_for_dependencies():
            return
        job.status = "RUNNABLE"
        while not job.stop and self._attempt(len(job.attempts) + 1):
            job.status = "RUNNABLE"
        job.job_stopped, job.job_stopped_at = True, datetime.now()
        succeeded = bool(job.attempts) and job.exit_code == 0 and not job.stop and not job.attempts[-1]["failed"]
        job.status = "SUCCEEDED" if succeeded else "FAILED"

    def _attempt(self, number: int) -> bool:
        """Run it once. Return whether to try it again."""
        job = self._job
        if not self._age.slot(lambda: job.stop):
            return False
        try:
            run = made(self._spec(number))
            job.status, job.job_started_at = "STARTING", datetime.now()
            follower = threading.Thread(target=self._follow, args=(run,), daemon=True)
            follower.start()
            try:
                run.run()
                status_reason, reason = run.why, ""
            except NotStartedError:
                reason = run.why
                status_reason = "Task failed to start" if OPTIONS.vague_start else reason
            follower.join()
        finally:
            self._age.release()
        failed = bool(run.reason) or run.exit_code != 0
        job.exit_code = run.exit_code
        job.attempts.append(self._record(run, status_reason, reason) | {"failed": failed})
        if not failed:
            job.job_stopped_reason = status_reason
            return False
        if not job.stop:
            job.job_stopped_reason = status_reason
        return moves_on(self._retry, number, run.exit_code, status_reason, reason)

    def _follow(self, run: Run) -> None:
        began = time.monotonic()
        while not run.over:
            if run.running:
                self._job.status = "RUNNING"
            if self._job.stop:
                run.stop(self._job.job_stopped_reason or "Job terminated")
            if self._limit and time.monotonic() - began > self._limit:
                run.stop(_TIMEOUT)
            time.sleep(_POLL_S)

    def _spec(self, number: int) -> Spec:
        job = self._job
        extra = {
            "AWS_BATCH_JOB_ID": job.job_id,
            "AWS_BATCH_JQ_NAME": job.job_queue.name,
            "AWS_BATCH_JOB_ATTEMPT": str(number),
        }
        if "index" in job.array_properties:
            extra["AWS_BATCH_JOB_ARRAY_INDEX"] = str(job.array_properties["index"])
        ecs = getattr(job.job_definition, "ecs_properties", None)
        task = ecs["taskProperties"][0] if ecs else _single(job)
        override = ((job.ecs_override or {}).get("taskProperties") or [{}])[0].get("containers", [])
        return Spec(
            f"{job.job_id}#{number}",
            task["containers"],
            task.get("volumes") or [],
            task.get("taskRoleArn"),
            log_stream=lambda container: self._stream(container, number),
            overrides=override if ecs else [job.container_overrides],
            extra=extra,
        )

    def _stream(self, container: dict[str, Any], number: int) -> tuple[str, str]:
        job = self._job
        options = (container.get("logConfiguration") or {}).get("options", {})
        prefix = options.get("awslogs-stream-prefix") or job.job_definition.name
        stream = f"{prefix}/{container['name']}/{job.job_id.replace(':', '-')}-{number}"
        group = options.get("awslogs-group", _DEFAULT_GROUP)
        if group == _DEFAULT_GROUP:
            job._log_backend.ensure_log_group(group)
        return group, stream

    def _record(self, run: Run, status_reason: str, reason: str) -> dict[str, Any]:
        """The attempt, as DescribeJobs shows it."""
        containers = []
        for container in run.spec.containers:
            name = container["name"]
            shown = {"name": name, "logStreamName": run.spec.log_stream(container)[1]}
            if name in run.exits:
                shown["exitCode"] = run.exits[name]
                shown |= {"reason": run.whys[name]} if name in run.whys else {}
            elif reason:
                shown["reason"] = reason
            containers.append(shown)
        first = next(shown for shown in containers if shown["name"] == run.spec.essential()[0])
        self._job.log_stream_name = first["logStreamName"]
        return {
            "statusReason": status_reason,
            "startedAt": int(self._job.job_started_at.timestamp() * 1000),
            "stoppedAt": int(time.time() * 1000),
            "container": {key: value for key, value in first.items() if key != "name"},
            "taskProperties": [{"containers": containers}],
        }


def _single(job: Any) -> dict[str, Any]:
    """containerProperties as a task of one container."""
    plain = job.job_definition.container_properties
    command = job._add_parameters_to_command(plain.get("command") or [])
    container = {**plain, "name": "default", "command": command, "essential": True}
    return {"containers": [container], "volumes": plain.get("volumes"), "taskRoleArn": plain.get("jobRoleArn")}


def described(job: Any, shown: dict[str, Any]) -> dict[str, Any]:
    """What DescribeJobs shows of a job; `shown` is what moto would."""
    ecs = getattr(job.job_definition, "ecs_properties", None)
    shown["attempts"] = [{k: v for k, v in attempt.items() if k != "failed"} for attempt in job.attempts]
    shown["retryStrategy"] = job.retry_override or job.job_definition.retry_strategy or {}
    shown["propagateTags"] = bool(job.job_definition.propagate_tags)
    shown["platformCapabilities"] = job.job_definition.platform_capabilities or []
    last = job.attempts[-1] if job.attempts else None
    if ecs:
        shown.pop("container", None)
        task = dict(ecs["taskProperties"][0])
        ended = {c["name"]: c for c in last["taskProperties"][0]["containers"]} if last else {}
        task["containers"] = [{**c, **ended.get(c["name"], {})} for c in task["containers"]]
        shown["ecsProperties"] = {"taskProperties": [task]}
    elif last:
        shown["container"] |= last["container"]
    if "index" in job.array_properties:
        shown["arrayProperties"] = {"index": job.array_properties["index"]}
    if children := job._child_jobs or []:
        job.status = shown["status"] = _of_children([child.status for child in children])
        shown.pop("ecsProperties" if not ecs else "container", None)
    if shown["status"] not in _OVER:
        shown.pop("stoppedAt", None)
    return shown


def _of_children(statuses: list[str]) -> str:
    """The parent's status: PENDING until all have ended."""
    if not all(status in _OVER for status in statuses):
        return "PENDING"
    return "FAILED" if "FAILED" in statuses else "SUCCEEDED"
