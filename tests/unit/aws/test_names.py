"""The names that the sources compute are those that the templates give."""

from __future__ import annotations

import re

import pytest

from farmhand.aws.names import KINDS, TAG_ENVIRONMENT, Names, is_environment
from farmhand.core import shard
from farmhand.core.bucket_keys import BatchKeys
from tests.support.cloud import HOST, TEMPLATE_NAMES, TEMPLATES

NAMES = Names("prod", "123456789012", "us-east-1")
TEXT = {part: (TEMPLATES / f"{part}.yaml").read_text("utf-8") for part in TEMPLATE_NAMES}


def rendered(text: str) -> str:
    for variable, value in (
        ("${Environment}", "prod"),
        ("${AWS::AccountId}", NAMES.account),
        ("${AWS::Region}", NAMES.region),
        ("${AWS::Partition}", "aws"),
    ):
        text = text.replace(variable, value)
    return text


@pytest.mark.parametrize(
    ("part", "property_name", "name"),
    [
        ("data", "BucketName", NAMES.bucket),
        ("data", "BucketName", NAMES.trail_bucket),
        ("data", "TableName", NAMES.base),
        ("base", "ClusterName", NAMES.base),
        ("base", "TopicName", NAMES.base),
        ("base", "LogGroupName", NAMES.logs),
        ("base", "RepositoryName", NAMES.repository),
        ("base", "RoleName", f"{NAMES.base}-task"),
        ("network", "JobQueueName", NAMES.queue(spot=True)),
        ("network", "JobQueueName", NAMES.queue(spot=False)),
        *(("base", "Name", NAMES.secret(kind)) for kind in KINDS),
        *(("base", "Family", NAMES.definition(size)) for size in ("api", "cli", "code")),
        *(("base", "JobDefinitionName", NAMES.definition(size)) for size in ("api", "cli", "code")),
    ],
)
def test_the_template_gives_the_name(part: str, property_name: str, name: str) -> None:
    given = re.findall(rf"\b{property_name}: !Sub \"([^\"]+)\"", rendered(TEXT[part]))
    assert name in given


@pytest.mark.parametrize("part", TEMPLATE_NAMES)
def test_the_template_takes_the_names_of_environments(part: str) -> None:
    [pattern] = re.findall(
        r'  Environment:\n    Type: String\n    Default: prod\n    AllowedPattern: "(.+)"', TEXT[part]
    )
    for name in ("prod", "a-1-b", "a" * 20, "a" * 21, "prod-data", "prod-watch", "prod-network", "a-", "a--b", "A"):
        assert (re.fullmatch(pattern, name) is not None) == is_environment(name), name


def test_the_policies_name_the_same_prefixes() -> None:
    text = rendered(TEXT["base"])
    prefix = BatchKeys.of(NAMES.environment, "*").base
    assert f"{NAMES.bucket}/{prefix}out/*" in text
    assert f"{NAMES.bucket}/{prefix}ledger/*" in text
    assert f"{NAMES.bucket}/{NAMES.credential_key('*').removesuffix('.json')}" in rendered(TEXT["watch"])
    assert shard.batch_pk("*") in text
    assert shard.credential_pk("prod", "*") in text


def test_the_agent_gets_the_variables_of_the_contract() -> None:
    for name in (shard.BUCKET, shard.TABLE, shard.ENVIRONMENT, shard.CREDENTIAL_KIND):
        assert TEXT["base"].count(f"{{Name: {name}, ") == 6
    assert TEXT["base"].count(f"Name: {shard.CREDENTIAL}\n") == 6


def test_the_containers_end_in_the_time_that_the_contract_says() -> None:
    assert {int(number) for number in re.findall(r"StopTimeout: (\d+)", TEXT["base"])} == {int(shard.STOP_S)}
    assert f'OnExitCode: "{shard.EXIT_LEFT}"' in TEXT["base"]


def test_the_longest_names_are_not_too_long_for_aws() -> None:
    longest = Names("e" * 20, "1" * 12, "ap-northeast-1")
    assert len(longest.trail_bucket) <= 63
    assert all(len(f"{longest.base}-{role}") <= 64 for role in ("execution", "task", "expiry", "scheduler", "host"))


def test_the_stack_of_a_host_is_no_stack_of_another_environment() -> None:
    assert NAMES.host_stack("data").lower() == Names("prod-host").data
    assert NAMES.host_stack("data") not in Names("prod-host").stacks
    assert NAMES.host_stack("farm_1.example") == "farmhand-prod-Host-farm-1-example"


def test_two_environments_in_one_account_share_no_metric() -> None:
    """Each metric of ours has the environment in its name, or as a dimension; each alarm asks for its own."""
    for part in ("watch", "network", HOST):
        for block in re.split(r"\n  (?=\w+:\n)", TEXT[part]):
            named = re.findall(r"MetricName: (!Sub )?(\S+)", block)
            if "Namespace: Farmhand" in block or "MetricNamespace: Farmhand" in block:
                assert named
                dimensions = block.count("{Name: Environment, Value: !Ref Environment}")
                assert all("${Environment}." in name for _, name in named) or dimensions == len(named), block


def test_every_template_tags_what_it_makes() -> None:
    for part, text in TEXT.items():
        made = re.split(r"\n  (?=\w+:)", text.split("\nResources:")[1].split("\nOutputs:")[0])
        kinds = {
            found[1] for one in made if TAG_ENVIRONMENT not in one and (found := re.search(r"Type: ([\w:]+)", one))
        }
        assert not kinds - WITHOUT_TAGS, part


#: Types that take no tags, or belong to something that has them.
WITHOUT_TAGS = {
    *("AWS::KMS::Alias", "AWS::S3::BucketPolicy", "AWS::SecretsManager::ResourcePolicy", "AWS::SNS::TopicPolicy"),
    *("AWS::SNS::Subscription", "AWS::IAM::ManagedPolicy", "AWS::Logs::ResourcePolicy", "AWS::Events::Rule"),
    "AWS::IAM::InstanceProfile",
    *("AWS::Logs::MetricFilter", "AWS::Scheduler::Schedule", "AWS::CloudWatch::Dashboard", "AWS::EC2::VPCCidrBlock"),
    *("AWS::EC2::SubnetRouteTableAssociation", "AWS::EC2::Route", "AWS::EC2::VPCGatewayAttachment"),
    *("AWS::Budgets::Budget", "AWS::EC2::EgressOnlyInternetGateway", "AWS::EC2::VPCEndpoint", "AWS::EC2::EIP"),
    *("AWS::EC2::NatGateway", "AWS::EC2::RouteTable"),
}
