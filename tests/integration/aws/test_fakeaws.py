"""The double: it starts and stops, forgets, and fails when it is told to; its ECS refuses what AWS refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from tests.support.fakeaws import FakeAws
from tests.support.fakeaws.scene import FAMILY, GROUP, Scene


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    """AWS's code of a refusal."""
    return str(error.value.response["Error"]["Code"])


def test_two_at_once_know_nothing_of_each_other_and_end_by_their_pid(aws: FakeAws) -> None:
    aws.client("sns").create_topic(Name="first")
    other = FakeAws(region="eu-central-1", registry="127.0.0.1:9")
    other.start()
    try:
        assert other.url != aws.url
        assert other.client("sns").list_topics()["Topics"] == []
        (login,) = other.client("ecr").get_authorization_token()["authorizationData"]
        assert login["proxyEndpoint"] == "http://127.0.0.1:9"
        assert (
            other.client("sns").create_topic(Name="x")["TopicArn"].startswith("arn:aws:sns:eu-central-1:123456789012:")
        )
    finally:
        other.stop()
    other.stop()  # twice is no error
    with pytest.raises(Exception, match="Could not connect"):
        other.client("sns").list_topics()
    assert len(aws.client("sns").list_topics()["Topics"]) == 1


def test_as_a_program_it_prints_its_address_and_ends_on_sigterm() -> None:
    process = subprocess.Popen([sys.executable, "-m", "tests.support.fakeaws", "--port", "0"], stdout=-1, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline().startswith("listening on http://127.0.0.1:")
        process.terminate()
        assert process.wait(20) == 0
        assert process.stdout.read() == ""


def test_a_port_that_is_taken_is_said(aws: FakeAws) -> None:
    port = aws.url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.fakeaws", "--port", port], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"fakeaws: cannot listen on port {port}: ")
    assert "Traceback" not in done.stderr


def test_its_environment_is_enough_for_boto3(aws: FakeAws) -> None:
    asks = "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])"
    env = {"PATH": os.environ["PATH"], **aws.environ()}
    done = subprocess.run([sys.executable, "-c", asks], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "123456789012\n"


def test_the_login_of_this_process(aws_login: FakeAws) -> None:
    assert boto3.session.Session().client("sts").get_caller_identity()["Account"] == aws_login.account


def test_it_forgets(aws: FakeAws, scene: Scene) -> None:
    arn = scene.run_task()
    aws.faults({"service": "sns", "code": "Throttling"})
    aws.options(lag_s=5)
    aws.reset()
    assert aws.tasks() == {}
    assert aws.faults_left == []
    assert aws.client("ecs").list_clusters()["clusterArns"] == []
    assert aws.client("logs").describe_log_groups()["logGroups"] == []
    with pytest.raises(ClientError) as error:
        aws.client("ecs").describe_tasks(cluster="scene", tasks=[arn])
    assert code(error) == "ClusterNotFoundException"


# Faults.


def test_throttling_hits_one_action_so_many_times(aws: FakeAws) -> None:
    aws.faults(
        {"service": "secretsmanager", "action": "ListSecrets", "times": 2, "skip": 1, "code": "ThrottlingException"}
    )
    client = aws.client("secretsmanager")
    client.list_secrets()
    for _ in range(2):
        aws.client("sns").list_topics()
        client.create_secret(Name=f"secret-{time.monotonic()}", SecretString="x")
        with pytest.raises(ClientError) as error:
            client.list_secrets()
        assert code(error) == "ThrottlingException"
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    client.list_secrets()
    assert aws.hits == [("secretsmanager", "ListSecrets")] * 2


@pytest.mark.parametrize(
    ("service", "action", "call", "status", "named"),
    [
        ("s3", "PUT /some/key", lambda c: c.put_object(Bucket="some", Key="key", Body=b"x"), 503, "SlowDown"),
        (
            "batch",
            "submitjob",
            lambda c: c.submit_job(jobName="aa", jobQueue="q", jobDefinition="d"),
            500,
            "ServerException",
        ),
        ("cloudformation", "DescribeStacks", lambda c: c.describe_stacks(), 400, "Throttling"),
        ("dynamodb", "ListTables", lambda c: c.list_tables(), 500, "InternalServerError"),
        ("monitoring", "", lambda c: c.describe_alarms(), 400, "Throttling"),
    ],
)
def test_a_fault_has_the_form_of_its_service(
    aws: FakeAws, service: str, action: str, call: Any, status: int, named: str
) -> None:
    aws.faults({"service": service, "action": action, "status": status, "code": named})
    client = aws.client({"monitoring": "cloudwatch"}.get(service, service))
    with pytest.raises(ClientError) as error:
        call(client)
    assert code(error) == named
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


def test_boto_s_own_retries_get_over_a_fault(aws: FakeAws) -> None:
    aws.faults({"service": "sts", "times": 2, "status": 503, "code": "ServiceUnavailable"})
    patient = aws.client("sts", config=Config(retries={"mode": "standard", "total_max_attempts": 4}))
    assert patient.get_caller_identity()["Account"] == aws.account
    assert len(aws.hits) == 2


def test_a_lost_answer_may_come_after_the_deed(aws: FakeAws) -> None:
    client = aws.client("sns")
    for after, topics in ((False, 0), (True, 1)):
        aws.faults({"service": "sns", "action": "CreateTopic", "reset": True, "after": after})
        with pytest.raises(ConnectionClosedError):
            client.create_topic(Name="lost")
        assert len(client.list_topics()["Topics"]) == topics


def test_a_slow_answer_is_a_good_one(aws: FakeAws) -> None:
    aws.faults({"service": "sns", "delay": 0.5})
    began = time.monotonic()
    assert aws.client("sns").list_topics()["Topics"] == []
    assert time.monotonic() - began > 0.5


def test_a_fault_that_cannot_be_is_said(aws: FakeAws) -> None:
    with pytest.raises(RuntimeError, match="unexpected keyword argument 'sevrice'"):
        aws.faults({"sevrice": "s3"})


# Tasks of ECS.


def test_without_docker_a_test_plays_the_task(aws: FakeAws, scene: Scene) -> None:
    arn = scene.run_task()
    aws.until(lambda: scene.task(arn)["lastStatus"] == "PENDING")
    time.sleep(0.3)
    assert scene.task(arn)["lastStatus"] == "PENDING", "nothing starts by itself"
    assert aws.play(arn)
    aws.until(lambda: scene.task(arn)["lastStatus"] == "RUNNING")
    assert aws.tasks()[arn] == {"running": ["agent", "worker"], "exits": {}, "reason": ""}
    assert aws.play(arn, {"agent": 0, "worker": 3})
    stopped = scene.stopped(arn)
    assert {c["name"]: c["exitCode"] for c in stopped["containers"]} == {"agent": 0, "worker": 3}
    assert (stopped["stopCode"], stopped["launchType"]) == ("EssentialContainerExited", "FARGATE")
    assert stopped["createdAt"] <= stopped["startedAt"] <= stopped["stoppedAt"]
    assert not aws.play(arn, {"agent": 0}), "it is over"


def test_how_a_task_may_end(aws: FakeAws, scene: Scene) -> None:
    interrupted, stopped, never = scene.run_task(), scene.run_task(), scene.run_task()
    for arn in (interrupted, stopped):
        aws.until(lambda arn=arn: aws.play(arn))
    aws.interrupt(interrupted)
    scene.ecs.stop_task(cluster=scene.cluster, task=stopped, reason="enough")
    aws.until(lambda: aws.play(never, reason="CannotPullContainerError: no such image"))
    ends = [(found["stopCode"], found["stoppedReason"]) for found in map(scene.stopped, (interrupted, stopped, never))]
    assert ends == [
        ("SpotInterruption", "Your Spot Task was interrupted."),
        ("UserInitiated", "enough"),
        ("TaskFailedToStart", "CannotPullContainerError: no such image"),
    ]
    assert "exitCode" not in scene.task(never)["containers"][0]


def test_a_task_needs_its_secret_and_its_log_group(aws: FakeAws, scene: Scene) -> None:
    containers = scene.containers()
    aws.client("secretsmanager").delete_secret(SecretId=scene.secret, ForceDeleteWithoutRecovery=True)
    without_secret = scene.stopped(scene.run_task(scene.task_definition(containers)))
    assert without_secret["stoppedReason"].startswith("ResourceInitializationError: unable to pull secrets")
    containers[0]["secrets"] = []
    scene.logs.delete_log_group(logGroupName=GROUP)
    without_group = scene.stopped(scene.run_task(scene.task_definition(containers)))
    assert "The specified log group does not exist" in without_group["stoppedReason"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"launchType": "FARGATE"}, "Specifying both a launch type and capacity provider strategy is not supported"),
        ({"capacityProviderStrategy": [{"capacityProvider": "OTHER"}]}, "'OTHER' was not found"),
        ({"overrides": {"containerOverrides": [{"name": "nobody"}]}}, "container named nobody is not a container"),
        (
            {"overrides": {"containerOverrides": [{"name": "agent", "command": ["x" * 8200]}]}},
            "Container Overrides length must be at most 8192",
        ),
        ({"networkConfiguration": {}}, "Network Configuration must be provided"),
        ({"count": 11}, "Count cannot be more than 10"),
    ],
)
def test_run_task_refuses(scene: Scene, change: dict[str, Any], said: str) -> None:
    scene.ecs.register_task_definition(**scene.task_definition())
    with pytest.raises(ClientError, match=said) as error:
        scene.ecs.run_task(**(scene.run_arguments() | change))
    assert code(error) == "InvalidParameterException"
    assert scene.aws.tasks() == {}


