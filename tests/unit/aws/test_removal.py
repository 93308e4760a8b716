"""What AWS does not remove, or does not take any more, and answers all the same: it is said by name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest
from botocore.exceptions import ClientError

from farmhand.aws.client import Aws
from farmhand.aws.credentials.secret import Secret
from farmhand.aws.environment import attached, data
from farmhand.aws.environment.stacks import Stack, Stacks
from farmhand.aws.places.bucket import BatchBucket
from farmhand.core.errors import FarmhandError, NotConfigured, Refused
from tests.unit.aws.conftest import conf

DOCUMENT = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}]}'
TRUST = '{"Version": "2012-10-17", "Statement": []}'


def stacks(arn: str) -> Stacks:
    """The base stack with this policy."""
    made = Stack("farmhand-try", "CREATE_COMPLETE", "", {"OperatorPolicyArn": arn} if arn else {}, {}, 0.0, 0.0)
    return cast(Stacks, SimpleNamespace(look=lambda _name: made))


@pytest.mark.parametrize("kind", ["user", "role", "group"])
def test_a_policy_that_somebody_has_keeps_its_stack(account: Path, kind: str) -> None:
    iam, aws = boto3.client("iam"), Aws(conf())
    arn = iam.create_policy(PolicyName="farmhand-try-operator", PolicyDocument=DOCUMENT)["Policy"]["Arn"]
    attached.check_detached(aws, stacks(arn))
    if kind == "user":
        iam.create_user(UserName="me")
        iam.attach_user_policy(UserName="me", PolicyArn=arn)
    elif kind == "group":
        iam.create_group(GroupName="me")
        iam.attach_group_policy(GroupName="me", PolicyArn=arn)
    else:
        iam.create_role(RoleName="me", AssumeRolePolicyDocument=TRUST)
        iam.attach_role_policy(RoleName="me", PolicyArn=arn)
    with pytest.raises(Refused, match=f"attached to the {kind} me") as caught:
        attached.check_detached(aws, stacks(arn))
    assert caught.value.hint == f"aws iam detach-{kind}-policy --{kind}-name me --policy-arn {arn}"


def test_a_stack_without_the_policy_keeps_nothing(account: Path) -> None:
    attached.check_detached(Aws(conf()), stacks(""))
    attached.check_detached(Aws(conf()), stacks("arn:aws:iam::123456789012:policy/gone"))


@pytest.mark.parametrize(
    ("code", "error", "hint"),
    [("AccessDenied", NotConfigured, "s3:DeleteObjectVersion"), ("Busy", FarmhandError, "run it again")],
)
def test_a_version_that_stays_is_named_although_s3_answers_200(
    account: Path, monkeypatch: pytest.MonkeyPatch, code: str, error: type[FarmhandError], hint: str
) -> None:
    """boto/boto3#2884: the bucket would only be said not to be empty."""
    aws = Aws(conf())
    s3 = aws.client("s3")
    s3.put_object(Bucket=aws.names.bucket, Key="a", Body=b"1")
    answer: dict[str, Any] = {"Errors": [{"Key": "a", "VersionId": "1", "Code": code, "Message": "no"}]}
    monkeypatch.setattr(s3, "delete_objects", lambda **_given: answer)
    with pytest.raises(error, match=f"1 version stays in the bucket {aws.names.bucket}: {code}, a") as caught:
        data._remove_bucket(aws, aws.names.bucket)
    assert hint in str(caught.value.hint)


def test_a_secret_that_takes_no_more_versions_today_says_so(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """platform-engineering-labs/formae#746: nobody can ask for more of this quota."""
    secret = Secret(Aws(conf()), "farmhand/try/key")

    def full(**_given: Any) -> Any:
        raise ClientError({"Error": {"Code": "LimitExceededException", "Message": "no"}}, "PutSecretValue")

    monkeypatch.setattr(secret._client, "put_secret_value", full)
    with pytest.raises(Refused, match="as many versions as AWS keeps") as caught:
        secret.store("x", "0" * 64)
    assert "tomorrow" in str(caught.value.hint)


def test_every_call_of_s3_is_for_a_bucket_of_this_account(account: Path, tmp_path: Path) -> None:
    """aws/agent-toolkit-for-aws#305: whoever has taken the bucket's name would get prompts and results."""
    aws, sent = Aws(conf()), list[dict[str, Any]]()
    aws.client("s3").meta.events.register("before-parameter-build.s3", lambda params, **_: sent.append(dict(params)))
    bucket, path = BatchBucket(aws), tmp_path / "file"
    path.write_bytes(b"x")
    bucket.put("a", b"1")
    assert (bucket.put_new("b", b"1"), bucket.get("a"), [*bucket.keys("a")]) == (True, b"1", ["a"])
    assert [*bucket.lines("a")] == [b"1"]
    bucket.download("c", tmp_path / "copy", 9, bucket.upload("c", path))
    with pytest.raises(NotConfigured, match="there, but not the stack that it belongs to"):
        data.check_orphans(aws, cast(Stacks, SimpleNamespace(look=lambda _name: None)))
    data._remove_bucket(aws, aws.names.bucket)
    assert len(sent) >= 10
    assert {given.get("ExpectedBucketOwner") for given in sent} == {aws.account}


def test_a_bucket_of_another_account_is_named_before_anything_is_made(
    account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was `not allowed: Forbidden (ask who administers the account)`."""
    aws = Aws(conf())

    def refused(**_given: Any) -> Any:
        raise ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "HeadBucket")

    monkeypatch.setattr(aws.client("s3"), "head_bucket", refused)
    with pytest.raises(NotConfigured, match=f"the bucket {aws.names.bucket} is there, and either another account's"):
        data.check_orphans(aws, cast(Stacks, SimpleNamespace(look=lambda _name: None)))
