"""Bucket policies of S3 with their conditions, and ACLs where the bucket's owner enforces ownership."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable
from typing import Any

from flask import request
from moto.iam.access_control import PermissionResult
from moto.s3 import models, responses
from moto.s3.exceptions import S3ClientError
from moto.sts.models import sts_backends

from tests.support.fakeaws.options import ACCOUNT

#: Operator of a condition → whether the value of the request (None: it has none) fits one of the policy's.
_FITS: dict[str, Callable[[str | None, str], bool]] = {
    "StringEquals": lambda value, wanted: value == wanted,
    "StringEqualsIgnoreCase": lambda value, wanted: value is not None and value.lower() == wanted.lower(),
    "StringLike": lambda value, wanted: value is not None and fnmatch.fnmatchcase(value, wanted),
    "ArnEquals": lambda value, wanted: value is not None and fnmatch.fnmatchcase(value, wanted),
    "ArnLike": lambda value, wanted: value is not None and fnmatch.fnmatchcase(value, wanted),
    "Bool": lambda value, wanted: value == wanted.lower(),
    "Null": lambda value, wanted: (value is None) == (wanted.lower() == "true"),
}
#: moto's names of actions → those of policies.
_ACTIONS = {"s3:PostObject": "s3:PutObject", "s3:HeadObject": "s3:GetObject"}
#: Parts of a bucket → their names in actions.
_PARTS = {"policy": "BucketPolicy", "versioning": "BucketVersioning", "lifecycle": "LifecycleConfiguration"}
_ACL_HEADERS = ("x-amz-acl", "x-amz-grant-")


def change() -> None:
    """Change moto."""
    handled = responses.S3Response._bucket_response, responses.S3Response._key_response
    responses.S3Response._bucket_response = _checked(handled[0])
    responses.S3Response._key_response = _checked(handled[1])
    models.FakeBucket.get_permission = permission


def _checked(respond: Any) -> Any:
    def answer(self: Any, *args: Any, **kwargs: Any) -> Any:
        for refuse in (_refuse_acl, _refuse_by_policy):
            refuse(self)
        return respond(self, *args, **kwargs)

    return answer


def _bucket(self: Any) -> Any:
    name = self.bucket_name
    return self.backend.buckets.get(name) if name else None


def _refuse_acl(self: Any) -> None:
    """Source: the S3 user guide, "Disabling ACLs": full control for the owner may be said, nothing else."""
    bucket = _bucket(self)
    if bucket is None or _ownership(bucket) != "BucketOwnerEnforced" or request.method not in ("PUT", "POST"):
        return
    said = {key.lower(): value for key, value in request.headers.items() if key.lower().startswith(_ACL_HEADERS)}
    if "acl" in request.args or any(item != ("x-amz-acl", "bucket-owner-full-control") for item in said.items()):
        raise S3ClientError("AccessControlListNotSupported", "The bucket does not allow ACLs")


def _ownership(bucket: Any) -> str:
    """Since April 2023 a new bucket is BucketOwnerEnforced, unless it says otherwise."""
    found = re.search(r"ObjectWriter|BucketOwnerPreferred|BucketOwnerEnforced", str(bucket.ownership_rule))
    return found[0] if found else "BucketOwnerEnforced"


def _refuse_by_policy(self: Any) -> None:
    """An answer with S3's own code, where moto's has none."""
    bucket = _bucket(self)
    if bucket is None or bucket.policy is None:
        return
    key = self.parse_key_name() if request.path.strip("/").count("/") else ""
    resource = f"arn:aws:s3:::{bucket.name}" + (f"/{key}" if key else "")
    if bucket.get_permission(_action(bool(key)), resource) == PermissionResult.DENIED:
        raise AccessDeniedError


class AccessDeniedError(S3ClientError):  # type: ignore[misc]
    code = "AccessDenied"

    def __init__(self) -> None:
        super().__init__("AccessDenied", "Access Denied")


def _action(of_object: bool) -> str:
    """The policy action of this request."""
    method, args = request.method, request.args
    if of_object:
        for part, name in (("tagging", "Tagging"), ("acl", "Acl"), ("retention", "Retention")):
            if part in args:
                return f"s3:{method.capitalize()}Object{name}"
        verb = {"HEAD": "Get", "GET": "Get", "DELETE": "Delete"}.get(method, "Put")
        version = "Version" if "versionId" in args and verb in ("Get", "Delete") else ""
        return f"s3:{verb}Object{version}"
    for part, name in _PARTS.items():
        if part in args:
            return f"s3:{method.capitalize()}{name}"
    if "versions" in args:
        return "s3:ListBucketVersions"
    return {"GET": "s3:ListBucket", "HEAD": "s3:ListBucket", "DELETE": "s3:DeleteBucket"}.get(method, "s3:PutBucket")


def permission(self: Any, action: str, resource: str) -> Any:
    """What the bucket's policy says about an action of this request's caller."""
    if self.policy is None:
        return PermissionResult.NEUTRAL
    action, result = _ACTIONS.get(action, action), PermissionResult.NEUTRAL
    for statement in _listed(json.loads(self.policy)["Statement"]):
        if _concerns(statement, action, resource) and _holds(statement.get("Condition", {})):
            if statement["Effect"] == "Deny":
                return PermissionResult.DENIED
            result = PermissionResult.PERMITTED
    return result


def _concerns(statement: dict[str, Any], action: str, resource: str) -> bool:
    if not _hits(statement, "Action", action.lower(), str.lower) or not _hits(statement, "Resource", resource, str):
        return False
    for key, wanted in (("Principal", True), ("NotPrincipal", False)):
        if key in statement:
            return _is_caller(statement[key]) is wanted
    return False


def _hits(statement: dict[str, Any], key: str, value: str, form: Callable[[str], str]) -> bool:
    if f"Not{key}" in statement:
        return not any(fnmatch.fnmatchcase(value, form(one)) for one in _listed(statement[f"Not{key}"]))
    return any(fnmatch.fnmatchcase(value, form(one)) for one in _listed(statement[key]))


def _is_caller(principal: Any) -> bool:
    if principal == "*":
        return True
    names = _listed(principal.get("AWS", [])) if isinstance(principal, dict) else []
    who = caller()
    return any(name in ("*", who, ACCOUNT) for name in names)


def _holds(conditions: dict[str, dict[str, Any]]) -> bool:
    for operator, pairs in conditions.items():
        plain = operator.removesuffix("IfExists").rpartition(":")[2]
        positive = plain.replace("Not", "", 1)
        for key, wanted in pairs.items():
            value = _of_request(key.lower())
            if value is None and operator.endswith("IfExists"):
                continue
            if any(_FITS[positive](value, str(one)) for one in _listed(wanted)) == ("Not" in plain):
                return False
    return True


def caller() -> str | None:
    """The ARN of the role whose session signed the request; the account's root for other keys; None without any."""
    signed = request.headers.get("Authorization", "") + request.args.get("X-Amz-Credential", "")
    key = re.search(r"(?:Credential=)?([^/=\s]+)/\d{8}/", signed)
    if key is None:
        return None
    sessions = [role for backend in sts_backends[ACCOUNT].values() for role in backend.assumed_roles]
    role = next((role for role in sessions if role.access_key_id == key[1]), None)
    return str(role.role_arn) if role else f"arn:aws:iam::{ACCOUNT}:root"


def _of_request(key: str) -> str | None:
    """The value of a condition key. A request over plain HTTP is taken for TLS unless a header says otherwise."""
    if key == "aws:principalarn":
        return caller()
    if key == "aws:principalaccount":
        return ACCOUNT if caller() else None
    if key == "aws:securetransport":
        return "true" if request.headers.get("X-Forwarded-Proto", "https") == "https" else "false"
    if key == "aws:sourcevpce":
        return request.headers.get("X-Fake-Vpce")
    if key.startswith("s3:x-amz-"):
        return request.headers.get(key[3:])
    return request.args.get(key.removeprefix("s3:"))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
