"""Which rights calls of AWS take, by the actions of IAM, and whether a policy gives them.

There are two policies for people: `aws/builder-policy.json` for whoever makes and removes an environment, and the one
in `aws/base.yaml` for whoever uses it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cache
from typing import Any
from urllib.parse import parse_qs

from cfnlint.decode import cfn_yaml

from tests.support.cloud import ROOT

Statements = list[dict[str, Any]]
BUILDER = ROOT / "aws" / "builder-policy.json"
#: The key of a condition that holds for what CloudFormation calls on behalf of somebody.
_BY_CLOUDFORMATION = "aws:CalledVia"
#: The services whose actions are not named as requests are signed.
_PREFIXES = {"monitoring": "cloudwatch", "service-quotas": "servicequotas"}
#: Operations of S3 by what is asked for: method, whether the path has a key, a parameter of the query.
_S3 = {
    ("HEAD", False, ""): "HeadBucket",
    ("GET", False, "list-type"): "ListObjectsV2",
    ("GET", False, "versions"): "ListObjectVersions",
    ("POST", False, "delete"): "DeleteObjects",
    ("DELETE", False, ""): "DeleteBucket",
    ("GET", True, ""): "GetObject",
    ("PUT", True, ""): "PutObject",
    ("DELETE", True, ""): "DeleteObject",
}
#: Operations that need other rights than those of their name.
_RIGHTS = {
    "s3:HeadBucket": ["s3:ListBucket"],
    "s3:ListObjectsV2": ["s3:ListBucket"],
    "s3:ListObjectVersions": ["s3:ListBucketVersions"],
    "s3:DeleteObjects": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
    # What anybody may ask: who he is.
    "sts:GetCallerIdentity": [],
}


def builder() -> Statements:
    """The statements for what the commands that build call themselves."""
    return [one for one in _all_of_builder() if _BY_CLOUDFORMATION not in json.dumps(one)]


def by_cloudformation() -> Statements:
    """The statements for what CloudFormation calls on behalf of whoever builds."""
    return [one for one in _all_of_builder() if _BY_CLOUDFORMATION in json.dumps(one)]


@cache
def user() -> Statements:
    """The statements of the policy for operators, those with a condition of the stack among them."""
    template = cfn_yaml.load(str(ROOT / "aws" / "base.yaml"))
    statements = template["Resources"]["OperatorPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    return [one["Fn::If"][1] if "Fn::If" in one else one for one in statements]


def actions(calls: Iterable[tuple[str, str]]) -> set[str]:
    """The rights that the double's calls take: see FakeAws.calls."""
    return {right for service, action in calls for right in rights(service, _operation(service, action))}


def rights(service: str, operation: str) -> list[str]:
    """The rights that an operation takes."""
    name = f"{_PREFIXES.get(service, service)}:{operation}"
    return _RIGHTS.get(name, [name])


def named(statements: Statements) -> list[str]:
    """The actions that these statements name."""
    actions = [one["Action"] for one in statements]
    return [name for action in actions for name in ([action] if isinstance(action, str) else action)]


def refused(wanted: Iterable[str], statements: Statements) -> list[str]:
    """Those of these actions that no statement names. Upper and lower case are one to IAM."""
    given = [action.lower() for action in named(statements)]
    return sorted(one for one in wanted if not any(fnmatchcase(one.lower(), action) for action in given))


def _all_of_builder() -> Statements:
    statements: Statements = json.loads(BUILDER.read_text("utf-8"))["Statement"]
    return statements


def _operation(service: str, action: str) -> str:
    if service == "s3":
        return _s3(action)
    return _operations(service)[action] if " " in action else action


def _s3(action: str) -> str:
    path, _, query = action.partition("?")
    method, _, path = path.partition(" ")
    has_key = bool(path.strip("/").partition("/")[2])
    asked = parse_qs(query, keep_blank_values=True)
    return next(
        operation
        for (verb, key, name), operation in sorted(_S3.items(), reverse=True)  # those with a parameter come first
        if (verb, key) == (method, has_key) and (not name or name in asked)
    )


@cache
def _operations(service: str) -> dict[str, str]:
    """The operations of a service whose requests have a path each: "POST /v1/submitjob" → SubmitJob."""
    import botocore.session

    model = botocore.session.get_session().get_service_model(service)
    return {
        f"{(http := model.operation_model(name).http)['method']} {http['requestUri']}": name
        for name in model.operation_names
    }
