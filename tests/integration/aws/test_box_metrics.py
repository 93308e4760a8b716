"""A box on EC2 that pushes its metrics to CloudWatch: by an instance profile for that alone."""

from __future__ import annotations

from typing import Any

import boto3
import pytest

from farmhand.core.errors import NotConfigured, Refused
from tests.integration.aws.test_box_ec2 import boxes, calls, changes, ec2, make, station
from tests.support.boxes import Workstation

__all__ = ["calls", "ec2", "station"]


def test_a_box_that_pushes_metrics_gets_the_role_for_that_alone(
    ec2: Any, calls: list[str], station: Workstation
) -> None:
    before = station.files()
    with pytest.raises(NotConfigured, match="there is no instance profile farmhand-try-host") as caught:
        make(station, cloudwatch=True)
    assert "aws_farm_hosts: [farm1]" in caught.value.hint
    assert (changes(calls), station.files()) == ([], before)
    iam = boto3.client("iam", region_name="us-east-1")
    for name in ("farmhand-try-host", "other"):
        iam.create_instance_profile(InstanceProfileName=name)
    step = "let it push metrics by the instance profile farmhand-try-host"
    assert step in make(station, check=True, cloudwatch=True)["steps"]
    assert changes(calls) == []

    answer = make(station, cloudwatch=True)

    (box,) = boxes(ec2)
    [has] = ec2.describe_iam_instance_profile_associations()["IamInstanceProfileAssociations"]
    assert has["InstanceId"] == box["InstanceId"]
    assert has["IamInstanceProfile"]["Arn"].endswith(":instance-profile/farmhand-try-host")
    assert (step in answer["steps"], answer["left_to_do"]) == (True, "")
    calls.clear()
    assert [make(station, cloudwatch=on)["changed"] for on in (True, False)] == [False, False]
    assert changes(calls) == []
    # One that the operator has given another role is left alone.
    ec2.replace_iam_instance_profile_association(
        AssociationId=has["AssociationId"], IamInstanceProfile={"Name": "other"}
    )
    with pytest.raises(Refused, match="has the instance profile other"):
        make(station, cloudwatch=True)
