"""The double's S3, Secrets Manager, DynamoDB, Lambda, Scheduler and CloudWatch, where moto alone would be too kind."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.fakeaws import FakeAws
from tests.support.fakeaws.scene import Scene

BUCKET = "scene-bucket"
KEY_ARN = "arn:aws:kms:us-east-1:123456789012:key/the-key"
OBJECTS = f"arn:aws:s3:::{BUCKET}/*"
SSE: dict[str, Any] = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": KEY_ARN}


def code(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    """AWS's code of a refusal, and the status."""
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def deny(action: str | list[str], resource: str | list[str], **conditions: Any) -> dict[str, Any]:
    """A statement of a policy."""
    return {"Effect": "Deny", "Principal": "*", "Action": action, "Resource": resource, "Condition": conditions}


@pytest.fixture
def s3(aws: FakeAws) -> Any:
    client = aws.client("s3")
    client.create_bucket(Bucket=BUCKET)
    return client


def guard(s3: Any, *statements: dict[str, Any]) -> None:
    """Put a bucket policy."""
    policy = {"Version": "2012-10-17", "Statement": list(statements)}
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))


def test_a_key_is_written_once(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket=BUCKET, Key="a", Body=b"2", IfNoneMatch="*")
    assert code(error) == ("PreconditionFailed", 412)
    assert s3.get_object(Bucket=BUCKET, Key="a")["Body"].read() == b"1"


def test_of_many_writers_at_once_one_wins(s3: Any) -> None:
    def write(number: int) -> int:
        try:
            s3.put_object(Bucket=BUCKET, Key="race", Body=str(number).encode(), IfNoneMatch="*")
        except ClientError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as many:
        assert sum(many.map(write, range(24))) == 1


def test_a_policy_asks_for_the_encryption(s3: Any) -> None:
    guard(
        s3,
        deny("s3:PutObject", OBJECTS, StringNotEquals={"s3:x-amz-server-side-encryption": "aws:kms"}),
        deny(
            "s3:PutObject",
            OBJECTS,
            StringNotEquals={"s3:x-amz-server-side-encryption-aws-kms-key-id": KEY_ARN},
        ),
    )
    for wrong in ({}, {"ServerSideEncryption": "AES256"}, SSE | {"SSEKMSKeyId": f"{KEY_ARN}-of-another"}):
        for how in (
            partial(s3.put_object, Bucket=BUCKET, Key="a", Body=b"x", **wrong),
            partial(s3.create_multipart_upload, Bucket=BUCKET, Key="a", **wrong),
        ):
            with pytest.raises(ClientError) as error:
                how()
            assert code(error) == ("AccessDenied", 403)
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"x", **SSE)
    assert s3.head_object(Bucket=BUCKET, Key="a")["SSEKMSKeyId"] == KEY_ARN


def test_a_policy_asks_for_tls(aws: FakeAws, s3: Any) -> None:
    guard(s3, deny("s3:*", [f"arn:aws:s3:::{BUCKET}", OBJECTS], Bool={"aws:SecureTransport": "false"}))
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"x")
    line = http.client.HTTPConnection(aws.url.removeprefix("http://"))
    signed = "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request"
    for path in (f"/{BUCKET}/a", f"/{BUCKET}?list-type=2"):
        line.request("GET", path, headers={"Authorization": signed, "X-Forwarded-Proto": "http"})
        answer = line.getresponse()
        assert (answer.status, b"AccessDenied" in answer.read()) == (403, True)
    line.close()


