from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, NoCredentialsError, ParamValidationError
from botocore.parsers import ResponseParserError
from moto import mock_aws

from farmhand.aws.client import Aws
from farmhand.aws.credentials.secret_source import SecretSource
from farmhand.aws.errors import code_of, explain, explained
from farmhand.aws.names import Names, is_environment
from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured, Refused, WireError
from farmhand.core.settings import Settings

CANARY = "sk-ant-test-canary-000000000000000000000000"


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without an AWS login."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")


def test_the_names_have_account_and_region(monkeypatch: pytest.MonkeyPatch) -> None:
    with mock_aws():
        names = Aws(Settings(aws_environment="try", aws_region="eu-west-1")).names
    assert names.bucket == "farmhand-try-123456789012-eu-west-1"
    assert names.secret("key") == "farmhand/try/key"


def test_another_account_than_the_settings_name_is_refused(nobody: None) -> None:
    """Whatever asks for a name or the account: places, credentials, boxes, stacks."""
    with mock_aws():
        assert Aws(Settings(aws_region="us-east-1", aws_account="123456789012")).account == "123456789012"
        other = Aws(Settings(aws_region="us-east-1", aws_account="999999999999"))
        for name in ("account", "names"):
            with pytest.raises(Refused, match="this is AWS account 123456789012, and aws_account is 999999999999"):
                getattr(other, name)


def test_a_name_that_aws_would_not_take() -> None:
    for name in ("", "Prod", "a" * 21, "a/b", "9a", "a-", "a--b"):
        with pytest.raises(NotConfigured, match="aws_environment"):
            Aws(Settings(aws_environment=name))
    assert is_environment("a" * 20)
    assert is_environment("a-1-b")


def test_no_environment_has_a_stack_of_another_one() -> None:
    """`down` of an environment prod-data would remove the stack that holds prod's data."""
    own = Names("prod")
    for stack in own.stacks:
        assert stack == own.base or not is_environment(stack.removeprefix("farmhand-"))


def test_only_the_account_of_the_settings_is_used() -> None:
    with mock_aws():
        assert Aws(Settings(aws_region="us-east-1", aws_account="123456789012")).account == "123456789012"
        with pytest.raises(Refused, match="account 123456789012, and aws_account is 210987654321") as caught:
            _ = Aws(Settings(aws_region="us-east-1", aws_account="210987654321")).names
        assert caught.value.exit_code == 5
        with pytest.raises(WireError, match="aws_account is 210987654321"):
            SecretSource("some/secret", Settings(aws_region="us-east-1", aws_account="210987654321"))


def test_without_login_region_profile_or_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotConfigured, match="credentials"):
        _ = Aws(Settings(aws_region="us-east-1")).account
    with pytest.raises(NotConfigured, match="no AWS region"):
        _ = Aws(Settings()).region
    with pytest.raises(NotConfigured, match="region"):
        Aws(Settings()).client("batch")
    with pytest.raises(NotConfigured, match="nobody"):
        _ = Aws(Settings(aws_profile="nobody")).session
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(NotConfigured) as caught:
        _ = Aws(Settings()).session
    assert caught.value.hint == "pip install boto3 aws-encryption-sdk"
    assert caught.value.exit_code == 3


def answer(code: str, message: str = "no", status: int = 400, date: str = "") -> ClientError:
    about = {"HTTPStatusCode": status, "HTTPHeaders": {"date": date} if date else {}}
    return ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": about}, "GetIt")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ExpiredToken", NotConfigured),
        ("InvalidClientTokenId", NotConfigured),
        ("RequestTimeTooSkewed", NotConfigured),
        ("AccessDenied", NotConfigured),
        ("InvalidSignatureException", NotConfigured),
        ("RequestExpired", NotConfigured),
        ("InternalServiceError", FarmUnreachable),
        ("403", NotConfigured),
        ("ThrottlingException", FarmUnreachable),
        ("ConditionalRequestConflict", FarmUnreachable),
        ("OperationAborted", FarmUnreachable),
        ("LimitExceededException", Refused),
        ("ValidationError", FarmhandError),
    ],
)
def test_each_answer_is_one_line_with_its_exit_code(code: str, kind: type[FarmhandError]) -> None:
    error = explain(answer(code, f"two\nlines {CANARY}"), "reading it")
    assert type(error) is kind
    assert "\n" not in str(error)
    assert CANARY not in str(error)
    assert str(error).startswith("reading it: ")


