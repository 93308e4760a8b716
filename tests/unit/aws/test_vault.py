"""Credentials in their places: what is stored, what a second run changes, what a crash leaves, what goes."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import botocore.client
import pytest
from botocore.exceptions import ClientError

from farmhand.aws.credentials import client_side
from farmhand.aws.credentials.credential import Credential, read
from farmhand.aws.credentials.secret import CURRENT, PENDING, PREVIOUS, Secret
from farmhand.aws.credentials.secret_source import SecretSource
from farmhand.aws.credentials.store import stack_key
from farmhand.core.errors import FarmhandError, NotConfigured, UsageError, WireError
from farmhand.core.keys import fingerprint
from tests.unit.aws.conftest import KEY, REFRESH, TOKEN, Proof, conf, login, vault

NAME = "farmhand/try/key"
BUCKET = "farmhand-try-123456789012-us-east-1"
#: A part of a second has to be lost everywhere alike.
YEAR = int(time.time()) + 365 * 86400 + 0.7


def key(text: str = KEY, ends: float | None = None) -> Credential:
    return Credential(kind="key", value=text, fingerprint=fingerprint(text), expires_at=ends, stated=ends is not None)


def stages(name: str = NAME) -> dict[str, list[str]]:
    """Version id → its stages, those without any left out."""
    found = boto3.client("secretsmanager").describe_secret(SecretId=name)["VersionIdsToStages"]
    return {version: sorted(held) for version, held in found.items() if held}


def value(name: str = NAME, stage: str = CURRENT) -> str:
    return str(boto3.client("secretsmanager").get_secret_value(SecretId=name, VersionStage=stage)["SecretString"])


def items() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = boto3.client("dynamodb").scan(TableName="farmhand-try")["Items"]
    return found


def test_a_second_put_changes_nothing_and_asks_nobody(account: Path) -> None:
    proof = Proof()
    first = vault(proof).put(key(ends=YEAR))
    assert first.changed
    assert first.version == key().digest
    assert len(first.version) == 64
    assert value() == KEY
    assert stages() == {first.version: [CURRENT]}
    before = items()
    second = vault(proof).put(key(ends=YEAR))
    assert (second.changed, second.version, second.diff()) == (False, first.version, {})
    assert proof.asked == [KEY]
    assert items() == before
    assert KEY not in json.dumps(items()) + json.dumps(first.document())


def test_the_end_alone_is_a_change_without_a_new_version(account: Path) -> None:
    first = vault().put(key())
    second = vault().put(key(ends=YEAR))
    assert (second.changed, second.version) == (True, first.version)
    assert vault().put(key()).changed is False, "an end that is not told is not taken away"
    assert stages() == {first.version: [CURRENT]}


def test_a_new_one_takes_the_place_of_the_old_which_stays_until_it_is_retired(account: Path) -> None:
    old, new = vault().put(key()), vault().put(key(KEY + "2"))
    assert stages() == {new.version: [CURRENT], old.version: [PREVIOUS]}
    assert new.diff()["before"].splitlines()[0] == f"credential: {fingerprint(KEY)}"
    assert new.diff()["after"].splitlines()[0] == f"credential: {fingerprint(KEY + '2')}"
    assert vault().status(14)[0]["previous"]
    assert vault().retire("key", check=True).changed
    assert vault().retire("key").changed
    assert vault().retire("key").changed is False
    assert stages() == {new.version: [CURRENT]}
    # One that has lost its stage is current again at once, though AWS ignores the repeated put.
    again = vault().put(key())
    assert (again.version, value()) == (old.version, KEY)
    assert stages() == {old.version: [CURRENT], new.version: [PREVIOUS]}


def test_check_mode_does_all_but_the_writing(account: Path) -> None:
    proof = Proof()
    told = vault(proof).put(key(), check=True)
    assert told.changed
    assert proof.asked == [KEY]
    assert told.diff()["before"] == "credential: none\n"
    assert items() == []
    assert not boto3.client("secretsmanager").describe_secret(SecretId=NAME).get("VersionIdsToStages")
    assert not (account / "state").exists()


def test_what_the_api_does_not_take_is_never_stored(account: Path) -> None:
    vault().put(key())
    before, noted = stages(), items()
    proof = Proof()
    proof.error = WireError("dead_key", "https://api does not know the new key (401)")
    with pytest.raises(FarmhandError, match="401"):
        vault(proof).put(key(KEY + "2"))
    assert (stages(), items()) == (before, noted)


@pytest.mark.parametrize("stop", range(1, 6))
def test_a_crash_at_any_call_loses_nothing_and_the_next_put_completes(
    account: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    old = vault().put(key())
    calls = 0

    class Crash(BaseException):
        pass

    real = Secret._move, Secret.store, Secret.tag

    def counted(call: Any) -> Any:
        def wrapped(self: Secret, *given: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == stop:
                raise Crash
            return call(self, *given, **named)

        return wrapped

    with monkeypatch.context() as patch:
        for name, call in zip(("_move", "store", "tag"), real, strict=True):
            patch.setattr(Secret, name, counted(call))
        try:
            vault().put(key(KEY + "2", YEAR))
        except Crash:
            assert value() in (KEY, KEY + "2")
    new = vault().put(key(KEY + "2", YEAR))
    assert value() == KEY + "2"
    assert stages()[new.version] == [CURRENT]
    assert stages().get(old.version, [PREVIOUS]) == [PREVIOUS]
    assert PENDING not in json.dumps(stages())


def test_a_login_is_stored_without_its_refresh_token(account: Path) -> None:
    path = login(account / "l.json", (time.time() + 3 * 3600) * 1000)
    allowed = conf(allow_subscription_cloud=True)
    told = vault(settings=allowed).put(read("login", str(path), allowed))
    assert "refreshToken" not in value("farmhand/try/login")
    assert TOKEN in value("farmhand/try/login")
    assert REFRESH not in value("farmhand/try/login")
    assert any("only the unmodified claude" in note for note in told.notes)
    tags = boto3.client("secretsmanager").describe_secret(SecretId="farmhand/try/login")["Tags"]
    assert {tag["Key"]: tag["Value"] for tag in tags}["farmhand:expires-at"] == told.expires_at


def test_a_secret_that_is_being_deleted_is_restored_and_keeps_its_arn(account: Path) -> None:
    client = boto3.client("secretsmanager")
    vault().put(key())
    arn = client.describe_secret(SecretId=NAME)["ARN"]
    gone = vault().remove("key")
    assert gone.changed
    assert "7 days" in gone.notes[0]
    assert items() == []
    assert vault().status(14) == []
    assert vault().remove("key").changed is False
    vault().put(key(KEY + "2"))
    assert client.describe_secret(SecretId=NAME)["ARN"] == arn
    assert value() == KEY + "2"


def test_without_a_stack_nothing_is_made(empty: Path) -> None:
    for place in ("secretsmanager", "s3"):
        with pytest.raises(NotConfigured, match=r"there is no (stack|bucket) farmhand-try"):
            vault(place=place).put(key())
    assert boto3.client("secretsmanager").list_secrets()["SecretList"] == []
    assert boto3.client("s3").list_buckets()["Buckets"] == []


def test_a_pending_version_without_a_value_is_none(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a schedule of Secrets Manager leaves where its function failed: moto#8504."""
    monkeypatch.setattr("farmhand.aws.credentials.secret._PAUSE_S", 0)
    vault().put(key())
    with suppress(ClientError):
        function = "arn:aws:lambda:us-east-1:123456789012:function:none"
        boto3.client("secretsmanager").rotate_secret(SecretId=NAME, RotationLambdaARN=function)
    assert [PENDING] in stages().values()
    source = SecretSource(NAME, conf())
    assert source.read() == (KEY, None, None)
    source.write((KEY, f"{KEY}2", None))
    assert (value(), value(stage=PENDING)) == (KEY, f"{KEY}2")


