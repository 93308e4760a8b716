"""What nobody could verify without an AWS account, looked at in one: a task and a job that run no task of the operator.

The container's rows come from farmhand.cloud.verify. The rest is asked of AWS here.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from farmhand import __version__
from farmhand.aws.client import Aws
from farmhand.aws.environment import requirements
from farmhand.aws.environment.logs import POLL_S, LogReader
from farmhand.aws.environment.stacks import Stacks
from farmhand.aws.errors import explained
from farmhand.aws.places.batch_jobs import ENDED, LISTED_WITHIN_S, BatchJobs, PlannedJob, size_of
from farmhand.aws.places.bucket import BatchBucket
from farmhand.aws.places.run_task import FargateTask
from farmhand.core import shard
from farmhand.core.bucket_keys import BatchKeys
from farmhand.core.errors import FarmhandError, Refused
from farmhand.core.readable import dollars
from farmhand.core.settings import Settings
from farmhand.core.shard import VerifyOrder, VerifyReport, VerifyRow
from farmhand.core.typed import ready

#: The most that a check may cost, in US$, and the seconds after which what runs is ended.
MOST_USD = Decimal("0.05")
LIMIT_S = 600.0
#: Seconds that the task waits for its SIGTERM, and that AWS may take to kill it.
_HOLD_S, _KILL_S = 180.0, 120.0
_LOOK_S, _LISTED_LOOK_S, _LISTED_MOST_S, _LOG_MOST_S = 3.0, 0.5, 60.0, 30.0
_JOB_ATTEMPTS = 2
#: Every row of the report, and what it is about. Those of farmhand.cloud.verify come first.
ROWS = {
    "namespaces": "a task's program makes no namespace and mounts nothing",
    "seccomp filter": "it has no socket but a Unix socket, and none of the refused calls",
    "uid wall": "it is a user of its own, without rights, and reaches no other process, socket or file",
    "credentials path": "it neither knows nor reaches the task role's credentials",
    "the meter from a task": "it reaches the meter",
    "owners of empty volumes": "an empty volume takes owner and mode of the image's directory",
    "the secret": "the execution role puts the credential into the agent container",
    "who may read the secret": "the task role is refused",
    "bucket, key and table": "the task role reads its order, writes its report, asks the table",
    "the API": "it answers (one request without a key: refused, and free)",
    "the API by IPv6": "it answers over IPv6, the private network's only way",
    "no way elsewhere": "a private network reaches no other address",
    "names of the endpoints": "a private network's endpoints have private addresses",
    "the start": "seconds from RunTask to the running task, and of them the image's pull",
    "a stop's SIGTERM": "StopTask's SIGTERM reaches the agent, which ends by itself",
    "Spot's notice": "the same SIGTERM when Spot takes a task back",
    "the log": "the container's lines are in the log group",
    "ListJobs": f"a new job is listed within the {LISTED_WITHIN_S:g} s that a lost submission waits for",
    "a job is tried again": "exit code 75 starts another attempt",
    "exit codes of attempts": "`attempts` has the exit code of each container",
}
#: What no program can bring about.
_UNPROVOKED = {"Spot's notice": "AWS has no call that brings it about; StopTask's SIGTERM is the same one"}


@dataclass(kw_only=True)
class VerifyTask(FargateTask):
    """A task that runs a verify order, and is stopped when its report is there."""

    order: VerifyOrder

    @property
    def _order_key(self) -> str:
        return self._keys.verify

    def _put_order(self) -> None:
        self._bucket.put(self._keys.verify, msgspec.json.encode(self.order))

    def _result(self) -> dict[str, Any] | None:
        return {"ended": self._ended} if self._ended and self.reported else None

    @property
    def reported(self) -> bool:
        """Whether its report is in the bucket."""
        return self._bucket.get(self._keys.output("verify.json")) is not None


def _row(name: str, good: bool, seen: str) -> VerifyRow:
    return VerifyRow(name=name, verdict="passed" if good else "failed", seen=seen[:2000])


def _unknown(name: str, seen: str) -> VerifyRow:
    return VerifyRow(name=name, verdict="not known", seen=seen[:2000])


@dataclass(kw_only=True)
class LiveCheck:
    """One check of an environment. Making it looks at the environment and makes nothing. Raise FarmhandError.

    `say` gets a line about each step.
    """

    conf: Settings
    aws: Aws
    say: Callable[[str], None]
    sleep: Callable[[float], None] = time.sleep
    id: str = field(default_factory=lambda: f"verify-{secrets.token_hex(4)}")

    def __post_init__(self) -> None:
        self._outputs = requirements.require(self.aws, subscription=None)
        self.image = self._outputs.get("ImageUri", "")
        self._prices = requirements.price_tables(self.aws, self.conf, self._outputs)
        self._bucket = BatchBucket(self.aws)
        self._job = PlannedJob(f"farmhand-{self.id}", 0, 1)
        self._queue = self.aws.names.queue(spot=False)
        self._jobs = BatchJobs(self.aws, self.id, self.sleep)
        self._task = VerifyTask(
            conf=self.conf,
            task={"id": self.id},
            size="cli",
            say=self.say,
            aws=self.aws,
            sleep=self._pause,
            looked=self._looked,
            order=self._order(),
        )
        self._until = float("inf")
        self._job_id = ""
        self._job_begun = self._task_runs = self._told_to_stop = False

    def _order(self) -> VerifyOrder:
        network = Stacks(self.aws).require(self.aws.names.network)
        return VerifyOrder(
            environment=self.aws.names.environment,
            farmhand=__version__,
            network=network.outputs.get("NetworkMode", "private"),
            ipv4=network.parameters.get("Ipv4") == "true",
            secret=self.aws.names.secret("key"),
            hold_s=_HOLD_S,
        )

    def most_usd(self) -> Decimal:
        """Return what it costs at most: both ended only after LIMIT_S. Raise Refused if that is above MOST_USD."""
        seconds, cloud = Decimal(str(LIMIT_S + _KILL_S)), self._prices.cloud
        found = Decimal(0)
        for size, times in (("cli", 1), ("api", _JOB_ATTEMPTS)):
            vcpu, memory = size_of(self.aws, self.aws.names.definition(size))
            found += times * cloud.task_usd(Decimal(vcpu) / 1000, memory, seconds)
        if found > MOST_USD:
            what = f"at these prices the check may cost {dollars(found)}, and its own limit is {dollars(MOST_USD)}"
            raise Refused(what, hint="see aws_prices_file")
        return found

    def run(self) -> list[VerifyRow]:
        """Run both, and return a row for each of ROWS. What runs is ended in any case. Raise FarmhandError."""
        self._until = time.monotonic() + LIMIT_S
        rows = self._submitted()
        rows += self._ran()
        rows += self._job_rows()
        found = {row.name: row for row in rows}
        return [found.get(name) or _unknown(name, _UNPROVOKED.get(name, "the containers did not say")) for name in ROWS]

    def stop(self) -> None:
        """End what still runs of it. Raise FarmhandError."""
        if self._task_runs:
            self._task.stop()
        if not self._job_begun:
            return
        if job := self._job_id or self._jobs.find(self._queue, self._job.name, patiently=True):
            self._jobs.terminate(job, "farmhand cloud verify has ended")

    def _pause(self, seconds: float) -> None:
        if time.monotonic() > self._until:
            raise FarmhandError(f"the containers have not ended within {LIMIT_S:g} s", code="not_in_time")
        self.sleep(seconds)

    # The job.

    def _submitted(self) -> list[VerifyRow]:
        """Submit the job and see how soon it is listed."""
        keys = BatchKeys.of(self.aws.names.environment, f"{self.id}-job")
        asked = msgspec.structs.replace(self._task.order, again=True, hold_s=0.0)
        self._bucket.put(keys.verify, msgspec.json.encode(asked))
        environ = requirements.containers_environment(self.aws, self.conf) | {shard.ORDER: keys.verify}
        self._job_begun = True
        self._job_id = self._jobs.submit(self._job, self._queue, self.aws.names.definition("api"), environ)
        self.say(f"job {self._job_id} in {self._queue}")
        began = time.monotonic()
        while not self._jobs.find(self._queue, self._job.name):
            if time.monotonic() - began > _LISTED_MOST_S:
                return [_row("ListJobs", False, f"not listed within {_LISTED_MOST_S:g} s")]
            self._pause(_LISTED_LOOK_S)
        took = time.monotonic() - began
        return [_row("ListJobs", took <= LISTED_WITHIN_S, f"listed after {took:.1f} s")]

    def _job_rows(self) -> list[VerifyRow]:
        names = ("a job is tried again", "exit codes of attempts")
        self.say("waiting for the job's two attempts")
        try:
            while (job := self._described()).get("status") not in ENDED:
                self._pause(_LOOK_S)
        except FarmhandError as error:
            return [_row(name, False, str(error)) for name in names]
        self._job_begun = False
        codes = [_codes(attempt) for attempt in job.get("attempts") or []]
        said = (
            f"{job.get('status')}: {'; '.join(f'attempt {n}: {one}' for n, one in enumerate(codes, 1)) or 'no attempt'}"
        )
        agents = [one.get("agent") for one in codes]
        return [
            _row(names[0], len(codes) == _JOB_ATTEMPTS and job.get("status") == "SUCCEEDED", said),
            _row(names[1], agents == [shard.EXIT_LEFT, shard.EXIT_DONE], said),
        ]

    def _described(self) -> dict[str, Any]:
        with explained("asking AWS Batch how far the job is"):
            found = self.aws.client("batch").describe_jobs(jobs=[self._job_id])["jobs"]
        return dict(found[0]) if found else {}

    # The task.

    def _looked(self, _arn: str) -> None:
        if not self._told_to_stop and self._task.reported:
            self.say("its report is there; StopTask")
            self._told_to_stop = True
            self._task.stop()

    def _ran(self) -> list[VerifyRow]:
        """Run the task to its end; see what it wrote, and how it started and stopped."""
        self._task_runs = True
        try:
            ended = self._task.run()["ended"]
        except FarmhandError as error:
            if error.code in {"not_configured", "refused"}:
                raise
            return [_row("the start", False, str(error))]
        self._task_runs = False
        keys = BatchKeys.of(self.aws.names.environment, self.id)
        try:
            report = msgspec.json.decode(self._bucket.get(keys.output("verify.json")) or b"", type=ready(VerifyReport))
        except ValueError as error:
            raise FarmhandError(f"the report of {self.id} is damaged: {error}", code="bad_answer") from None
        rows = [row for row in report.rows if row.name in ROWS]
        return [*rows, _start(ended), self._stop_row(ended, keys), self._log_row(ended)]

    def _stop_row(self, ended: dict[str, Any], keys: BatchKeys) -> VerifyRow:
        told = self._bucket.get(keys.output("stopped.json")) is not None
        code = _codes({"taskProperties": [{"containers": ended.get("containers") or []}]}).get("agent")
        heard = "the agent noted SIGTERM" if told else "the agent noted no SIGTERM"
        return _row("a stop's SIGTERM", told and code == shard.EXIT_DONE, f"{heard}, and ended with {code}")

    def _log_row(self, ended: dict[str, Any]) -> VerifyRow:
        number = str(ended.get("taskArn", "")).rpartition("/")[2]
        reader, began = LogReader(self.aws), time.monotonic()
        reader.add([f"{self._task.size}/agent/{number}"])
        while not (lines := [line for line in reader.new() if "verify:" in line.text]):
            if time.monotonic() - began > _LOG_MOST_S:
                return _row("the log", False, f"no line of it within {_LOG_MOST_S:g} s of its end")
            self.sleep(POLL_S)
        return _row("the log", True, f"{len(lines)} lines of its agent {time.monotonic() - began:.0f} s after its end")


def _codes(attempt: dict[str, Any]) -> dict[str, int]:
    """Return container → exit code, of those that have one."""
    containers = [one for task in attempt.get("taskProperties") or [] for one in task.get("containers") or []]
    return {str(one.get("name")): int(one["exitCode"]) for one in containers if one.get("exitCode") is not None}


def _start(ended: dict[str, Any]) -> VerifyRow:
    def between(first: str, second: str) -> float | None:
        one, two = ended.get(first), ended.get(second)
        return (two - one).total_seconds() if isinstance(one, datetime) and isinstance(two, datetime) else None

    whole, pull = between("createdAt", "startedAt"), between("pullStartedAt", "pullStoppedAt")
    if whole is None:
        return _unknown("the start", "AWS does not say when it was made and started")
    pulled = "AWS does not say how long the pull took" if pull is None else f"the pull {pull:.0f} s"
    return _row("the start", True, f"{whole:.0f} s; {pulled}")
