"""One task on Fargate: started once, its result from the bucket; ECS is a client in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest

from farmhand.aws.places import run_task
from farmhand.aws.places.run_task import FargateTask
from farmhand.core import shard
from farmhand.core.bucket_keys import BatchKeys
from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured, UsageError
from farmhand.core.shard import PlaceInfo, SingleOrder, SingleResult
from tests.support import aws_place
from tests.support.aws_place import CONF, FakeAws, FakeBatch

BEGAN = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


class Ecs:
    """A client of ECS. `plays` says what each start comes to: the description of the task when it has stopped."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.plays: list[Callable[[], dict[str, Any]]] = []
        self.tokens: dict[str, str] = {}
        self.stopped: list[str] = []
        self.faults: list[Exception] = []
        self.described = 0
        self.definitions = True

    def describe_task_definition(self, **_: Any) -> dict[str, Any]:
        if not self.definitions:
            raise aws_place.denied("ClientException", message="Unable to describe task definition.")
        return {"taskDefinition": {"cpu": "2048", "memory": "8192"}}

    def run_task(self, **request: Any) -> dict[str, Any]:
        if self.faults:
            raise self.faults.pop(0)
        self.requests.append(request)
        token = request["clientToken"]
        if token not in self.tokens:
            self.tokens[token] = f"arn:aws:ecs:us-east-1:1:task/farmhand-test/{len(self.tokens)}"
        return {"tasks": [{"taskArn": self.tokens[token]}], "failures": []}

    def describe_tasks(self, tasks: list[str], **_: Any) -> dict[str, Any]:
        self.described += 1
        if self.described % 2:
            return {"tasks": [{"lastStatus": "PENDING"}]}
        return {"tasks": [{"lastStatus": "STOPPED", **self.plays.pop(0)()}]}

    def list_tasks(self, **_: Any) -> dict[str, Any]:
        return {"taskArns": [*self.tokens.values()]}

    def stop_task(self, task: str, **_: Any) -> None:
        self.stopped.append(task)


class Cloud(FakeAws):
    """AWS with that ECS."""

    def __init__(self, ecs: Ecs) -> None:
        super().__init__(FakeBatch(aws_place.Child()))
        self.ecs = ecs

    def client(self, service: str, *, once: bool = False) -> Any:
        """See Aws."""
        return self.ecs if service == "ecs" else super().client(service, once=once)


class Single:
    """What a test sees."""

    def __init__(self) -> None:
        self.ecs = Ecs()
        self.aws = Cloud(self.ecs)
        self.said: list[str] = []
        self.keys = BatchKeys.of("test", "t1")

    def task(self, size: str = "api", **about: Any) -> FargateTask:
        """The task, by a new command."""
        task = {"id": "t1", "prompt": "hello", **about.pop("task", {})}
        say = self.said.append
        return FargateTask(conf=CONF, task=task, size=size, say=say, aws=self.aws, sleep=lambda _s: None, **about)

    def leaves(self, **result: Any) -> Callable[[], dict[str, Any]]:
        """The container writes this result."""

        def play() -> dict[str, Any]:
            order = msgspec.json.decode(self.get(self.keys.single), type=SingleOrder)
            whole = {"id": "t1", "state": "succeeded", "text": "hi", "cost_usd": 0.5, **result}
            done = SingleResult(result=whole, files={}, place=order.place, started_at=1.0, stopped_at=2.0)
            self.put(self.keys.output("result.json"), msgspec.json.encode(done))
            times = {"pullStartedAt": BEGAN, "stoppedAt": BEGAN + timedelta(minutes=5)}
            return {
                "stopCode": "EssentialContainerExited",
                "stoppedReason": "Essential container in task exited",
                **times,
            }

        return play

    @property
    def s3(self) -> Any:
        return boto3.client("s3", region_name=aws_place.REGION)

    def get(self, key: str) -> bytes:
        return bytes(self.s3.get_object(Bucket=self.aws.names.bucket, Key=key)["Body"].read())

    def put(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket=self.aws.names.bucket, Key=key, Body=body)

    def objects(self) -> list[str]:
        return [one["Key"] for one in self.s3.list_objects_v2(Bucket=self.aws.names.bucket).get("Contents", [])]


@pytest.fixture
def single() -> Iterator[Single]:
    with aws_place.environment():
        yield Single()


