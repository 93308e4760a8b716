"""Workload identity federation: the task role's own identity is exchanged for access tokens that last some minutes.

`sts:GetWebIdentityToken` returns a JWT signed by AWS; `POST /v1/oauth/token` takes it and returns an access token. The
body, the headers and the two times of renewal are those of the provider's SDK (2.12.0, `lib/credentials`); the beta of
this call is on no other. Nothing is stored anywhere.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from farmhand.cloud.calls import CallFailed, called
from farmhand.cloud.ending import ContainerEnds
from farmhand.core import api_call, keys
from farmhand.core.addresses import is_safe
from farmhand.core.api_call import ApiAnswer
from farmhand.core.errors import WireError
from farmhand.core.shard import EXIT_CONFIG, EXIT_LEFT, EXIT_REFUSED
from farmhand.core.task_access import FEDERATION

PATH = "/v1/oauth/token"
AUDIENCE = "https://api.anthropic.com"
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
#: The second routes the call to the federation's service.
BETAS = "oauth-2025-04-20,oidc-federation-2026-04-01"
ALGORITHM = "RS256"
#: Seconds that the JWT lasts. It is used at once; the role may have it for 900.
JWT_S = 300
#: Seconds for one exchange.
TIMEOUT_S = 30.0
#: Seconds before its end at which a token is renewed, and from which it is used no more; at most these parts of its
#: life, because a rule may make it short.
ADVISORY_S, MANDATORY_S = 120.0, 30.0
_ADVISORY, _MANDATORY = 1 / 2, 1 / 4
#: The shortest and the longest life that is believed, in seconds.
_SHORTEST_S, _LONGEST_S = 10.0, 86_400.0
_PASSING_STATUS = frozenset({408, 409, 429})
#: AWS says these where an administrator has to do something.
_OF_AWS = {
    "OutboundWebIdentityFederationDisabledException": "switch it on: aws iam enable-outbound-web-identity-federation",
    "OutboundWebIdentityFederationDisabled": "switch it on: aws iam enable-outbound-web-identity-federation",
    "AccessDenied": "the stack gives the task role that right when it has the federation's ids: farmhand cloud "
    "credential put --kind federation",
}
_JWT = re.compile(r"eyJ[\w-]{8,}(\.[\w-]*)*")


class FederationIds(NamedTuple):
    """The ids of a federation rule; "" for one that is not needed. None of them is secret."""

    rule: str
    organization: str
    service_account: str = ""
    workspace: str = ""

    @classmethod
    def of(cls, text: str) -> FederationIds:
        """Return the ids in FARMHAND_FEDERATION. Raise ContainerEnds."""
        parts = [part.strip() for part in text.split(",")]
        if len(parts) != len(cls._fields) or not (parts[0] and parts[1]):
            hint = "farmhand cloud credential put --kind federation sets the ids"
            raise ContainerEnds(EXIT_CONFIG, f"{FEDERATION} has no rule and organization, and there is no key: {hint}")
        return cls(*parts)


@dataclass(frozen=True)
class AccessToken:
    """An access token. `renew_at` and `until` (monotonic clock): when it is renewed, and from when it is not used."""

    value: str
    renew_at: float
    until: float

    def __repr__(self) -> str:
        return f"AccessToken({keys.fingerprint(self.value)})"


class ExchangeFailed(Exception):
    """There is no token. `code` is the container's exit code; `passing`: a later try may succeed."""

    def __init__(self, code: int, message: str, *, passing: bool = False, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.passing = passing
        self.after_s = after_s


class TokenExchange:
    """The exchange at the API `upstream`, as the task role of the client `sts`. Call it for a new token."""

    def __init__(
        self, ids: FederationIds, upstream: str, sts: Any, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ids, self._upstream, self._sts, self._clock = ids, upstream, sts, clock
        if not is_safe(upstream):
            raise ContainerEnds(EXIT_CONFIG, f"{upstream!r:.100} is not https: no identity is sent there")

    def __call__(self) -> AccessToken:
        """Return a new token. Raise ExchangeFailed."""
        body = {
            "grant_type": GRANT_TYPE,
            "assertion": self._identity(),
            "federation_rule_id": self._ids.rule,
            "organization_id": self._ids.organization,
        }
        more = {"service_account_id": self._ids.service_account, "workspace_id": self._ids.workspace}
        body |= {name: value for name, value in more.items() if value}
        # Its life is counted from before the call, by a clock that nobody sets.
        began = self._clock()
        try:
            answer = api_call.ask(self._upstream, PATH, {"anthropic-beta": BETAS}, body, TIMEOUT_S)
        except WireError as error:
            raise ExchangeFailed(EXIT_LEFT, f"the token exchange: {error}", passing=True) from None
        if answer.status != 200:
            raise self._refusal(answer)
        value, life_s = self._read(answer.document)
        before, least = min(ADVISORY_S, life_s * _ADVISORY), min(MANDATORY_S, life_s * _MANDATORY)
        return AccessToken(value, began + life_s - before, began + life_s - least)

    def _identity(self) -> str:
        try:
            answer = called(
                "sts:GetWebIdentityToken",
                lambda: self._sts.get_web_identity_token(
                    Audience=[AUDIENCE], SigningAlgorithm=ALGORITHM, DurationSeconds=JWT_S
                ),
            )
        except CallFailed as error:
            hint = _OF_AWS.get(error.code)
            if hint is None:
                code = EXIT_LEFT if error.passing else EXIT_CONFIG
                raise ExchangeFailed(code, str(error), passing=error.passing) from None
            # A role's new right takes some seconds to arrive everywhere.
            raise ExchangeFailed(EXIT_CONFIG, f"{error}; {hint}", passing=error.code == "AccessDenied") from None
        return str(answer["WebIdentityToken"])

    def _refusal(self, answer: ApiAnswer) -> ExchangeFailed:
        said = f"the token exchange: HTTP {answer.status}: {_words(answer.document)}"
        if answer.status == 401:
            where = "" if self._ids.workspace else ", and a rule of several workspaces needs --workspace"
            rule = f"the federation rule {self._ids.rule} does not match this task's role"
            return ExchangeFailed(
                EXIT_REFUSED, f"{rule}: see Workload identity in the Claude Console{where} ({said})", passing=True
            )
        if answer.status in _PASSING_STATUS or answer.status >= 500:
            from farmhand.meter.headroom import retry_after_s  # not at the top: it brings the whole meter

            after_s = retry_after_s(answer.headers) or 0.0
            return ExchangeFailed(EXIT_LEFT, said, passing=True, after_s=after_s)
        return ExchangeFailed(EXIT_CONFIG, f"{said}: check the federation's ids and the API's address")

    def _read(self, document: Any) -> tuple[str, float]:
        """Return the token and its life in seconds. An answer that makes no sense may come from a gateway between."""
        found = document if isinstance(document, dict) else {}
        token, kind, life = found.get("access_token"), found.get("token_type", "Bearer"), found.get("expires_in")
        if isinstance(life, str) and life.isascii() and life.isdecimal() and len(life) < 20:
            life = int(life)
        wrong = ""
        if not found:
            wrong = "it is no JSON object"
        elif not (isinstance(token, str) and keys.is_key(token) and token.startswith(keys.TOKEN_PREFIX)):
            wrong = "it has no access_token"
        elif str(kind).lower() != "bearer":
            wrong = "its token_type is not Bearer"
        elif isinstance(life, bool) or not isinstance(life, int | float | Decimal) or not life >= _SHORTEST_S:
            wrong = f"its expires_in is not a number of {_SHORTEST_S:g} or more"
        if wrong:
            where = f"{self._upstream}{PATH}"
            raise ExchangeFailed(EXIT_CONFIG, f"the answer of {where} is not a token's: {wrong}", passing=True)
        return str(token), min(float(life or 0), _LONGEST_S)


def _words(document: Any) -> str:
    """Return what a refusal says. It may repeat what was sent, which is a credential."""
    found = document if isinstance(document, dict) else {}
    error = found.get("error")
    said = found.get("error_description") or (error.get("message") if isinstance(error, dict) else error)
    return _JWT.sub("…", keys.redact(" ".join(str(said or "no reason given").split())))[:200]
