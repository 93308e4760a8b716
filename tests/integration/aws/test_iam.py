"""What each role may do and what it may not, judged by an independent evaluator on the policies as they are deployed.

Each case is one request that is allowed, and near misses of it that are not.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.aws.iam_builder_cases import BUILDER_CASES
from tests.integration.aws.iam_cases import ADMINS, ANYTHING, BUCKET, CASES, REGION, ROLE, ROLES, SECRET
from tests.support.aws_rights import BUILDER
from tests.support.cloud import ROOT, deploy, outputs
from tests.support.fakeaws.client import ACCOUNT, FakeAws
from tests.support.iam import Ask, allowed

ALL_CASES = [*CASES, *BUILDER_CASES]


class World:
    """The deployed policies, and what makes a request out of a row."""

    def __init__(self, aws: FakeAws) -> None:
        deploy(aws, Operators=f"{ROLE}*operator", FarmHosts="farm1")
        given = {"CredentialKind": "none", "FederationRule": "rule", "S3Credential": "true", "CloneInTask": "true"}
        deploy(aws, "fed", ("data", "base"), **given)
        self.key = outputs(aws)["KeyArn"]
        iam, secrets = aws.client("iam"), aws.client("secretsmanager")
        self.secrets = {
            name: secrets.describe_secret(SecretId=f"farmhand/prod/{name}")["ARN"]
            for name in ("key", "setup-token", "login", "git")
        }
        self.secrets["git of fed"] = secrets.describe_secret(SecretId="farmhand/fed/git")["ARN"]
        self.identity: dict[str, tuple[Any, ...]] = dict.fromkeys(ADMINS, (ANYTHING,))
        deploy(aws, "baked", ("data", "base"), BakedImage="true")
        baked = tuple(f"baked-{name}" for name in ("task", "execution"))
        for role in (*(f"prod-{name}" for name in ROLES), "fed-task", "fed-execution", *baked):
            names = iam.list_role_policies(RoleName=f"farmhand-{role}")["PolicyNames"]
            documents = [iam.get_role_policy(RoleName=f"farmhand-{role}", PolicyName=name) for name in names]
            self.identity[role] = tuple(one["PolicyDocument"] for one in documents)
        for user, environment in (("user", "prod"), ("baker", "baked")):
            policy = outputs(aws, environment)["OperatorPolicyArn"]
            version = iam.get_policy(PolicyArn=policy)["Policy"]["DefaultVersionId"]
            document = iam.get_policy_version(PolicyArn=policy, VersionId=version)["PolicyVersion"]["Document"]
            self.identity[user] = (document,)
        self.identity["builder"] = (json.loads(BUILDER.read_text("utf-8")),)
        self.bucket = json.loads(aws.client("s3").get_bucket_policy(Bucket=BUCKET.rpartition(":")[2])["Policy"])
        fed = f"farmhand-fed-{ACCOUNT}-{REGION}"
        self.fed_bucket = json.loads(aws.client("s3").get_bucket_policy(Bucket=fed)["Policy"])
        given = secrets.get_resource_policy(SecretId="farmhand/prod/key")["ResourcePolicy"]
        self.secret = json.loads(given)
        given_fed = secrets.get_resource_policy(SecretId="farmhand/fed/git")["ResourcePolicy"]
        self.fed_secret = json.loads(given_fed)
        self.fed_key = outputs(aws, "fed")["KeyArn"]
        self.kms, self.fed_kms = (
            json.loads(aws.client("kms").get_key_policy(KeyId=key.rpartition("/")[2], PolicyName="default")["Policy"])
            for key in (self.key, self.fed_key)
        )

    def ask(self, who: str, action: str, resource: str, context: dict[str, Any] | None = None) -> Ask:
        """The request with the policies of its principal, and of what it asks for."""
        resource = resource.replace("KEY of fed", self.fed_key).replace("KEY", self.key)
        context = {k: self.key if v == "KEY" else v for k, v in (context or {}).items()}
        for name, arn in self.secrets.items():
            resource = arn if resource == f"secret {name}" else resource
        arn = ADMINS.get(who) or (f"{ROLE}my-operator" if who in ("user", "baker") else f"{ROLE}farmhand-{who}")
        policy = None
        if resource.startswith(BUCKET):
            policy = self.bucket
        elif resource.startswith("arn:aws:s3:::farmhand-fed"):
            policy = self.fed_bucket
        elif resource == self.key:
            policy = self.kms
        elif resource == self.fed_key:
            policy = self.fed_kms
        elif action.startswith("secretsmanager:") and f"{SECRET}prod/" in resource:
            policy = self.secret
        elif resource == self.secrets["git of fed"]:
            policy = self.fed_secret
        return Ask(arn, action, resource, context, self.identity[who], policy)


@pytest.fixture(scope="module")
def world(aws_process: FakeAws) -> Iterator[World]:
    aws_process.reset()
    yield World(aws_process)
    aws_process.reset()


def test_each_allowed_request_is_allowed_and_no_near_miss(world: World) -> None:
    yes = [row for row, _ in ALL_CASES]
    no = [row for _, rows in ALL_CASES for row in rows]
    assert len(yes) + len(no) >= 60
    answers = allowed([world.ask(*row) for row in yes + no], ACCOUNT)
    wrong = [("refused", row) for row, answer in zip(yes, answers, strict=False) if not answer]
    wrong += [("allowed", row) for row, answer in zip(no, answers[len(yes) :], strict=True) if answer]
    assert not wrong


@pytest.mark.parametrize("who", ["user", "baker", "builder"])
def test_each_statement_of_a_policy_for_people_has_a_request_that_is_tried(world: World, who: str) -> None:
    tried = {action for (asks, action, _, _), _ in ALL_CASES if asks == who or (who, asks) == ("baker", "user")}
    [policy] = world.identity[who]
    actions = {
        one["Sid"]: {one["Action"]} if isinstance(one["Action"], str) else set(one["Action"])
        for one in policy["Statement"]
    }
    assert [sid for sid, named in actions.items() if not any(fnmatch.filter(tried, name) for name in named)] == []


def test_nothing_without_a_role_is_allowed(world: World) -> None:
    """A sandbox has no credentials: what every role together may do is refused to nobody."""
    asks = [world.ask(*row) for row, _ in ALL_CASES]
    nobody = [
        Ask("arn:aws:iam::123456789012:user/nobody", a.action, a.resource, a.context, (), a.on_resource) for a in asks
    ]
    assert not any(allowed(nobody, ACCOUNT))


def test_the_policy_that_the_docs_give_a_farm_host_is_the_one_of_its_role(world: World) -> None:
    [policy] = re.findall(
        r"```json\n(.*?)```", (ROOT / "docs" / "operations.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert world.identity["prod-host"] == (json.loads(policy),)
