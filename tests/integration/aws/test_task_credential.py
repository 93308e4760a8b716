"""What runs on which credential of an environment, and what is refused before anything is started."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import boto3
import pytest

from farmhand.aws.environment import credential_source, task_credential
from farmhand.aws.places.batch_place import AwsBatchPlace
from farmhand.aws.places.plan_lock import PlanLock
from farmhand.core.errors import FarmhandError, NotConfigured, Refused, UsageError
from farmhand.core.settings import Settings
from farmhand.core.task_access import CloneOrder
from farmhand.places.base import PlaceSettings
from tests.integration.aws.test_run_task import Ecs, Single, ends
from tests.support import aws_place

ALLOWED = Settings(allow_subscription_cloud=True)


def item(single: Single) -> dict[str, Any]:
    client = boto3.client("dynamodb", region_name=aws_place.REGION)
    found: dict[str, Any] = client.get_item(TableName="farmhand-test", Key={"pk": {"S": "plan#test"}}).get("Item") or {}
    return found


def put_item(**values: Any) -> None:
    held = {name: {"N": str(v)} if isinstance(v, int) else {"S": v} for name, v in values.items()}
    boto3.client("dynamodb", region_name=aws_place.REGION).put_item(TableName="farmhand-test", Item=held)


@pytest.mark.parametrize("kind", ["setup-token", "login"])
def test_a_plan_s_token_serves_one_task_that_asks_for_it(kind: str) -> None:
    with aws_place.environment(CredentialKind=kind):
        single = Single()
        with pytest.raises(Refused, match="which is of your plan") as caught:
            single.task("cli")
        assert "--subscription" in caught.value.hint
        single.ecs.plays = [single.leaves(residency="subscription", cost_usd=None, list_usd=0.5)]
        result = single.task("cli", subscription=True).run()
        assert (result["residency"], result["cost_usd"], result["list_usd"]) == ("subscription", None, 0.5)
        assert item(single) == {}


@pytest.mark.parametrize("kind", ["setup-token", "login"])
def test_a_batch_never_runs_on_a_plan(kind: str) -> None:
    with aws_place.environment(CredentialKind=kind):
        aws = aws_place.FakeAws(aws_place.FakeBatch(aws_place.Child()))
        with pytest.raises(Refused, match="a batch never runs on your plan") as caught:
            AwsBatchPlace(PlaceSettings(project_dir=Path(), conf=aws_place.CONF), aws)
        assert caught.value.exit_code == 5


def test_a_plan_is_asked_for_where_there_is_none() -> None:
    with aws_place.environment():
        single = Single()
        with pytest.raises(Refused, match="is a key, and --subscription is for a setup-token"):
            single.task("cli", subscription=True)
        assert single.objects() == []


def test_the_setting_is_needed_as_well_and_nothing_is_asked_for_that() -> None:
    with pytest.raises(Refused) as caught:
        task_credential.check_allowed(Settings(), subscription=True)
    assert "read docs/subscription.md first" in caught.value.hint
    task_credential.check_allowed(ALLOWED, subscription=True)
    task_credential.check_allowed(Settings(), subscription=False)


def test_one_task_at_a_time_runs_on_a_plan() -> None:
    with aws_place.environment(CredentialKind="setup-token"):
        single = Single()
        now = int(time.time())
        put_item(pk="plan#test", holder="other", since=now, until=now + 600)
        task = single.task("cli", subscription=True)
        with pytest.raises(Refused, match="the task other runs on your plan") as caught:
            task.run()
        assert "farmhand cloud cancel other" in caught.value.hint
        assert single.objects() == []
        # What has ended long ago, and what the same task has, is no obstacle.
        for held in ({"holder": "other", "since": now - 9000, "until": now - 1}, {"holder": "t1", "since": now}):
            put_item(pk="plan#test", **{"until": now + 600} | held)
            single.ecs.plays = [single.leaves()]
            assert single.task("cli", subscription=True).run()["text"] == "hi"
            assert item(single) == {}


def test_what_a_dead_command_left_is_taken_over_when_its_task_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from farmhand.aws.environment import running

    with aws_place.environment(CredentialKind="setup-token"):
        single = Single()
        now = int(time.time())
        put_item(pk="plan#test", holder="dead", since=now - 300, until=now + 9000)
        lock = PlanLock(single.aws)
        monkeypatch.setattr(running, "everything", lambda _aws: [type("R", (), {"task": "dead"})()])
        with pytest.raises(Refused, match="the task dead runs"):
            lock.take("mine", 60)
        monkeypatch.setattr(running, "everything", lambda _aws: [])
        lock.take("mine", 60)
        assert item(single)["holder"] == {"S": "mine"}
        lock.give_back("another")
        assert item(single)["holder"] == {"S": "mine"}
        lock.give_back("mine")
        assert item(single) == {}


def test_a_failed_task_keeps_the_plan_only_until_it_is_known_to_be_over() -> None:
    with aws_place.environment(CredentialKind="setup-token"):
        single = Single()
        single.ecs.plays = [ends("Essential container in task exited", 78, "EssentialContainerExited")]
        with pytest.raises(FarmhandError, match="exit status 78"):
            single.task("cli", subscription=True).run()
        assert item(single) == {}


@pytest.mark.parametrize(("left_s", "said"), [(7200, ""), (300, "the login ends at 20")])
def test_a_login_that_ends_during_the_task_is_said_before(left_s: int, said: str) -> None:
    with aws_place.environment(CredentialKind="login"):
        single = Single()
        put_item(pk="credential#test#login", place="x", fingerprint="y", expires_at=int(time.time()) + left_s)
        single.task("cli", subscription=True, task={"timeout_s": 600.0})
        assert [said in line for line in single.said] == [True] * bool(said)
        put_item(pk="credential#test#login", place="x", fingerprint="y", expires_at=int(time.time()) - 5)
        with pytest.raises(Refused, match="has ended at 20"):
            single.task("cli", subscription=True)


@pytest.mark.parametrize(
    ("about", "said", "hint"),
    [
        ({}, "have no credential: no secret, and no federation", "credential put --kind federation"),
        ({"FederationRule": "fdrl_x"}, "has no endpoint of sts", "aws_federation=true"),
        ({"FederationRule": "fdrl_x", "Federation": "true"}, "", ""),
        ({"FederationRule": "fdrl_x", "mode": "public"}, "", ""),
    ],
)
def test_a_federation_needs_its_ids_and_a_way_to_sts(about: dict[str, Any], said: str, hint: str) -> None:
    with aws_place.environment(CredentialKind="none", **about):
        single = Single()
        if said:
            with pytest.raises(NotConfigured, match=said) as caught:
                single.task()
            assert hint in caught.value.hint
            assert single.objects() == []
            return
        single.ecs.plays = [single.leaves()]
        assert single.task().run()["text"] == "hi"
        with pytest.raises(Refused, match="is a federation"):
            single.task(subscription=True)
    assert Ecs().requests == []


OWN = "s3://farmhand-test-123456789012-us-east-1/test/credentials/key.json"
MINE = "s3://mine/deep/key.txt"


@pytest.mark.parametrize(
    ("source", "about", "said", "hint"),
    [
        ("federation", {}, "has no parameter FederationRule", "--kind federation"),
        ("secretsmanager:other", {}, "it is not that one", "CredentialKind"),
        ("image:", {}, "names no image with a credential", "aws_baked_image=true"),
        ("secretsmanager:farmhand/test/key", {"more": {"BakedImageUri": "x@y"}}, "get no secret", "leave out"),
        (OWN, {}, "see the parameter S3Credential", "aws_credential_in_bucket=true"),
        (f"{OWN}.esdk", {"S3Credential": "true"}, "was encrypted here", "--client-side"),
        (MINE, {}, "see the parameter ExtraCredentialArn", "aws_extra_credential_arn=arn:aws:s3:::mine/deep/key.txt"),
        (MINE, {"ExtraCredentialArn": "arn:aws:s3:::mine/other"}, "see the parameter ExtraCredentialArn", "aws_extra"),
        (MINE, {"ExtraCredentialArn": "arn:aws:s3:::mine/*"}, "a private network reaches no other bucket", "public"),
    ],
)
def test_a_source_that_tasks_may_not_use_names_the_parameter(
    source: str, about: dict[str, Any], said: str, hint: str
) -> None:
    with aws_place.environment(**about):
        single = Single()
        with pytest.raises(Refused, match=said) as caught:
            single.task("code", source=source)
        assert (caught.value.exit_code, hint in caught.value.hint) == (5, True)
        assert (single.objects(), single.ecs.requests) == ([], [])


@pytest.mark.parametrize(
    ("source", "about"),
    [
        ("federation", {"FederationRule": "fdrl_x", "Federation": "true"}),
        ("secretsmanager:farmhand/test/key", {}),
        (OWN, {"S3Credential": "true"}),
        (MINE, {"ExtraCredentialArn": "arn:aws:s3:::mine/*", "mode": "public"}),
    ],
)
def test_a_source_that_tasks_may_use_is_in_the_container_s_environment(source: str, about: dict[str, Any]) -> None:
    with aws_place.environment(**about):
        single = Single()
        single.ecs.plays = [single.leaves()]
        assert single.task("code", source=source).run()["text"] == "hi"
        [request] = single.ecs.requests
        [container] = request["overrides"]["containerOverrides"]
        values = {one["name"]: one["value"] for one in container["environment"]}
        assert values.get("FARMHAND_CREDENTIAL_SOURCE") == (None if source.startswith("secrets") else source)
        assert values.get("FARMHAND_SUBSCRIPTION", "false") == "false"


DIGEST = f"sha256:{'5' * 64}"
BAKED = "farmhand-test/farmhand-worker-baked"
URI = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/{BAKED}"
#: The outputs of a base stack whose agent container has an image with a credential in it.
OF_IMAGE = {"BakedRepositoryUri": URI, "BakedImageUri": f"{URI}@{DIGEST}"}


def pushed(tag: str, digest: str = DIGEST) -> None:
    """Put an image into moto's repository of images with a credential."""
    ecr = boto3.client("ecr", region_name=aws_place.REGION)
    ecr.create_repository(repositoryName=BAKED)
    manifest = '{"mediaType": "application/vnd.oci.image.manifest.v1+json", "config": {}, "layers": []}'
    ecr.put_image(repositoryName=BAKED, imageManifest=manifest, imageTag=tag, imageDigest=digest)