def test_an_answer_that_has_only_its_status_is_a_busy_aws() -> None:
    html = {"Error": {"Code": "503", "Message": "<html>"}, "ResponseMetadata": {"HTTPStatusCode": 503}}
    assert type(explain(ClientError(html, "GetIt"), "asking")) is FarmUnreachable


@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", "InvalidSignatureException", "SignatureDoesNotMatch"])
def test_a_wrong_clock_is_named(code: str) -> None:
    """AWS says it in its text only, where the service speaks JSON; `aws sso login` would not help."""
    error = explain(answer(code, "Signature expired: 20261129T000000Z is now earlier than 20261129T001500Z"), "asking")
    assert error is not None
    assert "clock" in str(error)
    assert "timedatectl" in error.hint


def test_a_setting_that_boto3_cannot_use_is_no_silent_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exit 3 and not 4: being online does not help."""
    with pytest.raises(NotConfigured, match="us east"):
        Aws(Settings(aws_region="us east")).client("sts")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(NotConfigured, match="Invalid endpoint"):
        Aws(Settings(aws_region="us-east-1")).client("sts")
    (tmp_path / "config").write_text("garbage [ =")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(NotConfigured, match="parse config file"):
        Aws(Settings(aws_region="us-east-1")).client("sts")


def test_a_page_of_a_proxy_is_not_shown() -> None:
    error = explain(ResponseParserError(f"invalid XML received: {'<html>' * 100}"), "asking")
    assert type(error) is FarmUnreachable
    assert len(str(error)) < 400
    assert "proxy" in error.hint


def test_a_broken_service_is_unreachable_whatever_it_calls_that() -> None:
    for code in ("503", "InternalServiceException", ""):
        assert type(explain(answer(code, status=503), "x")) is FarmUnreachable


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("RequestTimeTooSkewed", "The difference between the request time and the current time is too large."),
        ("SignatureDoesNotMatch", "Signature expired: 20261129T120000Z is now earlier than 20261129T124500Z"),
        (
            "InvalidSignatureException",
            "Signature not yet current: 20261129T130000Z is still later than it",
        ),
    ],
)
@pytest.mark.parametrize(("hours", "way"), [(1, "behind"), (-1, "ahead")])
def test_a_wrong_clock_is_told_with_its_offset(code: str, message: str, hours: int, way: str) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(hours=hours), usegmt=True)
    error = explain(answer(code, message, status=403, date=date), "asking")
    assert isinstance(error, NotConfigured)
    assert re.search(rf"clock is wrong by (3599|3600|3601) s: it is {way}: ", error.message)
    assert "timedatectl" in error.hint
    unknown = explain(answer(code, message, status=403, date="soon"), "asking")
    assert "clock is wrong: " in str(unknown)


def test_a_denied_action_is_told_with_the_statement_to_add() -> None:
    said = (
        "User: arn:aws:iam::123456789012:user/me is not authorized to perform: batch:SubmitJob on resource: "
        "arn:aws:batch:us-east-1:123456789012:job-queue/q because no identity-based policy allows it"
    )
    error = explain(answer("AccessDeniedException", said), "submitting")
    assert error is not None
    assert '"Action": "batch:SubmitJob", "Resource": "arn:aws:batch:us-east-1:123456789012:job-queue/q"' in error.hint


def test_what_is_not_of_boto3_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError), explained("dividing"):
        _ = 1 / 0
    with pytest.raises(Refused), explained("asking"):
        raise Refused("no")
    assert isinstance(explain(NoCredentialsError(), "x"), NotConfigured)
    assert "fault of Farmhand" in str(explain(ParamValidationError(report="bad"), "x"))
    assert code_of(answer("Gone")) == "Gone"
    assert code_of(ValueError()) == ""


def test_an_endpoint_that_is_silent_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(FarmUnreachable, match="did not answer"):
        _ = Aws(Settings(aws_region="us-east-1"), tries=1).account
