"""An account in moto: a stack's key, bucket, secret and table, as Farmhand's templates make them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from farmhand.aws.credentials.vault import Options, Vault
from farmhand.core.settings import Settings
from tests.support import aws_models
from tests.support.fakeaws import kms_keys

aws_models.read_once()
kms_keys.change()
ENVIRONMENT = "try"
KEY = "sk-ant-test-credential-000000000001"
TOKEN = "sk-ant-oat01-test-credential-0000000001"
REFRESH = "sk-ant-ort01-test-credential-0000000001"
REGION = "us-east-1"
TEMPLATE = {
    "Parameters": {
        name: {"Type": "String", "Default": ""}
        for name in ("FederationRule", "FederationOrganization", "FederationServiceAccount", "FederationWorkspace")
    },
    "Resources": {
        "Key": {"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": {}}},
        "Bucket": {
            "Type": "AWS::S3::Bucket",
            "Properties": {
                "BucketName": f"farmhand-{ENVIRONMENT}-123456789012-{REGION}",
            },
        },
        "Table": {
            "Type": "AWS::DynamoDB::Table",
            "Properties": {
                "TableName": f"farmhand-{ENVIRONMENT}",
                "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
                "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
            },
        },
    },
    "Outputs": {"KeyArn": {"Value": {"Fn::GetAtt": ["Key", "Arn"]}}},
}


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A home, a login to an account that has nothing."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL", "CLAUDE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("FARMHAND_AWS_ENVIRONMENT", ENVIRONMENT)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with mock_aws():
        yield tmp_path


@pytest.fixture
def account(empty: Path) -> Path:
    """The same, with the stack."""
    make_stack()
    return empty


def make_stack() -> None:
    cloudformation = boto3.client("cloudformation", region_name=REGION)
    cloudformation.create_stack(StackName=f"farmhand-{ENVIRONMENT}", TemplateBody=json.dumps(TEMPLATE))
    # What moto's CloudFormation lacks.
    boto3.client("secretsmanager", region_name=REGION).create_secret(Name=f"farmhand/{ENVIRONMENT}/key")
    s3, bucket = boto3.client("s3", region_name=REGION), f"farmhand-{ENVIRONMENT}-123456789012-{REGION}"
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def private(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return path


def login(path: Path, ends_ms: Any, **more: Any) -> Path:
    held = {"accessToken": TOKEN, "refreshToken": REFRESH, "expiresAt": ends_ms, "subscriptionType": "max", **more}
    return private(path, json.dumps({"claudeAiOauth": held, "mcpOAuth": {"other": {"accessToken": "secret-of-mcp"}}}))


def conf(**more: Any) -> Settings:
    return Settings(aws_environment=ENVIRONMENT, aws_region=REGION, **more)


class Proof:
    """What stands for the free call: it says which keys the API takes, and is asked how often."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.error: Exception | None = None

    def __call__(self, key: str) -> None:
        self.asked.append(key)
        if self.error:
            raise self.error


def vault(proof: Proof | None = None, settings: Settings | None = None, **options: Any) -> Vault:
    return Vault(settings or conf(), proof or Proof(), Options(**options))
