"""The two policies for people: what they give is needed, and what CloudFormation needs for the stacks is given."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from botocore import xform_name
from cfnlint.decode import cfn_yaml
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from tests.support.aws_rights import BUILDER, Statements, builder, by_cloudformation, named, refused, user
from tests.support.cloud import ROOT

#: The most characters of a managed policy, without spaces. Source: IAM's quotas.
_MOST = 6144
#: Rights that no line of code names, and why they are there.
PUSH = "docker push takes it. Source: ECR's guide, image push"
REASONS = {
    **{f"ecr:{name}": PUSH for name in ("BatchCheckLayerAvailability", "InitiateLayerUpload", "UploadLayerPart")},
    **{f"ecr:{name}": PUSH for name in ("CompleteLayerUpload", "PutImage", "BatchGetImage")},
    "iam:ListAccountAliases": "amazon.aws.aws_caller_info asks for it",
    "iam:PassRole": "RunTask and SubmitJob take it",
    "kms:Decrypt": "S3 takes it to read, and to put a large object in parts",
    "kms:GenerateDataKey": "S3 and Secrets Manager take it to write",
    "s3:ListBucket": "HeadBucket and ListObjectsV2 take it",
    "s3:ListBucketVersions": "ListObjectVersions takes it",
    "s3:DeleteObject": "DeleteObjects takes it",
    "s3:DeleteObjectVersion": "DeleteObjects takes it",
    "s3:PutObjectTagging": "PutObject takes it for the object's tags",
    "s3:AbortMultipartUpload": "an upload in parts that fails is taken back",
    "batch:TagResource": "SubmitJob takes it for the job's tags",
    "ecs:TagResource": "RunTask takes it for the task's tags",
}
#: What CloudFormation can do with a type, and our templates do not ask of it.
NOT_ASKED = {
    "Eks:*": "compute environments of EKS",
    "billing:GetBillingViewData": "a budget of a billing view",
    "elasticfilesystem:DescribeMountTargets": "a function with a file system",
    "firehose:TagDeliveryStream": "a log group's delivery",
    "kinesis:*": "a table's stream",
    "organizations:*": "a trail of an organization",
    "s3files:ListMountTargets": "a function with a file system",
    "s3tables:*": "a bucket's metadata table",
    "vpc-lattice:*": "an endpoint of a service network",
    "vpce:AllowMultiRegion": "an endpoint of another region",
}


def sources() -> str:
    """The code that calls AWS: ours, and that of the modules of Ansible which the role uses."""
    spec = find_spec("ansible_collections.amazon.aws")
    assert spec is not None
    modules = Path(next(iter(spec.submodule_search_locations or ()))) / "plugins" / "modules"
    ansible = [modules / f"{name}.py" for name in ("cloudformation", "cloudformation_info", "aws_caller_info")]
    return "\n".join(path.read_text("utf-8") for path in [*(ROOT / "src" / "farmhand").rglob("*.py"), *ansible])


@pytest.mark.parametrize("policy", [builder, user])
def test_each_right_is_for_a_call_or_has_its_reason(policy: object) -> None:
    statements: Statements = policy()  # type: ignore[operator]
    text = sources()
    unused = [
        action
        for action in named(statements)
        if action not in REASONS and not re.search(rf"\b{xform_name(action.partition(':')[2])}\b", text)
    ]
    assert unused == []


def test_each_reason_is_for_a_right() -> None:
    assert [action for action in REASONS if action not in named(builder() + user())] == []


def handlers() -> set[str]:
    """What CloudFormation's own descriptions of the types in our templates name as their rights."""
    wanted: set[str] = set()
    for path in (ROOT / "aws").glob("*.yaml"):
        for kind in {str(one["Type"]) for one in cfn_yaml.load(str(path))["Resources"].values()}:
            schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema
            for name, handler in schema["handlers"].items():
                wanted |= {"" if name == "list" else right for right in handler["permissions"]}
    return wanted - {""}


def test_what_cloudformation_needs_for_the_stacks_is_given() -> None:
    wanted = handlers()
    assert len(wanted) > 300
    not_asked: Statements = [{"Action": [*NOT_ASKED]}]
    assert refused(refused(wanted, by_cloudformation()), not_asked) == []
    for action in [*named(by_cloudformation()), *NOT_ASKED]:
        assert len(refused(wanted, [{"Action": action}])) < len(wanted), action


def test_the_policy_can_be_made() -> None:
    assert len(re.sub(r"\s", "", BUILDER.read_text("utf-8"))) <= _MOST
    sids = [one["Sid"] for one in json.loads(BUILDER.read_text("utf-8"))["Statement"]]
    assert len(sids) == len(set(sids))
