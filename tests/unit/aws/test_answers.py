"""What answers with success and is not AWS is no empty answer; what is wrong with the login is no silent AWS."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError, EndpointConnectionError, SSLError

from farmhand.aws.client import Aws
from farmhand.aws.credentials.expiry import ExpiryTable
from farmhand.aws.credentials.secret import Secret
from farmhand.aws.environment import running
from farmhand.aws.environment.stacks import Stacks
from farmhand.aws.errors import explain
from farmhand.aws.places.bucket import BatchBucket
from farmhand.core.errors import FarmUnreachable, NotConfigured
from farmhand.core.settings import Settings
from tests.unit.aws.conftest import conf

HTML, NOTHING = b"\n<!DOCTYPE html><p>Accept the terms", b""


class _Raw(io.BytesIO):
    """As botocore reads it."""

    def stream(self, **_more: Any) -> Any:
        yield self.read()


def answering(body: bytes, service: str, status: int = 200) -> Aws:
    """AWS behind a proxy that answers for one service."""
    aws = Aws(conf())
    _ = aws.names
    headers = {"content-type": "text/html"}
    answer: Callable[..., Any] = lambda request, **_: AWSResponse(request.url, status, headers, _Raw(body))  # noqa: E731
    aws.session.events.register_first(f"before-send.{service}", answer)
    return aws


CALLS: list[tuple[str, str, Callable[[Aws], Any]]] = [
    ("table", "dynamodb", lambda aws: ExpiryTable(aws).get("key")),
    ("secret", "secrets-manager", lambda aws: Secret(aws, "farmhand/try/key").look()),
    ("tasks", "ecs", running.busy),
    ("jobs", "batch", running.busy),
    ("list", "s3", lambda aws: list(BatchBucket(aws).keys("try/"))),
    ("stack", "cloudformation", lambda aws: Stacks(aws).look("farmhand-try")),
]


@pytest.mark.parametrize("body", [HTML, b"<html>x</html>", NOTHING, b"hello"])
@pytest.mark.parametrize(("service", "call"), [row[1:] for row in CALLS], ids=[row[0] for row in CALLS])
def test_what_is_not_aws_is_no_empty_answer(
    account: Path, service: str, call: Callable[[Aws], Any], body: bytes
) -> None:
    with pytest.raises(FarmUnreachable, match=r"what answered is not AWS|AWS is busy \(500\)") as caught:
        call(answering(body, service))
    assert caught.value.hint


def test_a_page_is_no_object_of_the_bucket(account: Path) -> None:
    with pytest.raises(FarmUnreachable, match="a page of HTML"):
        BatchBucket(answering(HTML, "s3")).get("try/a")


def test_a_proxy_that_refuses_is_no_missing_right(account: Path) -> None:
    with pytest.raises(FarmUnreachable, match="not AWS, or broken: a page of HTML") as caught:
        ExpiryTable(answering(b"<html>blocked</html>", "dynamodb", 403)).get("key")
    assert "proxy" in caught.value.hint


PROFILES = {
    "no program": "credential_process = /nonexistent/x",
    "no JSON": "credential_process = /bin/echo hello",
    "no quote": 'credential_process = "x',
    "no token": "role_arn = arn:aws:iam::123456789012:role/y\nweb_identity_token_file = /nonexistent",
    "a loop": "role_arn = arn:aws:iam::123456789012:role/y\nsource_profile = b\n"
    "[profile b]\nrole_arn = arn:aws:iam::123456789012:role/y\nsource_profile = a",
}


@pytest.mark.parametrize("text", PROFILES.values(), ids=PROFILES)
def test_a_login_that_cannot_be_read_is_not_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """It was exit 4 (see whether this machine is online), exit 1, or the fault of AWS_ENDPOINT_URL."""
    (tmp_path / "config").write_text(f"[profile a]\n{text}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(NotConfigured, match=r"^logging in to AWS: ") as caught:
        _ = Aws(Settings(aws_region="us-east-1", aws_profile="a")).account
    assert "AWS_ENDPOINT_URL" not in caught.value.hint


def test_a_code_that_nobody_types_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was `stopped`, with 130."""
    role = "role_arn = arn:aws:iam::123456789012:role/y\nsource_profile = b\nmfa_serial = arn:aws:iam::1:mfa/me"
    login = "[profile b]\naws_access_key_id = testing\naws_secret_access_key = testing"
    (tmp_path / "config").write_text(f"[profile a]\n{role}\n{login}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setattr("botocore.credentials.AssumeRoleCredentialFetcher._assume_role_kwargs", input_ends)
    with pytest.raises(NotConfigured, match="asks for a code, and there is no terminal"):
        _ = Aws(Settings(aws_region="us-east-1", aws_profile="a")).account


def input_ends(_fetcher: object) -> dict[str, str]:
    raise EOFError


def test_an_upload_that_is_refused_is_told_as_any_other_call() -> None:
    """boto3 wraps what S3 has said, which then read as if AWS had not answered."""
    refused, error = (
        ClientError({"Error": {"Code": "AccessDenied"}}, "PutObject"),
        S3UploadFailedError("Failed to upload"),
    )
    error.__context__ = refused
    assert isinstance(explain(error, "uploading"), NotConfigured)


def test_only_the_network_is_unreachable() -> None:
    assert isinstance(explain(EndpointConnectionError(endpoint_url="x"), "asking"), FarmUnreachable)
    untrusted = explain(SSLError(endpoint_url="x", error="self-signed"), "asking")
    assert isinstance(untrusted, NotConfigured)
    assert "AWS_CA_BUNDLE" in untrusted.hint