def ends(reason: str, code: int | None = None, stop: str = "TaskFailedToStart") -> Callable[[], dict[str, Any]]:
    containers = [{"name": "worker"}, {"name": "agent", **({} if code is None else {"exitCode": code})}]
    return lambda: {"stopCode": stop, "stoppedReason": reason, "containers": containers}


def test_a_task_runs_and_its_result_says_where_and_for_what(single: Single) -> None:
    single.ecs.plays = [single.leaves()]
    result = single.task(spot=True).run()
    assert (result["state"], result["text"], result["cost_usd"]) == ("succeeded", "hi", 0.5)
    place = result["place"]
    assert (place["name"], place["id"], place["vcpu"], place["memory_mb"]) == ("fargate", "0", 2.0, 8192)
    assert (place["spot"], place["stopped"] - place["started"]) == (True, 300)
    assert float(place["usd"]) == pytest.approx(300 / 3600 * (2 * 0.04048 + 8 * 0.004445) * 0.3, abs=1e-6)
    assert any("image is pulled" in line for line in single.said)


def test_the_request_is_one_that_aws_takes_and_says_whose_it_is(single: Single) -> None:
    single.ecs.plays = [single.leaves()]
    single.task().run()
    [request] = single.ecs.requests
    client = boto3.client("ecs", region_name=aws_place.REGION)
    shape = client.meta.service_model.operation_model("RunTask").input_shape
    assert set(request) <= set(shape.members)
    assert "launchType" not in request
    assert [one["capacityProvider"] for one in request["capacityProviderStrategy"]] == ["FARGATE"]
    assert request["tags"] == [
        {"key": "farmhand:environment", "value": "test"},
        {"key": "farmhand:task", "value": "t1"},
    ]
    assert request["enableExecuteCommand"] is False
    assert len(request["clientToken"]) <= 64
    assert len(request["startedBy"]) <= 36
    network = request["networkConfiguration"]["awsvpcConfiguration"]
    assert network == {"subnets": ["subnet-1", "subnet-2"], "securityGroups": ["sg-1"], "assignPublicIp": "DISABLED"}
    [container] = request["overrides"]["containerOverrides"]
    values = {one["name"]: one["value"] for one in container["environment"]}
    assert container["name"] == "agent"
    assert values[shard.ORDER] == "test/batches/t1/in/order.json"
    order = msgspec.json.decode(single.get(single.keys.single), type=SingleOrder)
    assert order.task == {"id": "t1", "prompt": "hello"}
    assert order.place == PlaceInfo(name="fargate", vcpu_milli=2000, memory_mb=8192, spot=False)


@pytest.mark.parametrize(
    "reason",
    [
        "CannotPullContainerError: pull image manifest has been retried 1 time(s)",
        "ResourceInitializationError: unable to pull secrets or registry auth",
        "Timeout waiting for network interface provisioning to complete.",
        "Capacity is unavailable at this time.",
    ],
)
def test_what_does_not_start_is_tried_three_times_and_then_told(single: Single, reason: str) -> None:
    single.ecs.plays = [ends(reason)] * 3
    with pytest.raises(FarmUnreachable) as caught:
        single.task().run()
    assert (caught.value.exit_code, reason[:40] in str(caught.value)) == (4, True)
    assert len({request["clientToken"] for request in single.ecs.requests}) == 3
    attempts = [request["overrides"]["containerOverrides"][0]["environment"] for request in single.ecs.requests]
    assert [next(e["value"] for e in one if e["name"] == shard.ATTEMPT) for one in attempts] == ["1", "2", "3"]


def test_one_start_that_fails_and_spot_that_takes_it_back_are_not_the_end(single: Single) -> None:
    spot = ends("Your Spot Task was interrupted.", None, "SpotInterruption")
    single.ecs.plays = [ends("CannotPullContainerError: x"), spot, single.leaves()]
    assert single.task(spot=True).run()["text"] == "hi"
    assert sum("trying again" in line for line in single.said) == 2


def test_no_room_is_told_as_aws_says_it(single: Single, monkeypatch: pytest.MonkeyPatch) -> None:
    full = {"tasks": [], "failures": [{"reason": "RESOURCE:FARGATE"}]}
    monkeypatch.setattr(Ecs, "run_task", lambda _self, **_: full)
    with pytest.raises(FarmUnreachable, match="RESOURCE:FARGATE"):
        single.task().run()


