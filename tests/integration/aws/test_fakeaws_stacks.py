"""The double's CloudFormation: a stack is made, refused, rolled back, changed, looked at and deleted, as on AWS."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.fakeaws import FakeAws

TEMPLATE = (Path(__file__).parents[2] / "data" / "aws" / "fargate.yaml").read_text("utf-8")


@pytest.fixture
def stacks(aws: FakeAws) -> Any:
    return aws.client("cloudformation")


def arguments(template: str = TEMPLATE, **parameters: str) -> dict[str, Any]:
    """The arguments for a stack."""
    given = {"ImageUri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/x:1", **parameters}
    pairs = [{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()]
    return {"StackName": "s", "TemplateBody": template, "Parameters": pairs, "Capabilities": ["CAPABILITY_IAM"]}


def stack(stacks: Any) -> dict[str, Any]:
    """The stack as it is described."""
    found: dict[str, Any] = stacks.describe_stacks(StackName="s")["Stacks"][0]
    return found


def planted(before: str, after: str) -> str:
    """The template with a change."""
    assert TEMPLATE.count(before) == 1
    return TEMPLATE.replace(before, after)


def events(stacks: Any) -> list[tuple[str, str, str]]:
    """Resource, status and reason of what failed, oldest first."""
    pages = stacks.describe_stack_events(StackName="s")["StackEvents"]
    return [
        (event["LogicalResourceId"], event["ResourceStatus"], event.get("ResourceStatusReason", ""))
        for event in reversed(pages)
        if event["ResourceStatus"].endswith("FAILED")
    ]


def test_a_stack_is_made_and_deleted(aws: FakeAws, stacks: Any) -> None:
    stacks.create_stack(**arguments())
    assert stack(stacks)["StackStatus"] == "CREATE_COMPLETE"
    (name,) = aws.client("ecs").list_task_definitions()["taskDefinitionArns"]
    definition = aws.client("ecs").describe_task_definition(taskDefinition=name, include=["TAGS"])
    agent = definition["taskDefinition"]["containerDefinitions"][0]
    assert agent["secrets"][0]["name"] == "FARMHAND_KEY"
    assert agent["logConfiguration"]["options"]["mode"] == "non-blocking"
    assert definition["tags"] == [{"key": "farmhand:environment", "value": "test"}]
    (job,) = aws.client("batch").describe_job_definitions()["jobDefinitions"]
    assert [c["name"] for c in job["ecsProperties"]["taskProperties"][0]["containers"]] == [
        "agent-of-a-job",
        "worker-of-a-job",
    ]
    assert job["retryStrategy"]["evaluateOnExit"][1]["onStatusReason"] == "Your Spot Task was interrupted*"
    assert (job["timeout"], job["propagateTags"]) == ({"attemptDurationSeconds": 7200}, True)
    stacks.delete_stack(StackName="s")
    with pytest.raises(ClientError, match="does not exist"):
        stack(stacks)
    assert aws.client("ecs").list_task_definitions()["taskDefinitionArns"] == []
    assert aws.client("batch").describe_compute_environments()["computeEnvironments"] == []
    assert aws.client("logs").describe_log_groups()["logGroups"] == []
    assert aws.client("secretsmanager").list_secrets()["SecretList"] == []


def test_the_same_again_is_no_update_and_a_change_set_says_so(stacks: Any) -> None:
    stacks.create_stack(**arguments())
    with pytest.raises(ClientError, match="No updates are to be performed"):
        stacks.update_stack(**arguments())
    made = stacks.create_change_set(**arguments(), ChangeSetName="same")
    seen = stacks.describe_change_set(ChangeSetName=made["Id"])
    assert (seen["Status"], seen["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert "didn't contain changes" in seen["StatusReason"]
    changed = planted("RetentionInDays: 30", "RetentionInDays: 60")
    made = stacks.create_change_set(**arguments(changed), ChangeSetName="other")
    seen = stacks.describe_change_set(ChangeSetName=made["Id"])
    assert [change["ResourceChange"]["LogicalResourceId"] for change in seen["Changes"]] == ["LogGroup"]
    assert seen["Status"] == "CREATE_COMPLETE"
    stacks.execute_change_set(ChangeSetName=made["Id"])
    assert stack(stacks)["StackStatus"] == "UPDATE_COMPLETE"


def test_another_parameter_is_an_update(aws: FakeAws, stacks: Any) -> None:
    stacks.create_stack(**arguments())
    stacks.update_stack(**arguments(Cpu="1024"))
    assert stack(stacks)["StackStatus"] == "UPDATE_COMPLETE"
    (newest,) = aws.client("ecs").list_task_definitions(sort="DESC")["taskDefinitionArns"][:1]
    assert newest
    all_sizes = {
        aws.client("ecs").describe_task_definition(taskDefinition=arn)["taskDefinition"]["cpu"]
        for arn in aws.client("ecs").list_task_definitions()["taskDefinitionArns"]
    }
    assert "1024" in all_sizes


@pytest.mark.parametrize("kind", ["AWS::Batch::Farm", "AWS::EKS::Nothing", "AWS::AppRunner::Service"])
def test_an_unknown_type_is_refused(stacks: Any, kind: str) -> None:
    with pytest.raises(ClientError, match=re.escape(f"Unrecognized resource types: [{kind}]")):
        stacks.create_stack(**arguments(TEMPLATE + f"  Odd: {{Type: {kind}, Properties: {{A: 1}}}}\n"))


@pytest.mark.parametrize(
    ("before", "after", "resource", "said"),
    [
        (
            "          Essential: true\n",
            "          Essential: true\n          Privileged: true\n",
            "Task",
            "Fargate does not support privileged",
        ),
        ('"0.25"}, {Type: MEMORY', '"0.3"}, {Type: MEMORY', "Job", "no Fargate size has 1.05 vCPU"),
        (
            "                LinuxParameters: {InitProcessEnabled: true}\n",
            "                LinuxParameters: {Capabilities: {Drop: [ALL]}}\n",
            "Job",
            "capabilities",
        ),
        ("MaxvCpus: 64,", "MaxvCpus: 64, MinvCpus: 0,", "Compute", "minvCpus"),
    ],
)
def test_what_a_service_refuses_rolls_the_stack_back(
    aws: FakeAws, stacks: Any, before: str, after: str, resource: str, said: str
) -> None:
    stacks.create_stack(**arguments(planted(before, after)))
    assert stack(stacks)["StackStatus"] == "ROLLBACK_COMPLETE"
    failed = events(stacks)
    assert failed[0][:2] == (resource, "CREATE_FAILED")
    assert said in failed[0][2]
    assert aws.client("logs").describe_log_groups()["logGroups"] == []
    with pytest.raises(ClientError):
        stacks.create_stack(**arguments())  # it is there, and must be deleted first
    stacks.delete_stack(StackName="s")
    stacks.create_stack(**arguments())
    assert stack(stacks)["StackStatus"] == "CREATE_COMPLETE"


def test_an_update_that_is_refused_is_said(stacks: Any) -> None:
    stacks.create_stack(**arguments())
    stacks.update_stack(**arguments(planted('Memory: "2048"', 'Memory: "512"')))
    assert stack(stacks)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert events(stacks)[0][:2] == ("Task", "UPDATE_FAILED")
