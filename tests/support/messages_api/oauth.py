"""The token endpoint for workload identity federation: strict, as the provider's SDK 2.12.0 and its guide describe it.

`Federation` is the one rule of the organization, and what the endpoint does oddly. The tokens that it made are keys of
the Messages API until they end or are revoked.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from tests.support.messages_api.errors import ApiError

if TYPE_CHECKING:
    from tests.support.messages_api.state import State

PATH = "/v1/oauth/token"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
FEDERATION_BETA = "oidc-federation-2026-04-01"
AUDIENCE = "https://api.anthropic.com"
_FIELDS = {"grant_type", "assertion", "federation_rule_id", "organization_id"}
_OPTIONAL = {"service_account_id", "workspace_id"}


class Federation(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A federation rule. `subject` is the end of the `sub` of a JWT that matches. `answer` replaces fields of it."""

    rule: str = "fdrl_test"
    organization: str = "00000000-0000-4000-8000-000000000001"
    service_account: str = "svac_test"
    workspace: str = ""
    subject: str = ""
    life_s: float = 600.0
    answer: dict[str, Any] = {}


class Tokens:
    """The tokens that were made, with their ends (monotonic clock)."""

    def __init__(self) -> None:
        self.made: dict[str, float] = {}
        #: Exchanges under way now, and the most at once.
        self.running = self.peak = 0

    def valid(self) -> frozenset[str]:
        """Those that have not ended."""
        now = time.monotonic()
        return frozenset(token for token, end in self.made.items() if end > now)

    def revoke(self) -> None:
        """End all of them now."""
        self.made = dict.fromkeys(self.made, 0.0)

    def clear(self) -> None:
        """Forget all."""
        self.made.clear()


def answer(headers: Mapping[str, str], raw: bytes, state: State) -> dict[str, Any]:
    """The answer to an exchange. Raises ApiError."""
    betas = {part.strip() for part in headers.get("anthropic-beta", "").split(",")}
    if FEDERATION_BETA not in betas:
        raise ApiError(400, "unsupported grant_type")
    if "x-api-key" in headers or "authorization" in headers:
        raise ApiError(400, "client authentication is not allowed here")
    if headers.get("content-type", "").partition(";")[0] != "application/json":
        raise ApiError(400, "content-type must be application/json")
    rule = state.federation
    try:
        body = json.loads(raw)
        claims = _claims(body["assertion"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ApiError(400, "invalid_request") from None
    if not _FIELDS <= body.keys() <= _FIELDS | _OPTIONAL or not all(isinstance(v, str) and v for v in body.values()):
        raise ApiError(400, f"invalid_request: {sorted(body.keys() ^ _FIELDS)}")
    if body["grant_type"] != GRANT:
        raise ApiError(400, "unsupported grant_type")
    if claims["exp"] < time.time() or claims["aud"] != AUDIENCE or not claims["sub"].endswith(rule.subject):
        raise ApiError(401, f"the assertion {body['assertion']} matches no rule")
    given = (body["federation_rule_id"], body["organization_id"], body.get("service_account_id", ""))
    if given != (rule.rule, rule.organization, rule.service_account) or body.get("workspace_id", "") != rule.workspace:
        raise ApiError(401, "Authentication failed")
    token = f"sk-ant-oat01-test-federated-{len(state.tokens.made):08d}"
    state.tokens.made[token] = time.monotonic() + rule.life_s
    made = {
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": int(rule.life_s),
        "scope": "workspace:inference",
    }
    return {name: value for name, value in (made | rule.answer).items() if value is not None}


def _claims(jwt: str) -> dict[str, Any]:
    _, middle, _ = jwt.split(".")
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    return found
