"""The double's Batch: arrays, retries, overrides, pages, and what it refuses. Tests play the containers."""

from __future__ import annotations

import http.client
import json
import re
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.fakeaws import FakeAws
from tests.support.fakeaws.scene import FAMILY, Scene

SPOT = "Your Spot Task was interrupted."
#: As the design has it: what is worth another attempt.
RETRY = {
    "attempts": 5,
    "evaluateOnExit": [
        {"action": "RETRY", "onExitCode": "75"},
        {"action": "RETRY", "onStatusReason": "Your Spot Task was interrupted*"},
        {"action": "RETRY", "onReason": "CannotPullContainer*"},
        {"action": "EXIT", "onReason": "*"},
    ],
}


def played(aws: FakeAws, job_id: str, exits: dict[str, int] | None = None, reason: str = "") -> None:
    """Play the job's attempt when it waits for that."""
    aws.until(lambda: aws.play(job_id, exits, reason))


def test_a_job_of_two_containers(aws: FakeAws, scene: Scene) -> None:
    job_id = scene.submit(tags={"farmhand:batch": "b1"})
    aws.until(lambda: scene.job(job_id)["status"] == "STARTING")
    played(aws, job_id)
    aws.until(lambda: scene.job(job_id)["status"] == "RUNNING")
    played(aws, job_id, {"agent": 0, "worker": 9})
    job = scene.ended(job_id)
    assert (job["status"], job["statusReason"]) == ("SUCCEEDED", "Essential container in task exited")
    assert "container" not in job
    assert job["tags"] == {"farmhand:batch": "b1"}
    containers = job["ecsProperties"]["taskProperties"][0]["containers"]
    assert [(c["name"], c["exitCode"]) for c in containers] == [("agent", 0), ("worker", 9)]
    (attempt,) = job["attempts"]
    shown = attempt["taskProperties"][0]["containers"]
    assert [c["logStreamName"] for c in shown] == [f"scene/{name}/{job_id}-1" for name in ("agent", "worker")]
    assert attempt["startedAt"] <= attempt["stoppedAt"]


def test_an_array_is_pending_until_all_its_children_have_ended(aws: FakeAws, scene: Scene) -> None:
    job_id = scene.submit(arrayProperties={"size": 3})
    for index, code in ((2, 0), (0, 1)):
        played(aws, f"{job_id}:{index}", {"agent": code})
    ends = ("SUCCEEDED", "FAILED")
    aws.until(lambda: [scene.job(job_id)["arrayProperties"]["statusSummary"][end] for end in ends] == [1, 1])
    parent = scene.job(job_id)
    assert parent["status"] == "PENDING"
    assert parent["arrayProperties"]["size"] == 3
    assert scene.job(f"{job_id}:2")["arrayProperties"] == {"index": 2}
    played(aws, f"{job_id}:1", {"agent": 0})
    assert scene.ended(job_id)["status"] == "FAILED"


@pytest.mark.parametrize("size", [-1, 0, 1, 10_001])
def test_an_array_has_2_to_10000_children(scene: Scene, size: int) -> None:
    with pytest.raises(ClientError, match=f"from 2 to 10000, not {size}"):
        scene.submit(arrayProperties={"size": size})


def test_attempts_go_on_until_a_rule_says_exit(aws: FakeAws, scene: Scene) -> None:
    job_id = scene.submit(scene.job_definition(retryStrategy=RETRY))
    played(aws, job_id, {"agent": 75})
    aws.until(lambda: f"{job_id}#2" in aws.tasks())
    played(aws, job_id)
    assert aws.interrupt(job_id)
    aws.until(lambda: f"{job_id}#3" in aws.tasks())
    played(aws, job_id, reason="CannotPullContainerError: pull timed out")
    aws.until(lambda: f"{job_id}#4" in aws.tasks())
    played(aws, job_id, {"agent": 77})
    job = scene.ended(job_id)
    assert job["status"] == "FAILED"
    assert [(a["container"].get("exitCode"), a["statusReason"]) for a in job["attempts"]] == [
        (75, "Essential container in task exited"),
        (143, SPOT),
        (None, "CannotPullContainerError: pull timed out"),
        (77, "Essential container in task exited"),
    ]


