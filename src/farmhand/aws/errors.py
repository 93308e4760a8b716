"""An error of AWS or of boto3 as one line: what failed, where, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from farmhand.aws.answers import is_page
from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured, Refused
from farmhand.core.keys import redact

#: Source: botocore's standard retry mode, and the services' lists of common errors. They were retried already.
_BUSY = frozenset(
    {
        *("Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "TooManyRequestsException"),
        *("RequestLimitExceeded", "ProvisionedThroughputExceededException", "SlowDown", "ServiceUnavailable"),
        *("InternalError", "InternalFailure", "InternalServerError", "ServerException", "RequestTimeout"),
        *("InternalServiceError", "InternalServerException", "ServiceUnavailableException"),
        # Two writes at once, of which perhaps none was carried out.
        *("ConditionalRequestConflict", "OperationAborted"),
    }
)
#: From this status on the service is to blame.
_BROKEN = 500
#: How an answer says that the time of a request is wrong: S3 by its code, the others in the words of a wrong signature.
_SKEWED = frozenset({"RequestTimeTooSkewed", "RequestInTheFuture"})
_SKEWED_WORDS = re.compile(r"Signature (expired|not yet current)", re.IGNORECASE)
#: EC2 says RequestExpired of a login, others of a signature.
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})
_NO_LOGIN = frozenset(
    {
        *("UnrecognizedClientException", "InvalidClientTokenId", "SignatureDoesNotMatch", "AuthFailure"),
        *("InvalidAccessKeyId", "MissingAuthenticationToken", "IncompleteSignature"),
        *("UnauthenticatedException", "InvalidSignatureException", "OptInRequired", "SubscriptionRequiredException"),
        # Of SSO: the account or the role is not this user's any more, or the session is over.
        *("ForbiddenException", "UnauthorizedException"),
    }
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "NotAuthorized", "403"})
_ACTION = re.compile(r"perform:? ([\w-]+:\w+)(?: on resource:? (\S+))?")
#: Names of the exceptions of botocore that say that there is no usable login.
_LOGIN_ERRORS = frozenset(
    {
        *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"),
        *("SSOTokenLoadError", "UnauthorizedSSOTokenError", "TokenRetrievalError", "SSOError", "LoginRefreshRequired"),
    }
)
#: Of botocore, too: the bases of what says that nothing answered, or not to the end. Any other is about this machine.
_NETWORK_ERRORS = frozenset(
    {"HTTPClientError", "ConnectionError", "IncompleteReadError", "ChecksumError", "FlexibleChecksumError"}
)


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn errors of boto3 inside into a FarmhandError; `doing` begins its message: "reading the stack"."""
    try:
        yield
    except FarmhandError:
        raise
    except Exception as error:
        known = explain(error, doing)
        if known is None:
            raise
        raise known from None


def explain(error: Exception, doing: str) -> FarmhandError | None:
    """Return the error for an exception of boto3, None for any other exception."""
    if not type(error).__module__.startswith(("botocore", "boto3")):
        return None
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return _of_answer(response, doing)
    if type(error).__name__ == "S3UploadFailedError" and isinstance(error.__context__, Exception):
        return explain(error.__context__, doing)
    name, said = type(error).__name__, one_line(str(error))
    if name in _LOGIN_ERRORS:
        return NotConfigured(f"{doing}: {said}", hint="log in (aws sso login, aws configure) or set aws_profile")
    if name == "NoRegionError":
        return NotConfigured(f"{doing}: no region is set", hint="set aws_region in config.toml, or AWS_REGION")
    if name in {"ParamValidationError", "DataNotFoundError", "UnknownServiceError"}:
        return FarmhandError(f"{doing}: {said}", hint="this is a fault of Farmhand, or boto3 is too old")
    if name == "ResponseParserError":
        return _of_another(said, doing)
    if name == "SSLError":
        hint = "see whether a proxy is in the way; AWS_CA_BUNDLE names the certificates that it needs"
        return NotConfigured(f"{doing}: what answered is not trusted: {said}", hint=hint)
    if _NETWORK_ERRORS & {base.__name__ for base in type(error).__mro__}:
        return FarmUnreachable(f"{doing}: AWS did not answer: {said}", hint="see whether this machine is online")
    return NotConfigured(f"{doing}: {said}", hint="see aws_region, ~/.aws/config and the variables AWS_…")


def code_of(error: Exception) -> str:
    """Return AWS's code of an answer that boto3 raised as a ClientError, "" for any other exception."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _of_another(said: str, doing: str) -> FarmUnreachable:
    hint = "see whether a proxy or a login page of the network answers (HTTPS_PROXY, AWS_ENDPOINT_URL)"
    return FarmUnreachable(f"{doing}: what answered is not AWS, or broken: {said:.120}", hint=hint)


def _of_answer(response: dict[str, Any], doing: str) -> FarmhandError:
    error = response.get("Error", {})
    about = response.get("ResponseMetadata", {})
    code, said = str(error.get("Code", "")), one_line(str(error.get("Message", "")))
    if is_page(said.encode()) and int(about.get("HTTPStatusCode") or 0) < _BROKEN:
        return _of_another("a page of HTML", doing)
    if code in _SKEWED or _SKEWED_WORDS.search(said):
        what = f"{doing}: this machine's clock is wrong{_offset(about)}: {said}"
        return NotConfigured(what, hint="set the clock (timedatectl)")
    if code in _EXPIRED:
        return NotConfigured(f"{doing}: the AWS login has expired", hint="log in again: aws sso login")
    if code in _NO_LOGIN:
        return NotConfigured(f"{doing}: AWS refused the login: {said}", hint="see: aws sts get-caller-identity")
    if code in _DENIED:
        action = _ACTION.search(said)
        hint = "ask who administers the account"
        if action:
            resource = (action[2] or "*").rstrip(".")
            statement = f'{{"Effect": "Allow", "Action": "{action[1]}", "Resource": "{resource}"}}'
            hint = f"add {statement} to the policy of your AWS user or role"
        return NotConfigured(f"{doing}: not allowed: {said}", hint=hint)
    # An answer to HEAD has no body, so its code is the status.
    if code in _BUSY or int(about.get("HTTPStatusCode") or 0) >= _BROKEN:
        return FarmUnreachable(f"{doing}: AWS is busy ({code}), also after several tries", hint="try again later")
    if code in {"LimitExceededException", "ServiceQuotaExceededException"} or code.endswith("LimitExceeded"):
        return Refused(f"{doing}: a quota of the account is reached: {said}", hint="ask for more in Service Quotas")
    return FarmhandError(f"{doing}: {code}: {said}")


def _offset(about: dict[str, Any]) -> str:
    """Return by how much this machine's clock differs from the time of an answer, "" if that is not known."""
    try:
        there = parsedate_to_datetime(about["HTTPHeaders"]["date"])
        seconds = round((datetime.now(UTC) - there).total_seconds())
    except (KeyError, TypeError, ValueError):
        return ""
    return f" by {abs(seconds)} s: it is {'ahead' if seconds > 0 else 'behind'}"


def one_line(text: str) -> str:
    """Return a text of others in one line, without keys."""
    return redact(" ".join(text.split()))[:600]