def test_a_policy_is_for_who_calls(aws: FakeAws, scene: Scene, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="prod/credentials/key.json", Body=b"x")
    s3.put_object(Bucket=BUCKET, Key="prod/other", Body=b"x")
    guard(
        s3,
        deny("s3:*Object", f"arn:aws:s3:::{BUCKET}/*/credentials/*", ArnNotLike={"aws:PrincipalArn": scene.role}),
        deny("s3:ListBucket", f"arn:aws:s3:::{BUCKET}", StringNotLike={"s3:prefix": "prod/*"}),
    )
    for call in (
        partial(s3.get_object, Bucket=BUCKET, Key="prod/credentials/key.json"),
        partial(s3.delete_object, Bucket=BUCKET, Key="prod/credentials/key.json"),
        partial(s3.list_objects_v2, Bucket=BUCKET),
    ):
        with pytest.raises(ClientError) as error:
            call()
        assert code(error) == ("AccessDenied", 403)
    assert s3.get_object(Bucket=BUCKET, Key="prod/other")["Body"].read() == b"x"
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="prod/")["KeyCount"] == 2
    made = aws.client("sts").assume_role(RoleArn=scene.role, RoleSessionName="task")["Credentials"]
    login = {
        "aws_access_key_id": made["AccessKeyId"],
        "aws_secret_access_key": made["SecretAccessKey"],
        "aws_session_token": made["SessionToken"],
    }
    of_the_task = aws.client("s3", **login)
    assert of_the_task.get_object(Bucket=BUCKET, Key="prod/credentials/key.json")["Body"].read() == b"x"


def test_a_bucket_whose_owner_is_enforced_takes_no_acl(s3: Any) -> None:
    s3.put_bucket_ownership_controls(
        Bucket=BUCKET, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    )
    for call in (
        partial(s3.put_object, Bucket=BUCKET, Key="a", Body=b"x", ACL="private"),
        partial(s3.put_object_acl, Bucket=BUCKET, Key="a", ACL="private"),
        partial(s3.put_bucket_acl, Bucket=BUCKET, ACL="private"),
    ):
        with pytest.raises(ClientError) as error:
            call()
        assert code(error) == ("AccessControlListNotSupported", 400)
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"x", ACL="bucket-owner-full-control")


def test_stages_are_on_one_version_each(aws: FakeAws) -> None:
    client = aws.client("secretsmanager")
    first = client.create_secret(Name="s", SecretString="sk-ant-test-1")["VersionId"]
    pending = {"SecretId": "s", "VersionStages": ["AWSPENDING"]}
    token = "a" * 64
    for _ in range(2):  # the same token and value again is no new version
        second = client.put_secret_value(**pending, SecretString="sk-ant-test-2", ClientRequestToken=token)["VersionId"]
    with pytest.raises(ClientError) as error:
        client.put_secret_value(**pending, SecretString="sk-ant-test-3", ClientRequestToken=token)
    assert code(error)[0] == "ResourceExistsException"
    assert client.get_secret_value(SecretId="s")["SecretString"] == "sk-ant-test-1"
    assert client.get_secret_value(SecretId="s", VersionStage="AWSPENDING")["SecretString"] == "sk-ant-test-2"
    move = {"SecretId": "s", "VersionStage": "AWSCURRENT", "MoveToVersionId": second}
    with pytest.raises(ClientError, match="RemoveFromVersionId can't be empty") as error:
        client.update_secret_version_stage(**move)
    assert code(error)[0] == "InvalidParameterException"
    client.update_secret_version_stage(**move, RemoveFromVersionId=first)
    assert client.get_secret_value(SecretId="s")["SecretString"] == "sk-ant-test-2"
    assert client.get_secret_value(SecretId="s", VersionStage="AWSPREVIOUS")["VersionId"] == first
    client.update_secret_version_stage(SecretId="s", VersionStage="AWSPENDING", RemoveFromVersionId=second)
    stages = client.describe_secret(SecretId="s")["VersionIdsToStages"]
    assert stages == {first: ["AWSPREVIOUS"], second: ["AWSCURRENT"]}
    with pytest.raises(ClientError) as error:
        client.get_secret_value(SecretId="s", VersionStage="AWSPENDING")
    assert code(error)[0] == "ResourceNotFoundException"


def test_a_secret_without_a_value_has_none(aws: FakeAws) -> None:
    client = aws.client("secretsmanager")
    client.create_secret(Name="empty")
    with pytest.raises(ClientError) as error:
        client.get_secret_value(SecretId="empty")
    assert code(error)[0] == "ResourceNotFoundException"


