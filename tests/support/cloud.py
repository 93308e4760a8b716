"""The stacks of aws/ on the double, made by CloudFormation's own calls or by the role."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from farmhand.aws.names import Names
from tests.support.fakeaws.client import ACCOUNT, FakeAws

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "aws"
IMAGE = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/farmhand-prod/farmhand-worker@sha256:{'0' * 64}"
PARTS = ("data", "base", "watch", "network")
#: Beside those: the alarms of one farm host.
HOST = "host"
TEMPLATE_NAMES = (*PARTS, HOST)


def stack_name(environment: str, part: str) -> str:
    """The name of a stack."""
    return str(getattr(Names(environment), part))


def deploy(aws: FakeAws, environment: str = "prod", parts: tuple[str, ...] = PARTS, **parameters: str) -> None:
    """Make the stacks; each gets the parameters that it knows."""
    for part in parts:
        given = {"Environment": environment, **({"ImageUri": IMAGE} if part == "base" else {}), **parameters}
        _create(aws, stack_name(environment, part), part, given)


def deploy_host(aws: FakeAws, host: str, environment: str = "prod", **parameters: str) -> None:
    """Make the stack with the alarms of a farm host."""
    _create(aws, Names(environment).host_stack(host), HOST, {"Environment": environment, "Host": host, **parameters})


def _create(aws: FakeAws, name: str, part: str, given: dict[str, str]) -> None:
    client, text = aws.client("cloudformation"), (TEMPLATES / f"{part}.yaml").read_text("utf-8")
    client.create_stack(
        StackName=name,
        TemplateBody=text,
        Parameters=[
            {"ParameterKey": key, "ParameterValue": value} for key, value in given.items() if f"  {key}:" in text
        ],
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Tags=[{"Key": "farmhand:environment", "Value": given["Environment"]}],
    )
    [stack] = client.describe_stacks(StackName=name)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack


def outputs(aws: FakeAws, environment: str = "prod", part: str = "base") -> dict[str, str]:
    """The outputs of a stack."""
    [stack] = aws.client("cloudformation").describe_stacks(StackName=stack_name(environment, part))["Stacks"]
    return {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", [])}


def stacks(aws: FakeAws) -> dict[str, str]:
    """All stacks that are there, with their states."""
    found: list[dict[str, Any]] = aws.client("cloudformation").describe_stacks()["Stacks"]
    return {stack["StackName"]: stack["StackStatus"] for stack in found}
