"""What holds data, and is removed only when that is asked for: buckets with all versions, table, key."""

from __future__ import annotations

from typing import Any

from farmhand.aws.client import Aws
from farmhand.aws.environment.stacks import Stacks
from farmhand.aws.errors import code_of, explained
from farmhand.aws.names import KINDS
from farmhand.core.errors import FarmhandError, NotConfigured
from farmhand.core.readable import counted

#: Days in which AWS still gives a key back. Source: ScheduleKeyDeletion, 7 to 30.
KEY_DAYS = 30
_GONE = frozenset({"NoSuchBucket", "404", "ResourceNotFoundException", "NotFoundException", "KMSInvalidStateException"})
#: An answer to HEAD of a bucket has no reason.
_REFUSED = frozenset({"403", "AccessDenied"})


def check_orphans(aws: Aws, stacks: Stacks) -> None:
    """Raise NotConfigured if a bucket or a secret is there without its stack, which could not be made then."""
    names, choose = aws.names, "or choose another aws_environment"
    if stacks.look(names.data) is None:
        for bucket in (names.bucket, names.trail_bucket):
            if _is_there(aws, "s3", "head_bucket", Bucket=bucket):
                hint = f"import it into the stack {names.data}, delete it, {choose}"
                raise NotConfigured(f"the bucket {bucket} is there, but not the stack that it belongs to", hint=hint)
    if stacks.look(names.base) is None:
        for secret in map(names.secret, KINDS):
            if _is_there(aws, "secretsmanager", "describe_secret", SecretId=secret):
                message = f"the secret {secret} is there, but not the stack that it belongs to"
                takes = "aws secretsmanager delete-secret --force-delete-without-recovery --secret-id"
                raise NotConfigured(message, hint=f"{takes} {secret}, {choose}")


def _is_there(aws: Aws, service: str, call: str, **given: str) -> bool:
    [what] = given.values()
    with explained(f"looking for {what}"):
        try:
            getattr(aws.client(service), call)(**given)
        except Exception as error:
            if service == "s3" and code_of(error) in _REFUSED:
                message = f"the bucket {what} is there, and either another account's or kept from you"
                hint = "choose another aws_environment, or ask who administers the account for s3:ListBucket"
                raise NotConfigured(message, hint=hint) from None
            if code_of(error) not in _GONE:
                raise
            return False
    return True


def delete_data(aws: Aws, stacks: Stacks) -> list[str]:
    """Remove what the data stack keeps (objects and versions, table, key) and the stack. Return what was removed.

    The key can be had back for KEY_DAYS. Raise FarmhandError; it can be called again.
    """
    names = aws.names
    stack = stacks.look(names.data)
    key = stack.outputs.get("KeyArn", "") if stack else ""
    removed = []
    for bucket in (names.bucket, names.trail_bucket):
        if _remove_bucket(aws, bucket):
            removed.append(f"bucket {bucket}")
    with explained(f"removing the table {names.base}"):
        try:
            aws.client("dynamodb").delete_table(TableName=names.base)
            removed.append(f"table {names.base}")
        except Exception as error:
            if code_of(error) not in _GONE:
                raise
    if key:
        with explained("removing the key"):
            try:
                aws.client("kms").schedule_key_deletion(KeyId=key.rpartition("/")[2], PendingWindowInDays=KEY_DAYS)
                removed.append(f"key {key} (in {KEY_DAYS} days)")
            except Exception as error:
                if code_of(error) not in _GONE:
                    raise
    # Last, so that a command that was stopped before can be repeated: it knows the key.
    if stacks.delete(names.data):
        removed.append(names.data)
    return removed


def _check_deleted(bucket: str, failed: list[dict[str, Any]]) -> None:
    """Raise FarmhandError for objects that stay: S3 answers 200 all the same (boto/boto3#2884)."""
    if not failed:
        return
    code, key = str(failed[0].get("Code")), failed[0].get("Key")
    what = f"{counted(len(failed), 'version stays', 'versions stay')} in the bucket {bucket}: {code}, {key}"
    if code == "AccessDenied":
        hint = f'add {{"Effect": "Allow", "Action": "s3:DeleteObjectVersion", "Resource": "arn:aws:s3:::{bucket}/*"}}'
        raise NotConfigured(what, hint=f"{hint} to the policy of your AWS user or role")
    raise FarmhandError(what, hint="then run it again")


def _remove_bucket(aws: Aws, bucket: str) -> bool:
    """Remove a bucket with every version of every object. Return whether it was there."""
    s3 = aws.client("s3")
    with explained(f"emptying the bucket {bucket}"):
        try:
            for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
                found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
                if found:
                    doomed = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
                    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": doomed, "Quiet": True})
                    _check_deleted(bucket, answer.get("Errors") or [])
            s3.delete_bucket(Bucket=bucket)
        except Exception as error:
            if code_of(error) in _GONE:
                return False
            raise
    return True