def test_two_that_move_the_stages_at_once_say_so(account: Path) -> None:
    vault().put(key())
    with pytest.raises(FarmhandError, match="another command moves the stages") as caught:
        Secret(vault().aws, NAME)._move(CURRENT, "0" * 64, key().digest)
    assert caught.value.hint == "run it again"


def test_an_sdk_that_is_missing_is_found_by_a_check(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aws_encryption_sdk", None)
    with pytest.raises(NotConfigured, match="aws-encryption-sdk"):
        vault(place="s3", client_side=True).put(key(), check=True)


def test_a_key_of_kms_that_is_refused_is_one_line(
    account: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The SDK logs a traceback, and its own error hides the reason of AWS."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    said = "User: me is not authorized to perform: kms:GenerateDataKey on resource: arn:aws:kms:x"

    def refuse(_self: object, name: str, given: object, call: Any = botocore.client.BaseClient._make_api_call) -> Any:
        if name == "GenerateDataKey":
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": said}}, name)
        return call(_self, name, given)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", refuse)
    with pytest.raises(NotConfigured, match="not allowed") as caught:
        vault(place="s3", client_side=True).put(key())
    assert '"Action": "kms:GenerateDataKey"' in caught.value.hint
    assert capsys.readouterr().err == ""


def test_a_table_that_is_missing_is_said(account: Path) -> None:
    boto3.client("dynamodb").delete_table(TableName="farmhand-try")
    assert any("nobody watches" in note for note in vault().put(key()).notes)
    assert vault().put(key()).changed is False


def test_a_refused_credential_is_proven_again_and_its_mark_goes(account: Path) -> None:
    vault().put(key())
    boto3.client("dynamodb").update_item(
        TableName="farmhand-try",
        Key={"pk": {"S": "credential#try#key"}},
        UpdateExpression="SET refused = :t",
        ExpressionAttributeValues={":t": {"S": "2026-11-29T12:00:00Z"}},
    )
    [row] = vault().status(14)
    assert "the API refused it" in row["trouble"]
    proof = Proof()
    assert vault(proof).put(key()).changed
    assert proof.asked == [KEY]
    assert [row["trouble"] for row in vault().status(14)] == [""]


def test_an_object_in_the_bucket(account: Path) -> None:
    keeper, s3 = vault(place="s3"), boto3.client("s3")
    first = keeper.put(key(ends=YEAR))
    assert first.place == f"s3://{BUCKET}/try/credentials/key.json"
    held = s3.get_object(Bucket=BUCKET, Key="try/credentials/key.json")
    assert json.loads(held["Body"].read())["value"] == KEY
    assert (held["ServerSideEncryption"], held["SSEKMSKeyId"]) == ("aws:kms", stack_key(keeper.aws))
    assert KEY not in json.dumps(held["Metadata"])
    tags = s3.get_object_tagging(Bucket=BUCKET, Key="try/credentials/key.json")["TagSet"]
    assert {"Key": "farmhand:expires-at", "Value": first.expires_at} in tags
    assert any("weaker place" in note for note in first.notes)
    second = keeper.put(key(ends=YEAR))
    assert (second.changed, second.version) == (False, first.version)
    keeper.put(key(KEY + "2"))
    assert keeper.retire("key").changed
    assert keeper.retire("key").changed is False
    assert keeper.remove("key").changed
    assert "Versions" not in s3.list_object_versions(Bucket=BUCKET)
    assert "DeleteMarkers" not in s3.list_object_versions(Bucket=BUCKET)


def test_no_acl_is_sent_and_the_bucket_has_to_be_ours_and_keep_versions(
    account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []
    keeper = vault(place="s3")
    client = keeper.aws.client("s3")
    client.meta.events.register("before-parameter-build.s3.*", lambda params, **_: sent.append(dict(params)))
    keeper.put(key())
    assert all(given["ExpectedBucketOwner"] == "123456789012" for given in sent)
    assert not [given for given in sent if "ACL" in given]
    boto3.client("s3").put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})
    with pytest.raises(NotConfigured, match="keeps no versions"):
        vault(place="s3").put(key(KEY + "2"))


def test_encrypted_here_as_well(account: Path) -> None:
    keeper = vault(place="s3", client_side=True)
    told = keeper.put(key())
    assert told.place.endswith("/key.json.esdk")
    message = boto3.client("s3").get_object(Bucket=BUCKET, Key="try/credentials/key.json.esdk")["Body"].read()
    assert KEY.encode() not in message
    arn = stack_key(keeper.aws)
    assert json.loads(client_side.unseal(keeper.aws, message, arn, "try", "key"))["value"] == KEY
    with pytest.raises(FarmhandError, match="is not the git of try"):
        client_side.unseal(keeper.aws, message, arn, "try", "git")
    with pytest.raises(FarmhandError, match="cannot be decrypted"):
        client_side.unseal(keeper.aws, message[:-3] + b"xyz", arn, "try", "key")
    assert keeper.put(key()).changed is False
    assert vault().remove("key").changed, "where it is, the table knows"


def test_a_message_without_key_commitment_is_not_read(account: Path) -> None:
    from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient, StrictAwsKmsMasterKeyProvider
    from aws_encryption_sdk.identifiers import AlgorithmSuite

    aws = vault().aws
    arn = stack_key(aws)
    old = EncryptionSDKClient(commitment_policy=CommitmentPolicy.FORBID_ENCRYPT_ALLOW_DECRYPT)
    message, _ = old.encrypt(
        source=b"x",
        key_provider=StrictAwsKmsMasterKeyProvider(key_ids=[arn]),
        encryption_context=client_side.context("try", "key"),
        algorithm=AlgorithmSuite.AES_256_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384,
    )
    with pytest.raises(FarmhandError, match="cannot be decrypted"):
        client_side.unseal(aws, message, arn, "try", "key")


def test_a_kms_key_is_an_arn_and_no_alias(account: Path) -> None:
    for text in ("alias/mine", "arn:aws:kms:us-east-1:123456789012:alias/mine", "1234abcd"):
        with pytest.raises(UsageError, match="--kms-key is not the ARN of a key"):
            vault(kms_key=text, place="s3")
    own = boto3.client("kms").create_key()["KeyMetadata"]["Arn"]
    vault(kms_key=own, place="s3").put(key())
    assert boto3.client("s3").head_object(Bucket=BUCKET, Key="try/credentials/key.json")["SSEKMSKeyId"] == own


def test_the_status_tells_what_is_wrong(account: Path) -> None:
    vault().put(key(ends=time.time() + 5 * 86400 + 60))
    assert "ends in 5 days" in vault().status(14)[0]["trouble"]
    assert vault().status(3)[0]["trouble"] == ""
    assert "ended at" in vault().status(14, now=YEAR)[0]["trouble"]
    boto3.client("secretsmanager").put_secret_value(SecretId=NAME, SecretString="sk-ant-test-by-somebody-else-00")
    [row] = vault().status(3)
    assert (row["fingerprint"], "put there by something else" in row["trouble"]) == ("", True)
    boto3.client("secretsmanager").delete_secret(SecretId=NAME)
    assert "not in secretsmanager:farmhand/try/key any more" in vault().status(3)[0]["trouble"]


def test_a_renewed_source_is_put_again(account: Path) -> None:
    allowed = conf(allow_subscription_cloud=True)
    path = login(account / "l.json", (time.time() + 3600) * 1000)
    vault(settings=allowed).put(read("login", str(path), allowed), source=str(path))
    [same], _ = vault(settings=allowed).renew()
    assert not same.changed
    login(path, (time.time() + 8 * 3600) * 1000)
    [renewed], _ = vault(settings=allowed).renew()
    assert renewed.changed
    assert vault(settings=allowed).status(14)[0]["days_left"] > 0.3


def test_a_stage_that_aws_shows_but_does_not_find_yet_is_asked_for_again(
    account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aws-sdk-js-v3#7701: right after PutSecretValue, GetSecretValue may not find AWSPENDING."""
    keeper = vault()
    keeper.put(key())
    secret = Secret(keeper.aws, NAME)
    secret.store(KEY + "2", key(KEY + "2").digest)
    client, asked = keeper.aws.client("secretsmanager"), 0
    real = client.get_secret_value

    def late(**given: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": "no"}}, "GetSecretValue")
        return real(**given)

    monkeypatch.setattr(client, "get_secret_value", late)
    monkeypatch.setattr("farmhand.aws.credentials.secret._PAUSE_S", 0.0)
    assert (secret.value(PENDING), asked) == (KEY + "2", 3)
    asked = -99
    with pytest.raises(NotConfigured, match="with a version at AWSPREVIOUS"):
        secret.value(PREVIOUS)
    assert asked == -98, "what AWS does not show is not waited for"


def test_a_head_that_is_refused_says_what_to_add(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """s3fs#591, django-storages#1104: without s3:ListBucket, HEAD of what is not there is a bare 403."""
    keeper = vault(place="s3")

    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "HeadObject")

    monkeypatch.setattr(keeper.aws.client("s3"), "head_object", refuse)
    with pytest.raises(NotConfigured, match="refuses to say") as caught:
        keeper.put(key())
    assert "s3:ListBucket" in caught.value.hint