def test_run_task_refuses_a_definition_that_is_not_for_fargate(scene: Scene) -> None:
    on_ec2 = scene.task_definition(requiresCompatibilities=["EC2"], networkMode="awsvpc")
    scene.ecs.register_task_definition(**on_ec2)
    with pytest.raises(ClientError, match="does not support launch_type FARGATE"):
        scene.ecs.run_task(**scene.run_arguments())


def test_the_same_client_token_runs_one_task(scene: Scene) -> None:
    scene.ecs.register_task_definition(**scene.task_definition())
    arguments = scene.run_arguments() | {"clientToken": "once"}
    arns = {scene.ecs.run_task(**arguments)["tasks"][0]["taskArn"] for _ in range(3)}
    assert len(arns) == 1
    with pytest.raises(ClientError, match="clientToken"):
        scene.ecs.run_task(**(arguments | {"startedBy": "somebody else"}))


def test_what_fargate_refuses_is_refused_when_it_is_registered(scene: Scene) -> None:
    for change, said in (
        ({"privileged": True}, "Fargate does not support privileged"),
        ({"linuxParameters": {"tmpfs": [{"containerPath": "/x", "size": 1}]}}, "linuxParameters.tmpfs"),
        ({"linuxParameters": {"capabilities": {"add": ["NET_ADMIN"]}}}, "the capability NET_ADMIN"),
        ({"stopTimeout": 121}, "stopTimeout"),
        ({"mountPoints": [{"sourceVolume": "none", "containerPath": "/x"}]}, "no volume none"),
    ):
        agent, worker = scene.containers()
        with pytest.raises(ClientError, match=said) as error:
            scene.ecs.register_task_definition(**scene.task_definition([agent | change, worker]))
        assert code(error) == "ClientException"
    for size in ({"cpu": "300"}, {"memory": "512"}):
        with pytest.raises(ClientError, match="no Fargate size"):
            scene.ecs.register_task_definition(**(scene.task_definition() | size))
    assert scene.ecs.list_task_definitions(familyPrefix=FAMILY)["taskDefinitionArns"] == []


def test_an_unknown_task_is_missing_and_a_new_one_may_be_for_a_while(aws: FakeAws, scene: Scene) -> None:
    aws.options(lag_s=1.0)
    arn = scene.run_task()
    answer = scene.ecs.describe_tasks(cluster=scene.cluster, tasks=[arn, "unknown"])
    assert answer["tasks"] == []
    assert answer["failures"] == [{"arn": arn, "reason": "MISSING"}, {"arn": "unknown", "reason": "MISSING"}]
    aws.until(lambda: scene.ecs.describe_tasks(cluster=scene.cluster, tasks=[arn])["tasks"])
    with pytest.raises(ClientError, match="The referenced task was not found"):
        scene.ecs.stop_task(cluster=scene.cluster, task="unknown")


def test_containers_need_an_engine() -> None:
    env = {"PATH": os.environ["PATH"], "DOCKER_HOST": "unix:///nowhere/docker.sock"}
    run = [sys.executable, "-m", "tests.support.fakeaws", "--docker"]
    done = subprocess.run(run, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("fakeaws: --docker: ")
    assert done.stderr.count("\n") == 1