def test_a_start_that_is_told_to_have_failed_and_did_not_is_not_repeated(
    single: Single, monkeypatch: pytest.MonkeyPatch
) -> None:
    """See apache/airflow#16150."""
    full = {"tasks": [], "failures": [{"reason": "RESOURCE:FARGATE"}]}
    monkeypatch.setattr(Ecs, "run_task", lambda self, **_: self.tokens.setdefault("x", "arn:task/1") and full)
    single.ecs.plays = [single.leaves()]
    assert single.task().run()["place"]["id"] == "1"


@pytest.mark.parametrize(("code", "status"), [(shard.EXIT_CONFIG, 3), (shard.EXIT_REFUSED, 3), (shard.EXIT_BUG, 1)])
def test_a_container_that_fails_is_not_tried_again(single: Single, code: int, status: int) -> None:
    single.ecs.plays = [ends("Essential container in task exited", code, "EssentialContainerExited")]
    with pytest.raises(FarmhandError, match=f"exit status {code}") as caught:
        single.task().run()
    assert caught.value.exit_code == status
    assert "farmhand cloud logs t1" in caught.value.hint
    assert len(single.ecs.requests) == 1


def test_the_same_id_runs_once_whenever_the_command_dies(single: Single) -> None:
    # It dies before AWS has answered: the same token gives the same task.
    single.ecs.faults = [RuntimeError("killed")]
    with pytest.raises(RuntimeError):
        single.task().run()
    # It dies while it waits: the task is found by its order.
    killed = single.task()
    killed.sleep = lambda _s: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    single.ecs.plays = [single.leaves()]
    first = single.task().run()
    again = single.task().run()
    assert (first["text"], again["text"]) == ("hi", "hi")
    assert len(single.ecs.tokens) == 1
    assert len(single.ecs.requests) == 1
    with pytest.raises(UsageError) as caught:
        single.task(task={"prompt": "something else"}).run()
    assert caught.value.code == "id_conflict"


def test_a_stop_ends_the_task_even_one_whose_start_was_not_answered(single: Single) -> None:
    task = single.task()
    single.ecs.tokens = {"x": "arn:lost"}
    task.stop()
    assert single.ecs.stopped == ["arn:lost"]


def test_files_are_those_that_the_task_has_left(single: Single, tmp_path: Path) -> None:
    import hashlib

    patch = b"diff --git a/f b/f\n"
    bundle = tmp_path / "b"
    bundle.write_bytes(b"# v2 git bundle\n")
    single.ecs.plays = [single.leaves()]
    task = single.task("code", bundle=bundle)
    task.run()
    order = msgspec.json.decode(single.get(single.keys.single), type=SingleOrder)
    assert (order.bundle_bytes, order.bundle_sha256) == (16, hashlib.sha256(b"# v2 git bundle\n").hexdigest())
    assert single.get(single.keys.bundle) == b"# v2 git bundle\n"
    done = json.loads(single.get(single.keys.output("result.json")))
    key = single.keys.output("changes.patch")
    single.put(key, patch)
    file = {"key": key, "bytes": len(patch), "sha256": hashlib.sha256(patch).hexdigest()}
    single.put(single.keys.output("result.json"), json.dumps(done | {"files": {"changes.patch": file}}).encode())
    task.fetch(tmp_path)
    assert (tmp_path / "changes.patch").read_bytes() == patch
    assert (tmp_path / "artifacts.tar").read_bytes() == b""
    single.put(key, b"something else")
    with pytest.raises(FarmhandError, match="SHA-256"):
        task.fetch(tmp_path)


def test_an_environment_without_a_network_makes_nothing() -> None:
    """What else may be missing is in test_failure_table."""
    with aws_place.environment(network=False):
        single = Single()
        with pytest.raises(NotConfigured) as caught:
            single.task()
        assert ("farmhand-test-network" in caught.value.message, caught.value.hint) == (
            True,
            "farmhand cloud up makes it",
        )
        assert (single.objects(), single.ecs.requests) == ([], [])


def test_a_definition_that_is_missing_and_a_service_that_denies(single: Single) -> None:
    single.ecs.definitions = False
    with pytest.raises(NotConfigured, match="task definition farmhand-test-api"):
        single.task()
    single.ecs.definitions = True
    denied = aws_place.denied("AccessDeniedException", message="not authorized to perform: ecs:RunTask on resource: x")
    single.ecs.faults = [denied]
    with pytest.raises(NotConfigured) as caught:
        single.task().run()
    assert '"Action": "ecs:RunTask"' in caught.value.hint
    assert run_task.NAME == "fargate"
