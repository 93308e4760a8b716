"""An environment of Farmhand in moto, and AWS Batch in this process: its children play the containers' part.

S3, DynamoDB, CloudFormation and Secrets Manager are moto's. Batch is `FakeBatch`, with what moto lacks: arrays whose
children run, attempts, and retries by exit code.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import boto3
import msgspec
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from farmhand.aws.client import Aws
from farmhand.core import shard
from farmhand.core.bucket_keys import BatchKeys, PartName, read_order
from farmhand.core.settings import Settings
from farmhand.core.shard import LedgerPart, ShardManifest
from farmhand.core.typed import ready
from tests.support import aws_models

aws_models.read_once()
REGION = "us-east-1"
CONF = Settings(aws_environment="test", aws_region=REGION, place="aws-batch")
COST = 0.00001
#: The agent's exit code, AWS's reason.
Ended = tuple[int | None, str]


def denied(code: str, operation: str = "Call", message: str = "no") -> ClientError:
    """An answer of AWS that is an error."""
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def unreachable() -> EndpointConnectionError:
    """No answer of AWS."""
    return EndpointConnectionError(endpoint_url="https://aws.test")


class Child:
    """What the containers do. `ran` are the ids of tasks that ran, in order; `works` False holds all of them.

    `ends` says how an attempt ends, by (index, attempt): None for an orderly end, or (exit code, reason, results).
    """

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.works = True
        self.ends: Callable[[int, int], tuple[int | None, str, int] | None] = lambda _index, _attempt: None
        self.outcome: Callable[[dict[str, Any]], dict[str, Any]] = lambda _task: {"state": "succeeded"}
        #: Charged beside the results, in pico-dollars, for each attempt.
        self.beyond = 0
        self.environments: list[dict[str, str]] = []

    def run(
        self, environ: dict[str, str], index: int, attempt: int, stopped: threading.Event
    ) -> tuple[int | None, str]:
        """One attempt: the agent's exit code and AWS's reason."""
        self.environments.append(environ)
        s3 = boto3.client("s3", region_name=REGION)
        bucket = environ[shard.BUCKET]
        keys, generation = read_order(environ[shard.ORDER])
        assert generation is not None
        number = index + int(environ[shard.SHARD])

        def read(key: str) -> bytes:
            return bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())

        manifest = msgspec.json.decode(read(keys.manifest(generation)), type=ready(ShardManifest))
        assert number < manifest.shards
        listed = s3.list_objects_v2(Bucket=bucket, Prefix=keys.results(generation, number)).get("Contents", [])
        done = {json.loads(line)["id"] for one in listed for line in read(one["Key"]).splitlines()}
        tasks = [json.loads(line) for line in read(keys.tasks(generation, number)).splitlines()]
        while not self.works:
            if stopped.is_set():
                return None, "Job terminated"
            if self._state(environ, keys) != "running":
                return shard.EXIT_STOPPED, ""
            time.sleep(0.02)
        end = self.ends(index, attempt)
        todo = [task for task in tasks if task["id"] not in done]
        results = []
        for task in todo if end is None else todo[: end[2]]:
            if shard.PROMPT_KEY in task:
                task["prompt"] = read(task[shard.PROMPT_KEY]).decode()
            self.ran.append(task["id"])
            usage = {"requests": 1, "input_tokens": len(task["prompt"])}
            results.append({"id": task["id"], "text": "ok", "cost_usd": COST, "usage": usage, **self.outcome(task)})
        name = PartName(generation, number, attempt, 0).path
        shared = {"model": "claude-haiku-5-5", "engine": "api", "batch": keys.base.split("/")[-2]}
        costs = [(one["id"], one["cost_usd"]) for one in results] + [("", self.beyond / 10**12)]
        now = {"created_at": time.time(), "started_at": time.time(), "finished_at": time.time()}
        charges = [
            {**shared, **now, "charge_id": n, "task": name, "cost_usd": cost} for n, (name, cost) in enumerate(costs, 1)
        ]
        finished = [
            {**shared, **now, "finish_seq": n, "id": one["id"], "state": one["state"], "cost_usd": one["cost_usd"]}
            for n, one in enumerate(results, 1)
        ]
        head = LedgerPart(ledger=f"{keys.base}{name}", charges=len(charges), finished=len(finished))
        ledger = [msgspec.to_builtins(head), *charges, *finished]
        for prefix, lines in ((keys.results(), results), (keys.ledgers(), ledger)):
            body = "".join(json.dumps(line) + "\n" for line in lines).encode()
            if lines:
                s3.put_object(Bucket=bucket, Key=f"{prefix}{name}", Body=body, IfNoneMatch="*")
        return (shard.EXIT_DONE, "") if end is None else (end[0], end[1])

    def _state(self, environ: dict[str, str], keys: BatchKeys) -> str:
        batch = keys.base.split("/")[-2]
        db = boto3.client("dynamodb", region_name=REGION)
        found = db.get_item(TableName=environ[shard.TABLE], Key={shard.PK: {"S": shard.batch_pk(batch)}})["Item"]
        return str(found["state"]["S"])


class Job:
    """A job of FakeBatch; `children` by index."""

    def __init__(self, request: dict[str, Any], number: int) -> None:
        self.request, self.id = request, f"job-{number}"
        self.size = request.get("arrayProperties", {}).get("size", 1)
        self.status = dict.fromkeys(range(self.size), "RUNNABLE")
        self.attempts: dict[int, list[dict[str, Any]]] = {index: [] for index in range(self.size)}
        self.stopped = threading.Event()


class FakeBatch:
    """A boto3 client of Batch. `faults` are exceptions for the next calls by method; `after` come when it was done."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.jobs: dict[str, Job] = {}
        self.calls: Counter[str] = Counter()
        self.faults: dict[str, list[Exception]] = {}
        self.after: dict[str, list[Exception]] = {}
        self.runs = True
        #: So many descriptions do not know any job yet; and why a job does not begin, as its children say it.
        self.hidden = 0
        self.stuck = ""
        #: Containers at the same time.
        self._room = threading.Semaphore(4)
        self._numbers = itertools.count(1)

    def submit_job(self, **request: Any) -> dict[str, Any]:
        self._called("submit_job")
        size = request.get("arrayProperties", {}).get("size")
        if size is not None and not 2 <= size <= 10_000:
            raise denied("ClientException", "SubmitJob", f"Array size must be from 2 to 10000, not {size}")
        job = Job(request, next(self._numbers))
        self.jobs[job.id] = job
        if self.runs:
            for index in range(job.size):
                threading.Thread(target=self._run, args=(job, index), daemon=True).start()
        if failures := self.after.get("submit_job"):
            raise failures.pop(0)
        return {"jobId": job.id, "jobName": request["jobName"]}

    def describe_jobs(self, jobs: list[str]) -> dict[str, Any]:
        self._called("describe_jobs")
        assert len(jobs) <= 100
        if self.hidden:
            self.hidden -= 1
            return {"jobs": []}
        return {"jobs": [shown for one in jobs if (shown := self._shown(one)) is not None]}

    def terminate_job(self, jobId: str, reason: str) -> None:  # noqa: N803
        self._called("terminate_job")
        self.jobs[jobId].stopped.set()
        if not self.runs:
            self.jobs[jobId].status = dict.fromkeys(self.jobs[jobId].status, "FAILED")

    def describe_job_definitions(self, **_: Any) -> dict[str, Any]:
        self._called("describe_job_definitions")
        needs = [{"type": "VCPU", "value": "0.25"}, {"type": "MEMORY", "value": "512"}]
        containers = [{"name": name, "resourceRequirements": needs} for name in ("agent", "worker")]
        ecs = {"taskProperties": [{"containers": containers}]}
        return {"jobDefinitions": [{"revision": 1, "ecsProperties": ecs}]}

    def get_paginator(self, name: str) -> FakeBatch:
        assert name == "list_jobs"
        return self

    def paginate(self, *, jobQueue: str, filters: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:  # noqa: N803
        self._called("list_jobs")
        wanted = [value.lower() for value in filters[0]["values"]]
        rows = [{"jobName": job.request["jobName"], "jobId": job.id} for job in self.jobs.values()]
        yield {"jobSummaryList": [row for row in rows if row["jobName"].lower() in wanted]}

    def ended(self) -> bool:
        """Whether no child runs."""
        return all(state in ("SUCCEEDED", "FAILED") for job in self.jobs.values() for state in job.status.values())

    def _called(self, method: str) -> None:
        self.calls[method] += 1
        if failures := self.faults.get(method):
            raise failures.pop(0)

    def _run(self, job: Job, index: int) -> None:
        [container] = job.request["ecsPropertiesOverride"]["taskProperties"][0]["containers"]
        assert container["name"] == "agent"
        environ = {one["name"]: one["value"] for one in container["environment"]}
        for attempt in range(1, 6):
            with self._room:
                job.status[index] = "RUNNING"
                began = time.time()
                code, reason = self._attempt(job, environ, index, attempt)
            row = {
                "startedAt": int(began * 1000) - 90_000,
                "stoppedAt": int(time.time() * 1000),
                "statusReason": reason,
            }
            row["taskProperties"] = [{"containers": [{"name": "agent", "exitCode": code}, {"name": "worker"}]}]
            job.attempts[index].append(row)
            again = code == shard.EXIT_LEFT or reason.startswith(("Your Spot Task was interrupted", "CannotPull"))
            if not again:
                break
        job.status[index] = "SUCCEEDED" if code == 0 else "FAILED"

    def _attempt(self, job: Job, environ: dict[str, str], index: int, attempt: int) -> Ended:
        try:
            return self.child.run(environ, index, attempt, job.stopped)
        except Exception as error:
            print("child", index, error)
            return shard.EXIT_BUG, str(error)

    def _shown(self, job_id: str) -> dict[str, Any] | None:
        name, _, index = job_id.partition(":")
        job = self.jobs.get(name)
        if job is None:
            return None
        if index or job.size == 1:
            number = int(index or 0)
            shown = {"jobId": job_id, "status": job.status[number], "attempts": job.attempts[number]}
            return shown | ({"statusReason": self.stuck} if self.stuck else {})
        states = Counter(job.status.values())
        over = states["SUCCEEDED"] + states["FAILED"] == job.size
        status = "PENDING" if not over else "FAILED" if states["FAILED"] else "SUCCEEDED"
        return {"jobId": job_id, "status": status, "arrayProperties": {"size": job.size, "statusSummary": dict(states)}}


class Flaky:
    """A client whose calls fail now and then: half of them before they are carried out, half after."""

    def __init__(self, client: Any, chance: random.Random, share: float) -> None:
        self._client, self._chance, self._share = client, chance, share

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name in ("get_paginator", "meta", "exceptions"):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            drawn = self._chance.random()
            if drawn < self._share / 2:
                raise unreachable()
            answer = method(*args, **kwargs)
            if drawn < self._share:
                raise denied("ServiceUnavailable")
            return answer

        return call


class FakeAws(Aws):
    """AWS with `batch` for Batch. `broken` makes every call on any client fail, `flaky` this share of all."""

    def __init__(self, batch: Any, conf: Settings = CONF) -> None:
        super().__init__(conf)
        self.batch = batch
        self.broken: Exception | None = None
        #: What was called: service and operation.
        self.calls: set[tuple[str, str]] = set()
        self.flaky = 0.0
        self.chance = random.Random(5)  # noqa: S311 - moments, no secrets

    def client(self, service: str, *, once: bool = False) -> Any:
        """See Aws."""
        if self.broken is not None:
            raise self.broken
        if service == "batch":
            found: Any = Noted(self.batch, self.calls)
        else:
            found = super().client(service, once=once)
            found.meta.events.register("before-call", self._note, unique_id="calls")
        return Flaky(found, self.chance, self.flaky) if self.flaky else found

    def _note(self, model: Any, **_about: Any) -> None:
        self.calls.add((model.service_model.signing_name, model.name))


class Noted:
    """A client of Batch of which `calls` has what was called."""

    def __init__(self, client: Any, calls: set[tuple[str, str]]) -> None:
        self._client, self._calls = client, calls

    def __getattr__(self, name: str) -> Any:
        self._note(name)
        return getattr(self._client, name)

    def get_paginator(self, name: str) -> Any:
        """See boto3."""
        self._note(name)
        return self._client.get_paginator(name)

    def _note(self, name: str) -> None:
        self._calls.add(("batch", "".join(word.title() for word in name.split("_"))))


@contextmanager
def environment(
    *,
    image: bool = True,
    secret: bool = True,
    network: bool = True,
    mode: str = "private",
    more: dict[str, str] | None = None,
    **parameters: Any,
) -> Iterator[None]:
    """An environment `test` in moto, with what a place asks for, and a state directory of its own.

    `more` are outputs of the base stack, `parameters` those of both stacks.
    """
    with mock_aws(), TemporaryDirectory() as state, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", state)
        names = Aws(CONF).names
        session = boto3.Session(region_name=REGION)
        known = {name: {"Type": "String", "Default": value} for name, value in parameters.items()}
        stack = {"Parameters": known, "Resources": {"Topic": {"Type": "AWS::SNS::Topic", "Properties": {}}}}
        outputs = {"JobDefinitionApi": "x"} if image else {"LogGroupName": "x"}
        made = {names.base: outputs | (more or {})}
        if network:
            made[names.network] = {
                "Subnets": "subnet-1,subnet-2",
                "SecurityGroup": "sg-1",
                "AssignPublicIp": "DISABLED",
                "NetworkMode": mode,
            }
        for name, values in made.items():
            shown = {key: {"Value": value} for key, value in values.items()}
            session.client("cloudformation").create_stack(
                StackName=name, TemplateBody=json.dumps(stack | {"Outputs": shown})
            )
        session.client("s3").create_bucket(Bucket=names.bucket)
        session.client("dynamodb").create_table(
            TableName=names.base,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        if secret:
            kind = parameters.get("CredentialKind", "key")
            session.client("secretsmanager").create_secret(Name=names.secret(kind), SecretString="sk-ant-test-place")
        yield
