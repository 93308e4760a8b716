"""The place `fargate`: one task in one task of ECS, from its order in the bucket to its result.

RunTask has a token that makes it idempotent, and the order has the task's own id. So a command that is given again
with the same id finds the result, or the task that still runs, and starts nothing twice.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from farmhand import __version__
from farmhand.aws.client import Aws
from farmhand.aws.environment import requirements, task_credential, used
from farmhand.aws.environment.stretches import ContainerRun, gather
from farmhand.aws.errors import code_of, explained
from farmhand.aws.names import TAG_ENVIRONMENT, TAG_TASK
from farmhand.aws.places.bucket import BatchBucket
from farmhand.aws.places.plan_lock import PlanLock
from farmhand.aws.places.task_rows import TaskRowReader
from farmhand.aws.places.task_tries import EndedTry, TaskTry, out_of_memory, placed, run_of
from farmhand.core import shard, task_access
from farmhand.core.bucket_keys import BatchKeys
from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured, UsageError
from farmhand.core.money import plain
from farmhand.core.settings import Settings
from farmhand.core.shard import AgentOptions, PlaceInfo, SingleOrder, SingleResult
from farmhand.core.task import DEFAULT_TIMEOUT_S, TASK_OUTPUTS
from farmhand.core.task_access import CloneOrder
from farmhand.core.trace_context import untraced
from farmhand.core.typed import ready
from farmhand.places.base import TaskRows

NAME = "fargate"
#: How often a task is started that does not come to run, and the seconds before each.
_PAUSES_S = (0.0, 5.0, 20.0)
#: Seconds between two looks, and in which a task that was just started may not be known yet.
_LOOK_S, _UNKNOWN_S = 2.0, 60.0
#: Source: the ECS developer guide, "Stopped tasks error codes", and "Task lifecycle".
_NOT_STARTED = ("CannotPull", "ResourceInitializationError", "Timeout waiting for network interface", "Capacity is")
_STATES = {
    "PROVISIONING": "AWS makes room for it",
    "PENDING": "the image is pulled",
    "ACTIVATING": "it is about to run",
    "RUNNING": "it runs",
    "DEACTIVATING": "it ends",
    "STOPPING": "it ends",
    "DEPROVISIONING": "it has ended",
}


@dataclass(kw_only=True)
class FargateTask:
    """One task, and what is known of it. Making it checks that the environment is there, and makes nothing.

    `size` is that of its containers: api, cli or code. `bundle` is a repository task's, or `clone` if the task fetches
    it itself. `say` gets a line when the state changes, `looked` the ARN at each look, also the last. `live`: the
    containers write the task's text into their log. `subscription`: it may run on the operator's plan, and on nothing
    else. `source` is one of credential_source, "" for the environment's own. Raise NotConfigured, Refused.
    """

    conf: Settings
    task: dict[str, Any]
    size: str
    say: Callable[[str], None]
    spot: bool = False
    subscription: bool = False
    bundle: Path | None = None
    clone: CloneOrder | None = None
    source: str = ""
    live: bool = False
    looked: Callable[[str], None] = lambda _arn: None
    aws: Aws = field(default_factory=lambda: Aws(Settings()))
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        self._ended: dict[str, Any] = {}
        self._outputs = requirements.require(self.aws, subscription=self.subscription, source=self.source)
        if self.clone is not None:
            requirements.require_clone(self.aws, self._outputs)
        self._limit_s = float(self.task.get("timeout_s") or DEFAULT_TIMEOUT_S)
        if line := task_credential.end_note(self.aws, self._outputs[requirements.KIND], self._limit_s):
            self.say(line)
        self._prices = requirements.price_tables(self.aws, self.conf, self._outputs)
        self._bucket = BatchBucket(self.aws)
        self._keys = BatchKeys.of(self.aws.names.environment, str(self.task["id"]))
        self._definition = self.aws.names.definition(self.size)
        with explained(f"looking at the task definition {self._definition}"):
            try:
                found = self.aws.client("ecs").describe_task_definition(taskDefinition=self._definition)
            except Exception as error:
                if code_of(error) != "ClientException":
                    raise
                what = f"the task definition {self._definition} is not there"
                raise NotConfigured(what, hint="farmhand cloud up makes it") from None
        size = found["taskDefinition"]
        self._info = PlaceInfo(
            name=NAME,
            vcpu_milli=int(size["cpu"]) * 1000 // 1024,
            memory_mb=int(size["memory"]),
            spot=self.spot,
            public=self._prices.public,
        )
        self._try: TaskTry | None = None
        self._stopped_by_us = False
        #: Whether something of it may be on AWS, and whether its result was there before this command.
        self.begun = self.had_ended = False

    def run(self) -> dict[str, Any]:
        """Run the task to its end and return its result, with `place`.

        Raise UsageError `id_conflict`, FarmUnreachable if it does not start, FarmhandError without a result, Refused.
        """
        with PlanLock(self.aws).held(self._id, self._limit_s) if self.subscription else nullcontext():
            return self._run()

    def _run(self) -> dict[str, Any]:
        used.mark(self.aws, self.conf)
        self.begun = True
        self._put_order()
        if (found := self._result()) is not None:
            self.had_ended = True
            return found
        self._try = self._read_try()
        if self._try is not None and self._try.arn:
            ended = self._wait(self._try.arn)
            if (found := self._result()) is not None:
                return found
        why = ""
        for pause in _PAUSES_S:
            if pause:
                self.say(f"AWS has not run it ({why}): trying again in {pause:g} s")
                self.sleep(pause)
            arn, why = self._start()
            if not arn:
                continue
            ended = self._wait(arn)
            if (found := self._result()) is not None:
                return found
            why, again = _why(ended)
            if not again or self._stopped_by_us:
                kind = shard.container_error(_exit_code(ended))
                raise kind(f"the task left no result: {why}", hint=f"see: farmhand cloud logs {self._id}")
        hint = "try again without --spot" if self.spot else "try again later"
        raise FarmUnreachable(f"Fargate does not run the task: {why}", hint=hint)

    def fetch(self, into: Path) -> None:
        """Write the files that the task left into the directory `into`; one that it did not leave is empty."""
        files = self._read_result().files
        for name, most in TASK_OUTPUTS.items():
            if name in files:
                self._bucket.download(files[name].key, into / name, most, files[name].sha256)
            else:
                (into / name).write_bytes(b"")

    def rows(self) -> TaskRows:
        """Return the rows that its container's ledger has of it. Raise FarmhandError."""
        return TaskRowReader(self._bucket, self._keys).of([self._id], 0, 0).get(self._id, TaskRows())

    def stop(self) -> None:
        """End the task wherever it is. Raise FarmhandError."""
        self._stopped_by_us = True
        with explained("ending the task"):
            arns = [self._try.arn] if self._try is not None and self._try.arn else []
            for arn in arns or self._running():
                about = {"cluster": self.aws.names.base, "task": arn}
                self.aws.client("ecs").stop_task(**about, reason="stopped at the workstation")

    @property
    def _id(self) -> str:
        return str(self.task["id"])

    @property
    def _started_by(self) -> str:
        return "farmhand-" + hashlib.sha256(self._keys.base.encode()).hexdigest()[:27]

    @property
    def _order_key(self) -> str:
        return self._keys.single

    def _put_order(self) -> None:
        """Put the order into the bucket, or see that it is there. Raise UsageError for one of another task."""
        known = self._bucket.get(self._keys.single)
        if known is not None:
            order = msgspec.json.decode(known, type=ready(SingleOrder))
            if untraced(order.task) != untraced(self.task):
                raise UsageError(f"the id {self._id!r} is another task's", code="id_conflict")
            self._info = order.place
            return
        size, digest = 0, ""
        if self.bundle is not None:
            size = self.bundle.stat().st_size
            self.say(f"uploading {size / 1e6:.1f} MB")
            digest = self._bucket.upload(self._keys.bundle, self.bundle)
        order = SingleOrder(
            environment=self.aws.names.environment,
            task=self.task,
            farmhand=__version__,
            bundle_bytes=size,
            bundle_sha256=digest,
            clone=self.clone,
            agent=AgentOptions(prices=self._prices.own),
            place=self._info,
            live=self.live,
        )
        self._bucket.put(self._keys.single, msgspec.json.encode(order))

    def _read_try(self) -> TaskTry | None:
        text = self._bucket.get(f"{self._keys.base}in/run.json")
        return None if text is None else msgspec.json.decode(text, type=ready(TaskTry))

    def _keep_try(self, one: TaskTry) -> None:
        self._bucket.put(f"{self._keys.base}in/run.json", msgspec.json.encode(one))
        self._try = one

    def _start(self) -> tuple[str, str]:
        """Start the task and return (its ARN, ""), or ("", why AWS does not)."""
        before = self._try
        if before is None or before.arn:
            number = 1 if before is None else before.number + 1
            token = hashlib.sha256(f"{self._keys.base}{number}".encode()).hexdigest()[:32]
            before = TaskTry(number=number, token=token)
            self._keep_try(before)
        with explained("starting the task"):
            answer = self.aws.client("ecs").run_task(**self._request(before))
        if answer.get("failures") or not answer.get("tasks"):
            # Seen by others (apache/airflow#16150): a failure is told, and the task runs all the same.
            known = self._running()
            if not known:
                reasons = [str(one.get("reason") or one) for one in answer.get("failures") or []]
                self._note_end(before.number, {})
                # The same token would get the same answer.
                self._try = TaskTry(number=before.number, token=before.token, arn="none")
                return "", "; ".join(reasons) or "AWS gives no reason"
        else:
            known = [str(answer["tasks"][0]["taskArn"])]
        arn = known[0]
        self._keep_try(TaskTry(number=before.number, token=before.token, arn=arn))
        self.say(f"task {arn.rpartition('/')[2]} in {self.aws.names.base} ({self.aws.region})")
        return arn, ""

    def _running(self) -> list[str]:
        """Return the ARNs of tasks of this order that run, whether or not their start was answered."""
        with explained("looking for the task"):
            cluster = self.aws.names.base
            return list(self.aws.client("ecs").list_tasks(cluster=cluster, startedBy=self._started_by)["taskArns"])

    def _request(self, one: TaskTry) -> dict[str, Any]:
        values = requirements.containers_environment(self.aws, self.conf)
        values |= {shard.ORDER: self._order_key, shard.ATTEMPT: str(one.number)}
        if source := self._outputs.get(task_access.SOURCE):
            values |= {task_access.SOURCE: source, task_access.PLAN: str(self.subscription).lower()}
        container = {"name": "agent", "environment": [{"name": k, "value": v} for k, v in values.items()]}
        tags = {TAG_ENVIRONMENT: self.aws.names.environment, TAG_TASK: self._id}
        return {
            "cluster": self.aws.names.base,
            "taskDefinition": self._definition,
            "count": 1,
            "clientToken": one.token,
            "startedBy": self._started_by,
            # Never with launchType, which would mean that there is no capacity provider, and so no Spot.
            "capacityProviderStrategy": [
                {"capacityProvider": "FARGATE_SPOT" if self.spot else "FARGATE", "weight": 1, "base": 0}
            ],
            "networkConfiguration": {
                "awsvpcConfiguration": {
                    "subnets": self._outputs["Subnets"].split(","),
                    "securityGroups": [self._outputs["SecurityGroup"]],
                    "assignPublicIp": self._outputs.get("AssignPublicIp") or "DISABLED",
                }
            },
            "overrides": {"containerOverrides": [container]},
            "enableExecuteCommand": False,
            "enableECSManagedTags": True,
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }

    def _wait(self, arn: str) -> dict[str, Any]:
        """Wait until the task has stopped, note what it came to, and return its description; {} if it is forgotten."""
        self._ended = ended = self._await_end(arn)
        if why := out_of_memory(ended.get("containers") or []):
            self.say(why)
        if ended:
            self._note_end(self._try.number if self._try is not None else 1, ended)
        return ended

    def _note_end(self, number: int, task: dict[str, Any]) -> None:
        """Write down what a try came to: nothing, if it is not known to have begun."""
        place = placed(self._info, task)
        stretches = gather(run_of(task), place, self._prices.cloud)
        kept = EndedTry(arn=str(task.get("taskArn", "")), spot=place.spot, stretches=stretches)
        self._bucket.put(self._keys.tried(number), msgspec.json.encode(kept))

    def _await_end(self, arn: str) -> dict[str, Any]:
        began, shown = time.monotonic(), ""
        while True:
            found = self._describe(arn)
            status = str(found.get("lastStatus") or "") if found else ""
            over = status == "STOPPED" or (not found and time.monotonic() - began > _UNKNOWN_S)
            self.looked(arn)
            if over:
                return found or {}
            if status != shown:
                shown = status
                self.say(_STATES.get(status, status.lower() or "it is not listed yet"))
            self.sleep(_LOOK_S)

    def _describe(self, arn: str) -> dict[str, Any] | None:
        """Return the task as AWS describes it, None if it does not know it. A busy service is asked again."""
        with explained("asking how far the task is"):
            found = self.aws.client("ecs").describe_tasks(cluster=self.aws.names.base, tasks=[arn])["tasks"]
        return found[0] if found else None

    def _read_result(self) -> SingleResult:
        text = self._bucket.get(self._keys.output("result.json"))
        try:
            return msgspec.json.decode(text or b"", type=ready(SingleResult))
        except ValueError as error:
            raise FarmhandError(f"the result of {self._id} is damaged: {error}", code="bad_answer") from None

    def _tries(self) -> dict[int, EndedTry]:
        """Return what is written down of ended tries, by number. Raise FarmhandError `bad_answer`."""
        found = {}
        for key in self._bucket.keys(f"{self._keys.base}in/runs/"):
            if (number := self._keys.try_of(key)) is None:
                continue
            try:
                found[number] = msgspec.json.decode(self._bucket.get(key) or b"", type=ready(EndedTry))
            except ValueError as error:
                raise FarmhandError(f"{key} in the bucket is damaged: {error}", code="bad_answer") from None
        return found

    def _result(self) -> dict[str, Any] | None:
        """Return the result with `place`, None if there is none. Its `usd` is that of all tries."""
        if self._bucket.get(self._keys.output("result.json")) is None:
            return None
        found, tries = self._read_result(), self._tries()
        last = self._try or self._read_try() or TaskTry(number=1, token="")
        size, pico = found.place, sum(stretch.pico for one in tries.values() for stretch in one.stretches)
        own = ContainerRun(found.started_at, max(found.started_at, found.stopped_at))
        stretches = tries[last.number].stretches if last.number in tries else []
        if not stretches:
            # AWS has forgotten the task. The container's own clock knows all but the pull.
            stretches = gather([own], size, self._prices.cloud)
            pico += sum(stretch.pico for stretch in stretches)
        place = {
            "name": NAME,
            "id": last.arn.rpartition("/")[2],
            "started": round(stretches[0].began_at, 3),
            "stopped": round(stretches[-1].ended_at, 3),
            "vcpu": size.vcpu_milli / 1000,
            "memory_mb": size.memory_mb,
            "spot": tries[last.number].spot if last.number in tries else size.spot,
            "usd": plain(pico),
        }
        return {**found.result, "place": place}


def _exit_code(ended: dict[str, Any]) -> int | None:
    agents = [one for one in ended.get("containers") or [] if one.get("name") == "agent"]
    return agents[0].get("exitCode") if agents else None


def _why(ended: dict[str, Any]) -> tuple[str, bool]:
    """Return why a task has stopped without a result, and whether another try may do better."""
    reasons = [str(ended.get("stoppedReason") or "")]
    containers = ended.get("containers") or []
    reasons += [str(one.get("reason") or "") for one in containers]
    code = _exit_code(ended)
    said = out_of_memory(containers) or next((" ".join(one.split()) for one in reasons if one), "AWS gives no reason")
    not_started = ended.get("stopCode") == "TaskFailedToStart" or any(r.startswith(_NOT_STARTED) for r in reasons)
    taken_back = ended.get("stopCode") == "SpotInterruption" or "Spot" in said
    if not_started or taken_back or code == shard.EXIT_LEFT or not ended:
        return said, True
    return f"{said} (exit status {code})" if code is not None else said, False