def test_a_start_that_failed_may_be_told_by_the_container_only(aws: FakeAws, scene: Scene) -> None:
    aws.options(vague_start=True)
    job_id = scene.submit()
    played(aws, job_id, reason="CannotPullContainerError: pull timed out")
    (attempt,) = scene.ended(job_id)["attempts"]
    assert attempt["statusReason"] == "Task failed to start"
    assert attempt["container"]["reason"] == "CannotPullContainerError: pull timed out"


def test_attempts_end(aws: FakeAws, scene: Scene) -> None:
    job_id = scene.submit(retryStrategy={"attempts": 2})
    for number in (1, 2):
        aws.until(lambda number=number: f"{job_id}#{number}" in aws.tasks())
        played(aws, job_id, {"agent": 1})
    assert len(scene.ended(job_id)["attempts"]) == 2


def test_terminate_ends_what_runs_and_cancel_only_what_waits(aws: FakeAws, scene: Scene) -> None:
    runs, waits = (
        scene.submit(scene.job_definition(retryStrategy={"attempts": 3})),
        scene.submit(arrayProperties={"size": 8}),
    )
    played(aws, runs)
    aws.until(lambda: scene.job(runs)["status"] == "RUNNING")
    aws.until(lambda: len(aws.tasks()) == 3)  # as many as run at once: the others wait for capacity
    for job_id in (runs, waits):
        scene.batch.cancel_job(jobId=job_id, reason="cancelled")
    children = [f"{waits}:{n}" for n in range(8)]
    aws.until(lambda: sum(job["status"] == "FAILED" for job in scene.batch.describe_jobs(jobs=children)["jobs"]) == 6)
    assert scene.job(runs)["status"] == "RUNNING"
    for job_id in (runs, waits):
        scene.batch.terminate_job(jobId=job_id, reason="terminated")
    ended = scene.ended(runs)
    assert (ended["status"], ended["statusReason"], len(ended["attempts"])) == ("FAILED", "terminated", 1)
    assert scene.ended(waits)["status"] == "FAILED"
    reasons = [job["statusReason"] for job in scene.batch.describe_jobs(jobs=children)["jobs"]]
    assert sorted(reasons) == ["cancelled"] * 6 + ["terminated"] * 2


def test_overrides_are_by_the_name_of_a_container(aws: FakeAws, scene: Scene) -> None:
    def override(**container: Any) -> dict[str, Any]:
        return {"taskProperties": [{"containers": [container]}]}

    definition = scene.job_definition()
    for change, said in (
        (override(name="nobody"), "names no container"),
        (override(name="agent", environment=[{"name": "AWS_BATCH_X", "value": "1"}]), "AWS_BATCH"),
    ):
        with pytest.raises(ClientError, match=said):
            scene.submit(definition, ecsPropertiesOverride=change)
    with pytest.raises(ClientError, match="containerOverrides are not for"):
        scene.submit(definition, containerOverrides={"command": ["x"]})
    assert scene.submit(definition, ecsPropertiesOverride=override(name="agent", command=["x"]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"linuxParameters": {"capabilities": {"drop": ["ALL"]}}}, "Batch has no .*linuxParameters.capabilities"),
        ({"entryPoint": ["x"]}, "Batch has no .*entryPoint"),
        ({"healthCheck": {"command": ["x"]}}, "Batch has no .*healthCheck"),
        ({"environmentFiles": [{"type": "s3", "value": "x"}]}, "Batch has no .*environmentFiles"),
        ({"privileged": True}, "Fargate does not support privileged"),
        ({"environment": [{"name": "AWS_BATCH_JOB", "value": "1"}]}, "must not begin with AWS_BATCH"),
        (
            {"resourceRequirements": [{"type": "VCPU", "value": "0.25"}, {"type": "MEMORY", "value": "1024"}]},
            "no Fargate size",
        ),
        (
            {"resourceRequirements": [{"type": "VCPU", "value": "0.3"}, {"type": "MEMORY", "value": "512"}]},
            "no Fargate size",
        ),
        ({"resourceRequirements": [{"type": "VCPU", "value": "0.25"}]}, "lack VCPU or MEMORY"),
    ],
)
def test_a_definition_that_fargate_refuses(aws: FakeAws, scene: Scene, change: dict[str, Any], said: str) -> None:
    agent, worker = scene.containers()
    definition = scene.job_definition([agent | change, worker])
    signed = "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/batch/aws4_request"
    line = http.client.HTTPConnection(aws.url.removeprefix("http://"))  # boto3 would refuse some of them itself
    line.request("POST", "/v1/registerjobdefinition", json.dumps(definition), {"Authorization": signed})
    answer = line.getresponse()
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "ClientException")
    assert re.search(said, answer.read().decode())
    line.close()
    assert scene.batch.describe_job_definitions(jobDefinitionName=FAMILY)["jobDefinitions"] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"retryStrategy": {"attempts": 11}}, "attempts"),
        ({"timeout": {"attemptDurationSeconds": 59}}, "timeout"),
        ({"platformCapabilities": ["EC2"]}, "FARGATE"),
        ({"task": {"executionRoleArn": ""}}, "executionRoleArn"),
        ({"task": {"ephemeralStorage": {"sizeInGiB": 500}}}, "ephemeralStorage"),
    ],
)
def test_more_that_it_refuses(scene: Scene, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ClientError, match=said):
        scene.batch.register_job_definition(**scene.job_definition(**change))


