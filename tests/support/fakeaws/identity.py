"""`sts:GetWebIdentityToken`, which moto lacks: a JWT of the caller, not signed by anyone.

Source: the model of botocore 1.44.8; the account's switch and its error are in the IAM user guide, "Outbound identity
federation".
"""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from moto.core.responses import ActionResult
from moto.sts import responses
from moto.sts.exceptions import STSClientError

from tests.support.fakeaws.options import OPTIONS

_ALGORITHMS = ("RS256", "ES384")


def change() -> None:
    """Change moto."""
    responses.TokenResponse.get_web_identity_token = _get_web_identity_token


def _get_web_identity_token(self: Any) -> ActionResult:
    audience, seconds = self._get_param("Audience") or [], int(self._get_param("DurationSeconds") or 300)
    if not OPTIONS.outbound:
        raise STSClientError(
            "OutboundWebIdentityFederationDisabledException",
            "Outbound web identity federation is not enabled for this account.",
        )
    if not audience or self._get_param("SigningAlgorithm") not in _ALGORITHMS or not 60 <= seconds <= 3600:
        raise STSClientError("ValidationError", "1 validation error detected")
    _, arn, _ = self.backend.get_caller_identity(self.get_access_key(), self.region)
    token = jwt_of(arn, audience[0], seconds, self._get_param("SigningAlgorithm"))
    return ActionResult({"WebIdentityToken": token, "Expiration": int(time.time()) + seconds})


def jwt_of(subject: str, audience: str, seconds: int, algorithm: str = "RS256") -> str:
    """A JWT that says so."""
    now = int(time.time())
    issuer = "https://00000000-0000-4000-8000-000000000000.tokens.sts.global.api.aws"
    claims = {"iss": issuer, "sub": subject, "aud": audience, "iat": now, "exp": now + seconds}
    return ".".join(map(_part, ({"alg": algorithm, "typ": "JWT"}, claims, "signature")))


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
