"""Requests to AWS that each role may make, each with near misses that it may not; test_iam puts them."""

from __future__ import annotations

from typing import Any

from tests.support.fakeaws.client import ACCOUNT

REGION = "us-east-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/"
BUCKET = f"arn:aws:s3:::farmhand-prod-{ACCOUNT}-{REGION}"
TABLE = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/farmhand-prod"
SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:farmhand/"
ANYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
#: Whoever may do everything in the account: `operator` is named to the stacks, `stranger` is not.
ADMINS = {"operator": f"{ROLE}team/operator", "stranger": f"{ROLE}stranger", "root": f"arn:aws:iam::{ACCOUNT}:root"}
ROLES = ("task", "execution", "expiry", "scheduler", "host")
HTTP = {"aws:SecureTransport": "false"}
OTHER_KEY = {"s3:x-amz-server-side-encryption-aws-kms-key-id": "arn:aws:kms:x"}
KMS = {"s3:x-amz-server-side-encryption": "aws:kms"}


def leading(key: str, *attributes: str) -> dict[str, Any]:
    return {"dynamodb:LeadingKeys": [key], **({"dynamodb:Attributes": list(attributes)} if attributes else {})}


def via(service: str) -> dict[str, str]:
    return {"kms:ViaService": f"{service}.{REGION}.amazonaws.com"}


ORDER, RESULT = f"{BUCKET}/prod/batches/b/in/0/00000.jsonl", f"{BUCKET}/prod/batches/b/out/0/00000/1-0001.jsonl"
CREDENTIAL = f"{BUCKET}/prod/credentials/key.json"
LOGS = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:"
ECR = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/"
BATCH, ECS = f"arn:aws:batch:{REGION}:{ACCOUNT}:", f"arn:aws:ecs:{REGION}:{ACCOUNT}:"
ALARM = f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:farmhand-prod"
FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:farmhand-prod-expiry"
PUT = KMS | {"s3:x-amz-server-side-encryption-aws-kms-key-id": "KEY"}
CLUSTER = {"ecs:cluster": f"{ECS}cluster/farmhand-prod"}
OTHER_CLUSTER = {"ecs:cluster": f"{ECS}cluster/default"}
AUDIENCE = {"sts:IdentityTokenAudience": ["https://api.anthropic.com"], "sts:DurationSeconds": "900"}
PASSED = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
STACK = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/"
JOB_TAG = {"aws:ResourceTag/farmhand:environment": "prod"}