def test_conditions_of_dynamodb_hold_for_many_writers(aws: FakeAws) -> None:
    client = aws.client("dynamodb")
    client.create_table(
        TableName="t",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
    )
    client.put_item(TableName="t", Item={"pk": {"S": "b"}, "leased": {"N": "0"}})

    def lease(_: int) -> int:
        with contextlib.suppress(client.exceptions.ConditionalCheckFailedException):
            client.update_item(
                TableName="t",
                Key={"pk": {"S": "b"}},
                UpdateExpression="ADD leased :slice",
                ConditionExpression="leased <= :room",
                ExpressionAttributeValues={":slice": {"N": "7"}, ":room": {"N": "93"}},
            )
            return 7
        return 0

    with ThreadPoolExecutor(8) as many:
        granted = sum(many.map(lease, range(60)))
    leased = int(client.get_item(TableName="t", Key={"pk": {"S": "b"}})["Item"]["leased"]["N"])
    assert granted == leased == 98


FUNCTION = """
import boto3, os
def handler(event, context):
    print("looked at", event)
    if event.get("fail"):
        raise ValueError("no")
    me = boto3.client("sts").get_caller_identity()["Arn"]
    return {"event": event, "me": me, "table": os.environ["TABLE"], "name": context.function_name}
"""


@pytest.fixture
def function(aws: FakeAws, scene: Scene) -> str:
    """The ARN of a function."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("index.py", FUNCTION)
    made = aws.client("lambda").create_function(
        FunctionName="expiry",
        Runtime="python3.12",
        Handler="index.handler",
        Role=scene.role,
        Timeout=20,
        Code={"ZipFile": packed.getvalue()},
        Environment={"Variables": {"TABLE": "t"}},
    )
    return str(made["FunctionArn"])


def test_a_schedule_calls_its_function_when_a_test_says_so(aws: FakeAws, scene: Scene, function: str) -> None:
    scheduler = aws.client("scheduler")
    schedule = {
        "Name": "every-6-hours",
        "ScheduleExpression": "rate(6 hours)",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": {"Arn": function, "RoleArn": scene.role, "Input": '{"now": "<aws.scheduler.scheduled-time>"}'},
    }
    scheduler.create_schedule(**schedule)
    fired = aws.fire("every-6-hours", at=datetime(2027, 3, 1, 6, tzinfo=UTC))
    assert fired["error"] is None
    assert fired["payload"]["event"] == {"now": "2027-03-01T06:00:00Z"}
    assert fired["payload"]["me"].startswith("arn:aws:sts::123456789012:assumed-role/scene/")
    assert (fired["payload"]["table"], fired["payload"]["name"]) == ("t", "expiry")
    streams = scene.logs.describe_log_streams(logGroupName="/aws/lambda/expiry")["logStreams"]
    events = scene.logs.get_log_events(
        logGroupName="/aws/lambda/expiry", logStreamName=streams[0]["logStreamName"], startFromHead=True
    )["events"]
    assert events[0]["message"] == "looked at {'now': '2027-03-01T06:00:00Z'}"
    scheduler.update_schedule(**schedule | {"State": "DISABLED"})
    assert aws.fire("every-6-hours")["error"] == "the schedule is disabled"
    with pytest.raises(RuntimeError, match="ResourceNotFoundException"):
        aws.fire("never")


def test_a_function_that_raises(aws: FakeAws, function: str) -> None:
    answer = aws.client("lambda").invoke(FunctionName=function, Payload=b'{"fail": true}')
    assert answer["FunctionError"]
    assert json.load(answer["Payload"]) == {"errorMessage": "no", "errorType": "ValueError"}


def test_an_alarm_tells_its_topic(aws: FakeAws) -> None:
    topic = aws.client("sns").create_topic(Name="alarms")["TopicArn"]
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="heard")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    aws.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    watch = aws.client("cloudwatch")
    watch.put_metric_alarm(
        AlarmName="cost",
        Namespace="Farmhand",
        MetricName="CostUsd",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
        AlarmActions=[topic],
    )
    for state in ("OK", "ALARM"):
        watch.set_alarm_state(AlarmName="cost", StateValue=state, StateReason="a test")
    (message,) = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    said = json.loads(json.loads(message["Body"])["Message"])
    assert said == {"AlarmName": "cost", "NewStateValue": "ALARM", "NewStateReason": "a test"}