@pytest.mark.parametrize("source", ["", "image:"])
def test_a_task_runs_on_the_credential_of_the_agent_s_image_without_any_secret(source: str) -> None:
    with aws_place.environment(secret=False, more=OF_IMAGE):
        pushed("key-abc")
        single = Single()
        single.ecs.plays = [single.leaves()]
        assert single.task(source=source).run()["text"] == "hi"
        [request] = single.ecs.requests
        [container] = request["overrides"]["containerOverrides"]
        # The definition says it; an override would be for one task alone.
        assert "FARMHAND_CREDENTIAL_SOURCE" not in {one["name"] for one in container["environment"]}


@pytest.mark.parametrize(
    ("tag", "digest", "about", "said", "exit_code"),
    [
        ("key-abc", f"sha256:{'6' * 64}", {}, "is not there, or has no key in it", 3),
        ("setup-token-abc", DIGEST, {}, "is not there, or has no key in it", 3),
        ("key-abc", DIGEST, {"CredentialKind": "login"}, "is not there, or has no login in it", 3),
        ("key-abc", DIGEST, {"mode": "public"}, "not for tasks that reach the internet", 5),
    ],
)
def test_an_image_that_tasks_cannot_use_is_found_before_anything_starts(
    tag: str, digest: str, about: dict[str, Any], said: str, exit_code: int
) -> None:
    with aws_place.environment(more=OF_IMAGE, **about):
        pushed(tag, digest)
        single = Single()
        with pytest.raises(FarmhandError, match=said) as caught:
            single.task("cli", subscription=about.get("CredentialKind") == "login")
        assert caught.value.exit_code == exit_code
        assert (single.objects(), single.ecs.requests) == ([], [])


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("image:x", UsageError),
        ("s3://", UsageError),
        ("s3://B/x", UsageError),
        ("key", UsageError),
        (" ", UsageError),
    ],
)
def test_a_source_of_no_form_is_refused_before_anything_is_asked(source: str, kind: type[FarmhandError]) -> None:
    with pytest.raises(kind):
        credential_source.check_form(source)


@pytest.mark.parametrize(
    ("about", "said", "exit_code"),
    [
        ({}, "there is no way to a git server", 5),
        ({"mode": "public"}, "gives repository tasks no git token", 3),
        ({"mode": "public", "CloneInTask": "true"}, "farmhand/test/git", 3),
    ],
)
def test_a_task_that_cannot_clone_is_not_started(about: dict[str, Any], said: str, exit_code: int) -> None:
    with aws_place.environment(**about):
        single = Single()
        with pytest.raises(FarmhandError, match=said) as caught:
            single.task("code", clone=CloneOrder(url="https://example.org/x.git"))
        assert caught.value.exit_code == exit_code
        assert (single.objects(), single.ecs.requests) == ([], [])