def test_compute_of_ec2_is_refused(scene: Scene) -> None:
    resources = {
        "type": "FARGATE",
        "maxvCpus": 1,
        "minvCpus": 0,
        "subnets": [scene.subnet],
        "securityGroupIds": ["sg-1"],
    }
    with pytest.raises(ClientError, match="minvCpus is not for Fargate"):
        scene.batch.create_compute_environment(
            computeEnvironmentName="x", type="MANAGED", computeResources=resources, serviceRole=scene.role
        )


def test_lists_come_in_pages_and_only_what_runs_unless_asked(aws: FakeAws, scene: Scene) -> None:
    job_id = scene.submit(arrayProperties={"size": 120})
    pages = scene.batch.get_paginator("list_jobs").paginate(arrayJobId=job_id, jobStatus="RUNNABLE")
    sizes = [len(page["jobSummaryList"]) for page in pages]
    assert sizes == [100, 17], "three have started"
    assert scene.batch.list_jobs(jobQueue=scene.queue)["jobSummaryList"] == []
    by_name = scene.batch.list_jobs(jobQueue=scene.queue, filters=[{"name": "JOB_NAME", "values": ["scene-*"]}])
    assert [job["jobId"] for job in by_name["jobSummaryList"]] == [job_id]
    with pytest.raises(ClientError, match="1 to 100 ids, not 101"):
        scene.batch.describe_jobs(jobs=[f"{job_id}:{n}" for n in range(101)])
    assert len(scene.batch.describe_jobs(jobs=[f"{job_id}:{n}" for n in range(100)])["jobs"]) == 100


def test_a_new_job_may_be_unknown_for_a_while(aws: FakeAws, scene: Scene) -> None:
    aws.options(lag_s=1.0)
    job_id = scene.submit()
    assert scene.batch.describe_jobs(jobs=[job_id])["jobs"] == []
    aws.until(lambda: scene.batch.describe_jobs(jobs=[job_id])["jobs"])


def test_a_job_waits_for_another(aws: FakeAws, scene: Scene) -> None:
    first = scene.submit()
    second = scene.submit(dependsOn=[{"jobId": first}])
    played(aws, first)
    time.sleep(0.3)
    assert not aws.play(second)
    played(aws, first, {"agent": 0})
    played(aws, second, {"agent": 0})
    assert scene.ended(second)["status"] == "SUCCEEDED"


def test_a_job_without_its_secret_does_not_start(aws: FakeAws, scene: Scene) -> None:
    definition = scene.job_definition()
    aws.client("secretsmanager").delete_secret(SecretId=scene.secret, ForceDeleteWithoutRecovery=True)
    job = scene.ended(scene.submit(definition))
    assert job["statusReason"].startswith("ResourceInitializationError: unable to pull secrets or registry auth")
    assert "exitCode" not in job["attempts"][0]["container"]