Row = tuple[str, str, str, dict[str, Any]]
#: Allowed → near misses.
CASES: list[tuple[Row, list[Row]]] = [
    (
        ("prod-task", "s3:GetObject", ORDER, {}),
        [
            ("prod-task", "s3:GetObject", ORDER.replace("prod/batches", "dev/batches"), {}),
            ("prod-task", "s3:GetObject", CREDENTIAL, {}),
            ("prod-task", "s3:GetObject", "arn:aws:s3:::somebody/prod/batches/b/in/0/00000.jsonl", {}),
            ("prod-task", "s3:GetObject", ORDER, HTTP),
            ("prod-task", "s3:GetObjectVersion", ORDER, {}),
            ("prod-execution", "s3:GetObject", ORDER, {}),
            ("prod-expiry", "s3:GetObject", ORDER, {}),
        ],
    ),
    (
        ("prod-task", "s3:PutObject", RESULT, {}),
        [
            ("prod-task", "s3:PutObject", ORDER, {}),
            ("prod-task", "s3:PutObject", RESULT.replace("prod/batches", "dev/batches"), {}),
            ("prod-task", "s3:PutObject", CREDENTIAL, PUT),
            ("prod-task", "s3:PutObject", RESULT, {"s3:x-amz-server-side-encryption": "AES256"}),
            (
                "prod-task",
                "s3:PutObject",
                RESULT,
                KMS | OTHER_KEY,
            ),
            ("prod-task", "s3:PutObject", RESULT, HTTP),
            ("prod-task", "s3:DeleteObject", RESULT, {}),
        ],
    ),
    (
        ("prod-task", "s3:PutObject", RESULT.replace("/out/", "/ledger/"), PUT),
        [("prod-task", "s3:PutObject", f"{BUCKET}/prod/batches/b/manifest.json", PUT)],
    ),
    (
        ("prod-task", "s3:ListBucket", BUCKET, {"s3:prefix": "prod/batches/b/"}),
        [
            ("prod-task", "s3:ListBucket", BUCKET, {"s3:prefix": "prod/credentials/"}),
            ("prod-task", "s3:ListBucket", BUCKET, {"s3:prefix": "dev/batches/b/"}),
            ("prod-task", "s3:ListBucket", BUCKET, {}),
        ],
    ),
    (
        ("prod-task", "dynamodb:UpdateItem", TABLE, leading("batch#b")),
        [
            ("prod-task", "dynamodb:UpdateItem", TABLE.replace("prod", "dev"), leading("batch#b")),
            ("prod-task", "dynamodb:UpdateItem", TABLE, leading("credential#prod#key")),
            ("prod-task", "dynamodb:UpdateItem", TABLE, {}),
            ("prod-task", "dynamodb:PutItem", TABLE, leading("batch#b")),
            ("prod-task", "dynamodb:DeleteItem", TABLE, leading("batch#b")),
            ("prod-task", "dynamodb:Scan", TABLE, {}),
        ],
    ),
    (
        ("prod-task", "dynamodb:GetItem", TABLE, leading("batch#b")),
        [("prod-task", "dynamodb:GetItem", TABLE, leading("credential#prod#key"))],
    ),
    (
        ("prod-task", "dynamodb:UpdateItem", TABLE, leading("credential#prod#key", "pk", "refused", "fingerprint")),
        [
            ("prod-task", "dynamodb:UpdateItem", TABLE, leading("credential#prod#key", "pk", "expires_at")),
            ("prod-task", "dynamodb:UpdateItem", TABLE, leading("credential#dev#key", "pk", "refused")),
        ],
    ),
    (
        ("prod-task", "kms:Decrypt", "KEY", via("s3")),
        [
            ("prod-task", "kms:Decrypt", "KEY", via("secretsmanager")),
            ("prod-task", "kms:Decrypt", "KEY", {}),
            ("prod-task", "kms:Decrypt", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/other", via("s3")),
            ("prod-task", "kms:ScheduleKeyDeletion", "KEY", via("s3")),
        ],
    ),
    (
        ("prod-execution", "secretsmanager:GetSecretValue", "secret key", {}),
        [
            ("prod-task", "secretsmanager:GetSecretValue", "secret key", {}),
            ("prod-expiry", "secretsmanager:GetSecretValue", "secret key", {}),
            ("user", "secretsmanager:GetSecretValue", "secret key", {}),
            ("stranger", "secretsmanager:GetSecretValue", "secret key", {}),
            ("prod-execution", "secretsmanager:GetSecretValue", "secret setup-token", {}),
            ("prod-execution", "secretsmanager:GetSecretValue", "secret git", {}),
            ("prod-execution", "secretsmanager:GetSecretValue", f"{SECRET}dev/key-AbCdEf", {}),
            ("prod-execution", "secretsmanager:PutSecretValue", "secret key", {}),
            ("fed-execution", "secretsmanager:GetSecretValue", f"{SECRET}fed/key-AbCdEf", {}),
        ],
    ),
    (
        ("fed-execution", "secretsmanager:GetSecretValue", "secret git of fed", {}),
        [
            ("fed-task", "secretsmanager:GetSecretValue", "secret git of fed", {}),
            ("stranger", "secretsmanager:GetSecretValue", "secret git of fed", {}),
            ("prod-execution", "secretsmanager:GetSecretValue", "secret git of fed", {}),
            ("fed-execution", "secretsmanager:PutSecretValue", "secret git of fed", {}),
            ("fed-execution", "secretsmanager:GetSecretValue", "secret git", {}),
        ],
    ),
    (
        ("fed-execution", "kms:Decrypt", "KEY of fed", via("secretsmanager")),
        [
            ("fed-execution", "kms:Decrypt", "KEY of fed", via("s3")),
            ("prod-execution", "kms:Decrypt", "KEY of fed", via("secretsmanager")),
        ],
    ),
    (
        ("user", "dynamodb:UpdateItem", TABLE, leading("plan#prod")),
        [
            ("prod-task", "dynamodb:UpdateItem", TABLE, leading("plan#prod")),
            ("prod-task", "dynamodb:UpdateItem", TABLE, leading("batch#b", "pk") | leading("plan#prod")),
            ("user", "dynamodb:UpdateItem", TABLE.replace("prod", "dev"), leading("plan#dev")),
        ],
    ),
    (("operator", "secretsmanager:GetSecretValue", "secret key", {}), []),
    (("root", "secretsmanager:GetSecretValue", "secret key", {}), []),
    (
        ("prod-execution", "kms:Decrypt", "KEY", via("secretsmanager")),
        [("prod-execution", "kms:Decrypt", "KEY", via("s3")), ("prod-execution", "kms:GenerateDataKey", "KEY", {})],
    ),
    # The image with a credential in it: the execution role may pull it only where it is asked for, the task role never.
    (
        ("baked-execution", "ecr:BatchGetImage", f"{ECR}farmhand-baked/farmhand-worker-baked", {}),
        [
            ("prod-execution", "ecr:BatchGetImage", f"{ECR}farmhand-prod/farmhand-worker-baked", {}),
            ("prod-execution", "ecr:GetDownloadUrlForLayer", f"{ECR}farmhand-baked/farmhand-worker-baked", {}),
            ("baked-task", "ecr:BatchGetImage", f"{ECR}farmhand-baked/farmhand-worker-baked", {}),
            ("baked-task", "ecr:GetDownloadUrlForLayer", f"{ECR}farmhand-baked/farmhand-worker-baked", {}),
            ("baked-execution", "ecr:PutImage", f"{ECR}farmhand-baked/farmhand-worker-baked", {}),
        ],
    ),
    (
        ("baker", "ecr:BatchDeleteImage", f"{ECR}farmhand-baked/farmhand-worker-baked", {}),
        [
            ("user", "ecr:BatchDeleteImage", f"{ECR}farmhand-prod/farmhand-worker-baked", {}),
            ("baker", "ecr:BatchDeleteImage", f"{ECR}farmhand-baked/farmhand-worker", {}),
            ("baked-execution", "ecr:BatchDeleteImage", f"{ECR}farmhand-baked/farmhand-worker-baked", {}),
        ],
    ),
    (
        ("prod-execution", "ecr:BatchGetImage", f"{ECR}farmhand-prod/farmhand-worker", {}),
        [
            ("prod-execution", "ecr:BatchGetImage", f"{ECR}other", {}),
            ("prod-execution", "ecr:PutImage", f"{ECR}farmhand-prod/farmhand-worker", {}),
            ("prod-task", "ecr:BatchGetImage", f"{ECR}farmhand-prod/farmhand-worker", {}),
        ],
    ),
    (
        ("prod-execution", "logs:PutLogEvents", f"{LOGS}/farmhand/prod:log-stream:api/agent/1", {}),
        [
            ("prod-execution", "logs:PutLogEvents", f"{LOGS}/farmhand/dev:log-stream:api/agent/1", {}),
            ("prod-task", "logs:PutLogEvents", f"{LOGS}/farmhand/prod:log-stream:api/agent/1", {}),
        ],
    ),
    (
        ("prod-expiry", "secretsmanager:DescribeSecret", "secret key", {}),
        [("prod-expiry", "secretsmanager:DescribeSecret", f"{SECRET}dev/key-AbCdEf", {})],
    ),
    (
        ("prod-expiry", "s3:GetObjectTagging", CREDENTIAL, {}),
        [("prod-expiry", "s3:GetObject", CREDENTIAL, {}), ("prod-expiry", "s3:GetObjectTagging", RESULT, {})],
    ),
    (
        ("prod-expiry", "dynamodb:UpdateItem", TABLE, leading("credential#prod#key")),
        [("prod-expiry", "dynamodb:UpdateItem", TABLE, leading("batch#b"))],
    ),
    (("prod-expiry", "dynamodb:Scan", TABLE, {}), [("prod-expiry", "dynamodb:Scan", TABLE.replace("prod", "dev"), {})]),
    (("prod-expiry", "sns:Publish", TOPIC, {}), [("prod-expiry", "sns:Publish", TOPIC.replace("prod", "dev"), {})]),
    (
        ("prod-expiry", "cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "Farmhand"}),
        [("prod-expiry", "cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "AWS/Lambda"})],
    ),
    (
        ("prod-host", "cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "Farmhand"}),
        [
            ("prod-host", "cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "AWS/Lambda"}),
            ("prod-host", "cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "farmhand"}),
            ("prod-host", "cloudwatch:PutMetricData", "*", {}),
            ("prod-host", "cloudwatch:GetMetricData", "*", {}),
            ("prod-host", "cloudwatch:PutMetricAlarm", f"{ALARM}farmhand-prod/farm1/silent", {}),
            ("prod-host", "cloudwatch:DeleteAlarms", f"{ALARM}farmhand-prod/farm1/silent", {}),
            ("prod-host", "secretsmanager:GetSecretValue", "secret key", {}),
            ("prod-host", "s3:GetObject", ORDER, {}),
            ("prod-host", "sns:Publish", TOPIC, {}),
            ("prod-task", "cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "Farmhand"}),
        ],
    ),
    (
        ("prod-expiry", "kms:GenerateDataKey", "KEY", via("sns")),
        [("prod-expiry", "kms:GenerateDataKey", "KEY", via("s3"))],
    ),
    (
        ("prod-scheduler", "lambda:InvokeFunction", FUNCTION, {}),
        [
            ("prod-scheduler", "lambda:InvokeFunction", FUNCTION.replace("prod", "dev"), {}),
            ("prod-scheduler", "lambda:UpdateFunctionCode", FUNCTION, {}),
        ],
    ),
    (
        ("fed-task", "sts:GetWebIdentityToken", "*", AUDIENCE),
        [
            ("prod-task", "sts:GetWebIdentityToken", "*", AUDIENCE),
            (
                "fed-task",
                "sts:GetWebIdentityToken",
                "*",
                AUDIENCE | {"sts:IdentityTokenAudience": ["https://x.example"]},
            ),
            ("fed-task", "sts:GetWebIdentityToken", "*", {"sts:DurationSeconds": "900"}),
            ("fed-task", "sts:GetWebIdentityToken", "*", AUDIENCE | {"sts:DurationSeconds": "3600"}),
        ],
    ),
    (
        ("fed-task", "s3:GetObject", f"arn:aws:s3:::farmhand-fed-{ACCOUNT}-{REGION}/fed/credentials/key.json", {}),
        [
            ("fed-task", "s3:GetObject", f"arn:aws:s3:::farmhand-fed-{ACCOUNT}-{REGION}/prod/credentials/key.json", {}),
            ("stranger", "s3:GetObject", f"arn:aws:s3:::farmhand-fed-{ACCOUNT}-{REGION}/fed/credentials/key.json", {}),
        ],
    ),
    (
        ("operator", "s3:GetObject", CREDENTIAL, {}),
        [
            ("stranger", "s3:GetObject", CREDENTIAL, {}),
            ("stranger", "s3:GetObjectVersion", CREDENTIAL, {}),
            ("operator", "s3:GetObject", CREDENTIAL, HTTP),
        ],
    ),
    (
        ("user", "s3:PutObject", CREDENTIAL, PUT),
        [
            ("user", "s3:PutObject", CREDENTIAL, {}),
            ("user", "s3:PutObject", CREDENTIAL, KMS),
            (
                "user",
                "s3:PutObject",
                CREDENTIAL,
                PUT | OTHER_KEY,
            ),
            ("user", "s3:PutObject", CREDENTIAL, PUT | {"s3:x-amz-server-side-encryption": "AES256"}),
            ("user", "s3:GetObject", CREDENTIAL, {}),
            ("stranger", "s3:PutObject", CREDENTIAL, PUT),
            ("stranger", "s3:DeleteObject", CREDENTIAL, {}),
        ],
    ),
    (
        ("user", "secretsmanager:PutSecretValue", "secret key", {}),
        [
            ("user", "secretsmanager:PutSecretValue", f"{SECRET}dev/key-AbCdEf", {}),
            ("user", "secretsmanager:DeleteSecret", "secret key", {}),
        ],
    ),
    (
        ("user", "iam:PassRole", f"{ROLE}farmhand-prod-task", PASSED),
        [
            ("user", "iam:PassRole", f"{ROLE}farmhand-prod-task", {"iam:PassedToService": "ec2.amazonaws.com"}),
            ("user", "iam:PassRole", f"{ROLE}farmhand-prod-expiry", PASSED),
            ("prod-task", "iam:PassRole", f"{ROLE}farmhand-prod-task", PASSED),
        ],
    ),
    (
        ("user", "iam:PassRole", f"{ROLE}farmhand-prod-execution", PASSED),
        [
            ("user", "iam:PassRole", f"{ROLE}farmhand-prod-execution", {}),
            ("user", "iam:PassRole", f"{ROLE}farmhand-prod-host", PASSED),
            ("user", "iam:PassRole", f"{ROLE}farmhand-dev-execution", PASSED),
            ("user", "sts:AssumeRole", f"{ROLE}farmhand-prod-execution", {}),
            ("prod-execution", "iam:PassRole", f"{ROLE}farmhand-prod-execution", PASSED),
        ],
    ),
    # ListStacks knows no single stack: it is all of the account's names, and nothing that is in one.
    (
        ("user", "cloudformation:ListStacks", "*", {}),
        [
            ("user", "cloudformation:DescribeStacks", f"{STACK}other/1", {}),
            ("user", "cloudformation:GetTemplate", f"{STACK}farmhand-prod/1", {}),
            ("prod-task", "cloudformation:ListStacks", "*", {}),
            ("prod-execution", "cloudformation:ListStacks", "*", {}),
            ("prod-expiry", "cloudformation:ListStacks", "*", {}),
        ],
    ),
    (
        ("user", "cloudformation:DescribeStacks", f"{STACK}farmhand-prod-network/1", {}),
        [
            ("user", "cloudformation:DescribeStacks", f"{STACK}farmhand-dev-network/1", {}),
            ("user", "cloudformation:UpdateStack", f"{STACK}farmhand-prod/1", {}),
            ("user", "cloudformation:DeleteStack", f"{STACK}farmhand-prod-network/1", {}),
        ],
    ),
    (
        ("user", "kms:Decrypt", "KEY", {}),
        [
            ("user", "kms:Decrypt", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/other", {}),
            ("user", "kms:PutKeyPolicy", "KEY", {}),
        ],
    ),
    (
        ("user", "s3:GetObject", RESULT, {}),
        [
            ("user", "s3:GetObject", RESULT.replace("prod/batches", "dev/batches"), {}),
            ("user", "s3:DeleteBucket", BUCKET, {}),
        ],
    ),
    (("user", "s3:ListBucket", BUCKET, {}), [("user", "s3:ListBucket", "arn:aws:s3:::somebody", {})]),
    (
        ("user", "batch:TerminateJob", f"{BATCH}job/1", JOB_TAG),
        [
            ("user", "batch:TerminateJob", f"{BATCH}job/1", {"aws:ResourceTag/farmhand:environment": "dev"}),
            ("prod-task", "batch:TerminateJob", f"{BATCH}job/1", JOB_TAG),
        ],
    ),
    (
        ("user", "ecs:StopTask", f"{ECS}task/farmhand-prod/1", {}),
        [("user", "ecs:StopTask", f"{ECS}task/default/1", {}), ("user", "ecs:DeleteCluster", f"{ECS}cluster/prod", {})],
    ),
    (
        ("user", "batch:ListJobs", "*", {}),
        [("prod-task", "batch:ListJobs", "*", {}), ("user", "batch:UpdateJobQueue", "*", {})],
    ),
    (
        ("user", "logs:FilterLogEvents", f"{LOGS}/farmhand/prod:*", {}),
        [
            ("user", "logs:FilterLogEvents", f"{LOGS}/farmhand/dev:*", {}),
            ("user", "logs:DeleteLogStream", f"{LOGS}/farmhand/prod:log-stream:api/agent/1", {}),
        ],
    ),
    (
        ("user", "batch:SubmitJob", f"{BATCH}job-queue/farmhand-prod-spot", {}),
        [
            ("user", "batch:SubmitJob", f"{BATCH}job-queue/farmhand-dev-spot", {}),
            ("prod-task", "batch:SubmitJob", f"{BATCH}job-queue/farmhand-prod-spot", {}),
        ],
    ),
    (
        ("user", "ecs:RunTask", f"{ECS}task-definition/farmhand-prod-code:3", CLUSTER),
        [
            ("user", "ecs:RunTask", f"{ECS}task-definition/other:3", CLUSTER),
            (
                "user",
                "ecs:RunTask",
                f"{ECS}task-definition/farmhand-prod-code:3",
                OTHER_CLUSTER,
            ),
            ("prod-task", "ecs:RunTask", f"{ECS}task-definition/farmhand-prod-code:3", CLUSTER),
            ("user", "ecs:ExecuteCommand", f"{ECS}task/farmhand-prod/1", {}),
        ],
    ),
]
