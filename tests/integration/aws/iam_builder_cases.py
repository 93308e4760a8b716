"""Requests that whoever builds may make, each with near misses: see iam_cases."""

from __future__ import annotations

from typing import Any

from tests.integration.aws.iam_cases import BATCH, BUCKET, ECR, ECS, REGION, ROLE, SECRET, STACK, TABLE, Row
from tests.support.fakeaws.client import ACCOUNT

OURS, OTHERS = f"{STACK}farmhand-prod/1", f"{STACK}billing/1"
BY: dict[str, Any] = {"aws:CalledVia": ["cloudformation.amazonaws.com"]}
BY_ANOTHER: dict[str, Any] = {"aws:CalledVia": ["athena.amazonaws.com"]}
POLICY = f"arn:aws:iam::{ACCOUNT}:policy/"
IMAGE = f"{ECR}farmhand-prod/farmhand-worker"
FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:"
VPC = f"arn:aws:ec2:{REGION}:{ACCOUNT}:vpc/*"
TAGGED: dict[str, Any] = {"aws:ResourceTag/farmhand:environment": "dev"}


def builder(action: str, resource: str = "*", **context: Any) -> Row:
    return "builder", action, resource, dict(context)


BUILDER_CASES: list[tuple[Row, list[Row]]] = [
    (
        builder("cloudformation:CreateStack", OURS),
        [
            builder("cloudformation:CreateStack", OTHERS),
            builder("cloudformation:DeleteStack", OTHERS),
            builder("cloudformation:SetStackPolicy", OURS),
            ("user", "cloudformation:CreateStack", OURS, {}),
        ],
    ),
    (builder("ecs:ListTasks"), [builder("ecs:RunTask"), builder("ecs:StopTask", f"{ECS}task/farmhand-prod/1")]),
    (
        builder("iam:ListEntitiesForPolicy", f"{POLICY}farmhand-prod-operator"),
        [builder("iam:ListEntitiesForPolicy", f"{POLICY}team")],
    ),
    (builder("batch:DescribeJobs"), [builder("batch:TerminateJob", f"{BATCH}job/1")]),
    (builder("dynamodb:Scan", TABLE), [builder("dynamodb:Scan", TABLE.replace("farmhand-", "other-"))]),
    (builder("cloudformation:ListStacks"), [builder("cloudformation:GetTemplate", OURS)]),
    (builder("ecr:GetAuthorizationToken"), [builder("ecr:CreateRepository", IMAGE)]),
    (builder("ecr:PutImage", IMAGE), [builder("ecr:PutImage", f"{ECR}other"), ("user", "ecr:PutImage", IMAGE, {})]),
    (
        builder("s3:DeleteObjectVersion", f"{BUCKET}/a"),
        [builder("s3:DeleteObjectVersion", "arn:aws:s3:::other/a"), builder("s3:GetObject", f"{BUCKET}/a")],
    ),
    (builder("kms:ScheduleKeyDeletion", "KEY", **TAGGED), [builder("kms:ScheduleKeyDeletion", "KEY")]),
    (
        builder("iam:CreateRole", f"{ROLE}farmhand-prod-task", **BY),
        [
            builder("iam:CreateRole", f"{ROLE}farmhand-prod-task"),
            builder("iam:CreateRole", f"{ROLE}farmhand-prod-task", **BY_ANOTHER),
            builder("iam:CreateRole", f"{ROLE}admin", **BY),
            builder("secretsmanager:GetSecretValue", f"{SECRET}dev/key-AbCdEf"),
        ],
    ),
    (
        builder("ec2:CreateVpc", VPC, **BY),
        [builder("ec2:CreateVpc", VPC), builder("lambda:CreateFunction", f"{FUNCTION}other", **BY)],
    ),
]
