"""The stacks as the services describe them after the deployment: not what the template says, but what is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from farmhand.aws.names import KINDS, TAG_ENVIRONMENT, Names
from farmhand.aws.prices import ALARMS, ENDPOINTS, NETWORK_ALARMS, SECRETS
from tests.support.cloud import deploy, outputs, stacks
from tests.support.fakeaws.client import ACCOUNT, FakeAws

NAMES = Names("prod", ACCOUNT, "us-east-1")
TAG = {"Key": TAG_ENVIRONMENT, "Value": "prod"}


@pytest.fixture(scope="module")
def made(aws_process: FakeAws) -> Iterator[FakeAws]:
    aws_process.reset()
    deploy(aws_process, Email="me@example.com")
    yield aws_process
    aws_process.reset()


def test_the_bucket(made: FakeAws) -> None:
    s3, bucket = made.client("s3"), NAMES.bucket
    key = outputs(made)["KeyArn"]
    [rule] = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    assert rule["BucketKeyEnabled"] is True
    assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    [owner] = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    assert owner["ObjectOwnership"] == "BucketOwnerEnforced"
    rules = {rule["ID"]: rule for rule in s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]}
    assert rules["old-versions"]["NoncurrentVersionExpiration"]["NoncurrentDays"] == 7
    assert rules["batches"]["Expiration"]["Days"] == 30
    assert rules["batches"]["Filter"]["Prefix"] == "prod/batches/"
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == [TAG]


@pytest.mark.parametrize("bucket", [NAMES.bucket, NAMES.trail_bucket])
def test_each_bucket_is_closed_to_the_public_and_to_plain_http(made: FakeAws, bucket: str) -> None:
    s3 = made.client("s3")
    assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
    statements = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    [tls] = [one for one in statements if one["Sid"] == "TlsOnly"]
    assert (tls["Effect"], tls["Principal"], tls["Action"]) == ("Deny", "*", "s3:*")
    assert tls["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert tls["Resource"] == [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]


def test_the_key_turns_and_alarms_may_use_it(made: FakeAws) -> None:
    kms = made.client("kms")
    number = outputs(made)["KeyArn"].rpartition("/")[2]
    assert kms.get_key_rotation_status(KeyId=number)["KeyRotationEnabled"] is True
    assert {"TagKey": TAG_ENVIRONMENT, "TagValue": "prod"} in kms.list_resource_tags(KeyId=number)["Tags"]
    policy = json.loads(kms.get_key_policy(KeyId=number, PolicyName="default")["Policy"])
    [alarms] = [one for one in policy["Statement"] if one["Sid"] == "Alarms"]
    assert alarms["Principal"] == {"Service": "cloudwatch.amazonaws.com"}


def test_a_secret_for_each_kind_without_a_value(made: FakeAws) -> None:
    secrets = made.client("secretsmanager")
    found = {one["Name"]: one for one in secrets.list_secrets()["SecretList"]}
    assert set(found) == {NAMES.secret(kind) for kind in KINDS}
    assert len(found) == SECRETS
    for one in found.values():
        assert one["KmsKeyId"] == outputs(made)["KeyArn"]
        assert TAG in one["Tags"]
        with pytest.raises(ClientError, match="ResourceNotFound"):
            secrets.get_secret_value(SecretId=one["ARN"])


def test_the_table(made: FakeAws) -> None:
    dynamodb = made.client("dynamodb")
    table = dynamodb.describe_table(TableName=NAMES.base)["Table"]
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert table["KeySchema"] == [{"AttributeName": "pk", "KeyType": "HASH"}]
    backups = dynamodb.describe_continuous_backups(TableName=NAMES.base)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
    expiry = dynamodb.describe_time_to_live(TableName=NAMES.base)["TimeToLiveDescription"]
    assert (expiry["AttributeName"], expiry["TimeToLiveStatus"]) == ("ttl", "ENABLED")
    assert TAG in dynamodb.list_tags_of_resource(ResourceArn=table["TableArn"])["Tags"]


def test_notices_are_encrypted_and_mailed(made: FakeAws) -> None:
    sns, topic = made.client("sns"), outputs(made)["TopicArn"]
    assert sns.get_topic_attributes(TopicArn=topic)["Attributes"]["KmsMasterKeyId"] == outputs(made)["KeyArn"]
    [mail] = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    assert (mail["Protocol"], mail["Endpoint"]) == ("email", "me@example.com")


def test_every_alarm_tells_the_topic(made: FakeAws) -> None:
    alarms = made.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert len(alarms) == ALARMS + NETWORK_ALARMS
    assert {tuple(alarm["AlarmActions"]) for alarm in alarms} == {(outputs(made)["TopicArn"],)}
    missing = {alarm["AlarmName"]: alarm["TreatMissingData"] for alarm in alarms}
    # Silence of the watcher, and an unused network, are what these two look for.
    breaching = {name for name, what in missing.items() if what == "breaching"}
    assert breaching == {"farmhand-prod-days-left", "farmhand-prod-network-idle"}


def test_every_metric_of_an_alarm_comes_from_somewhere(made: FakeAws) -> None:
    filters = made.client("logs").describe_metric_filters()["metricFilters"]
    made_here = {one["metricTransformations"][0]["metricName"] for one in filters}
    alarms = made.client("cloudwatch").describe_alarms()["MetricAlarms"]
    ours = {alarm["MetricName"] for alarm in alarms if alarm["Namespace"] == "Farmhand"}
    # These two are what aws/expiry.py reports.
    assert ours - made_here == {"CredentialDaysLeft", "CredentialRowsBad"}


def test_logs_end(made: FakeAws) -> None:
    groups = {one["logGroupName"]: one for one in made.client("logs").describe_log_groups()["logGroups"]}
    assert {name: one["retentionInDays"] for name, one in groups.items()} == {
        "/farmhand/prod": 30,
        "/aws/events/farmhand-prod": 30,
        "/aws/lambda/farmhand-prod-expiry": 30,
    }


def test_the_trail_sees_credentials(made: FakeAws) -> None:
    trails = made.client("cloudtrail")
    [trail] = trails.describe_trails()["trailList"]
    assert (trail["S3BucketName"], trail["LogFileValidationEnabled"]) == (NAMES.trail_bucket, True)
    assert trails.get_trail_status(Name="farmhand-prod")["IsLogging"] is True
    [selector] = trails.get_event_selectors(TrailName="farmhand-prod")["EventSelectors"]
    [objects] = selector["DataResources"]
    assert objects["Values"] == [f"arn:aws:s3:::{NAMES.bucket}/prod/credentials/"]


def test_the_watcher_is_called(made: FakeAws) -> None:
    schedule = made.client("scheduler").get_schedule(Name="farmhand-prod-expiry")
    assert schedule["ScheduleExpression"] == "rate(6 hours)"
    function = made.client("lambda").get_function(FunctionName="farmhand-prod-expiry")["Configuration"]
    assert schedule["Target"]["Arn"] == function["FunctionArn"]
    # What ZipFile is put into is called index, whatever the file was called before.
    assert function["Handler"] == "index.handler"
    variables = function["Environment"]["Variables"]
    assert (variables["TABLE"], variables["ENVIRONMENT"]) == (NAMES.base, "prod")
    assert variables["TOPIC"] == outputs(made)["TopicArn"]


def _check(agent: dict[str, Any], worker: dict[str, Any]) -> None:
    assert (agent["name"], worker["name"]) == ("agent", "worker")
    assert agent["command"] == ["-m", "farmhand.cloud.entry"]
    assert worker["command"] == ["-m", "farmhand.cloud.launcher"]
    assert agent["user"] == "900:900"
    assert (agent["essential"], worker["essential"]) == (True, False)
    assert worker["dependsOn"] == [{"containerName": "agent", "condition": "START"}]
    assert [secret["name"] for secret in agent["secrets"]] == ["FARMHAND_CREDENTIAL"]
    assert f":secret:{NAMES.secret('key')}" in agent["secrets"][0]["valueFrom"]
    assert not worker.get("secrets")
    assert not worker.get("environment")
    for one in (agent, worker):
        assert one["linuxParameters"]["initProcessEnabled"] is True
        assert one["readonlyRootFilesystem"] is True
        assert one["stopTimeout"] == 120
        assert not one.get("privileged")
        assert not one["linuxParameters"].get("capabilities", {}).get("add")
        assert one["logConfiguration"]["options"]["mode"] == "non-blocking"
        assert "@sha256:" in one["image"]
    mounts = [{m["containerPath"]: m.get("readOnly", False) for m in one["mountPoints"]} for one in (agent, worker)]
    assert mounts[0] == {"/run/farmhand": False, "/run/sandbox": True, "/var/lib/farmhand": False, "/tmp": False}
    assert mounts[1] == {"/run/farmhand": True, "/run/sandbox": False, "/work": False, "/tmp": False}


SIZES = {"api": (0.5, 1024), "cli": (1, 4096), "code": (2, 8192)}


@pytest.mark.parametrize("size", SIZES)
def test_the_task_definitions(made: FakeAws, size: str) -> None:
    found = made.client("ecs").describe_task_definition(taskDefinition=NAMES.definition(size), include=["TAGS"])
    task = found["taskDefinition"]
    _check(*task["containerDefinitions"])
    assert task["containerDefinitions"][0]["linuxParameters"]["capabilities"]["drop"] == ["ALL"]
    assert (int(task["cpu"]) / 1024, int(task["memory"])) == SIZES[size]
    assert sum(one["cpu"] for one in task["containerDefinitions"]) == int(task["cpu"])
    assert sum(one["memory"] for one in task["containerDefinitions"]) == int(task["memory"])


@pytest.mark.parametrize("size", SIZES)
def test_the_job_definitions(made: FakeAws, size: str) -> None:
    [job] = made.client("batch").describe_job_definitions(jobDefinitionName=NAMES.definition(size))["jobDefinitions"]
    [task] = job["ecsProperties"]["taskProperties"]
    _check(*task["containers"])
    needs = [(need["type"], float(need["value"])) for one in task["containers"] for need in one["resourceRequirements"]]
    assert (
        sum(value for kind, value in needs if kind == "VCPU"),
        sum(value for kind, value in needs if kind == "MEMORY"),
    ) == SIZES[size]
    assert task.get("enableExecuteCommand", False) is False
    assert task["networkConfiguration"]["assignPublicIp"] == "DISABLED"
    assert job["propagateTags"] is True
    assert job["tags"] == {TAG_ENVIRONMENT: "prod"}
    rules = job["retryStrategy"]["evaluateOnExit"]
    assert job["retryStrategy"]["attempts"] == 5
    assert [(rule["action"].upper(), rule.get("onExitCode") or rule.get("onStatusReason")) for rule in rules] == [
        *(("RETRY", "75"), ("RETRY", "Your Spot Task was interrupted*")),
        *(("EXIT", "7*"), ("EXIT", "1*"), ("EXIT", "Essential container*")),
    ]
    assert len(json.dumps(job, default=str)) < 24_000


def test_nobody_can_enter_a_container(made: FakeAws) -> None:
    [cluster] = made.client("ecs").describe_clusters(clusters=[NAMES.base])["clusters"]
    assert not cluster.get("configuration", {}).get("executeCommandConfiguration")
    assert cluster["capacityProviders"] == ["FARGATE", "FARGATE_SPOT"]


def test_queues_on_spot_and_on_demand(made: FakeAws) -> None:
    batch = made.client("batch")
    queues = {queue["jobQueueName"]: queue for queue in batch.describe_job_queues()["jobQueues"]}
    compute = {
        one["computeEnvironmentArn"]: one for one in batch.describe_compute_environments()["computeEnvironments"]
    }
    assert set(queues) == {NAMES.queue(spot=True), NAMES.queue(spot=False)}
    for spot, kind in ((True, "FARGATE_SPOT"), (False, "FARGATE")):
        queue = queues[NAMES.queue(spot=spot)]
        [order] = queue["computeEnvironmentOrder"]
        resources = compute[order["computeEnvironment"]]["computeResources"]
        assert (resources["type"], resources["maxvCpus"]) == (kind, 64)
        assert resources["subnets"] == outputs(made, part="network")["Subnets"].split(",")
        assert queue["tags"] == {TAG_ENVIRONMENT: "prod"}


def test_a_private_network_has_no_way_out_but_to_the_api(made: FakeAws) -> None:
    ec2 = made.client("ec2")
    found = outputs(made, part="network")
    [table] = [
        one
        for one in ec2.describe_route_tables()["RouteTables"]
        if found["Subnets"].split(",")[0] in {a.get("SubnetId") for a in one["Associations"]}
    ]
    ways = {
        r.get("DestinationIpv6CidrBlock") or r.get("DestinationCidrBlock")
        for r in table["Routes"]
        if r.get("GatewayId") != "local"
    }
    assert ways - {None} == {"2607:6bc0::/48"}
    assert not ec2.describe_internet_gateways()["InternetGateways"]
    endpoints = ec2.describe_vpc_endpoints()["VpcEndpoints"]
    kinds = {one["ServiceName"].rpartition("us-east-1.")[2]: one for one in endpoints}
    assert set(kinds) == {"s3", "dynamodb", "ecr.api", "ecr.dkr", "logs", "secretsmanager"}
    interfaces = [one for one in endpoints if one["VpcEndpointType"] == "Interface"]
    assert len(interfaces) == ENDPOINTS
    assert all(one["PrivateDnsEnabled"] for one in interfaces)
    [group] = ec2.describe_security_groups(GroupIds=[found["SecurityGroup"]])["SecurityGroups"]
    assert group["IpPermissions"] == []


def test_a_public_network_has_addresses_and_no_endpoint_that_costs(aws: FakeAws) -> None:
    deploy(aws, "open", NetworkMode="public")
    found = outputs(aws, "open", "network")
    assert found["AssignPublicIp"] == "ENABLED"
    ec2 = aws.client("ec2")
    assert {one["VpcEndpointType"] for one in ec2.describe_vpc_endpoints()["VpcEndpoints"]} == {"Gateway"}
    assert all(s["MapPublicIpOnLaunch"] for s in ec2.describe_subnets(SubnetIds=found["Subnets"].split(","))["Subnets"])
    [job] = aws.client("batch").describe_job_definitions(jobDefinitionName="farmhand-open-api")["jobDefinitions"]
    assert job["ecsProperties"]["taskProperties"][0]["networkConfiguration"]["assignPublicIp"] == "ENABLED"


def test_ipv4_goes_through_a_gateway_to_the_published_ranges_only(aws: FakeAws) -> None:
    deploy(aws, parts=("network",), Ipv4="true", Federation="true")
    ec2 = aws.client("ec2")
    found = [r for one in ec2.describe_route_tables()["RouteTables"] for r in one["Routes"]]
    ways = {r["DestinationCidrBlock"] for r in found if "DestinationCidrBlock" in r and r.get("GatewayId") != "local"}
    # 0.0.0.0/0 is the NAT gateway's own.
    assert ways == {"160.79.104.0/23", "153.61.224.0/22", "0.0.0.0/0"}
    assert [one["State"] for one in ec2.describe_nat_gateways()["NatGateways"]] == ["available"]
    services = {one["ServiceName"] for one in ec2.describe_vpc_endpoints()["VpcEndpoints"]}
    assert "com.amazonaws.us-east-1.sts" in services


def test_without_an_image_there_are_no_definitions(aws: FakeAws) -> None:
    deploy(aws, parts=("data", "base"), ImageUri="none")
    assert not aws.client("batch").describe_job_definitions()["jobDefinitions"]
    assert not aws.client("ecs").list_task_definitions()["taskDefinitionArns"]


def test_two_environments_stand_beside_each_other(aws: FakeAws) -> None:
    deploy(aws)
    deploy(aws, "dev")
    assert len(stacks(aws)) == 8


def test_only_repository_tasks_get_the_git_token_and_only_if_they_clone(aws_process: FakeAws) -> None:
    given = {"CloneInTask": "true", "NetworkMode": "public"}
    deploy(aws_process, "clones", ("data", "base"), **given)
    names = Names("clones", ACCOUNT, "us-east-1")
    for size in SIZES:
        found = aws_process.client("ecs").describe_task_definition(taskDefinition=names.definition(size))
        agent, worker = found["taskDefinition"]["containerDefinitions"]
        secrets = {secret["name"]: secret["valueFrom"] for secret in agent["secrets"]}
        assert ("FARMHAND_GIT_TOKEN" in secrets) == (size == "code")
        assert names.secret("key") in secrets["FARMHAND_CREDENTIAL"]
        assert not worker.get("secrets")
        if size == "code":
            assert names.secret("git") in secrets["FARMHAND_GIT_TOKEN"]
        [job] = aws_process.client("batch").describe_job_definitions(jobDefinitionName=names.definition(size))[
            "jobDefinitions"
        ]
        [agent, _] = job["ecsProperties"]["taskProperties"][0]["containers"]
        assert [secret["name"] for secret in agent["secrets"]] == ["FARMHAND_CREDENTIAL"]
