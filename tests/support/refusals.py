"""What the API and the gateways before it answer in place of an answer: one case a row, and what has to come of it.

Sources: the error reference and the SDKs' tests of the provider, and public reports about claude-code, openai-agents,
litellm, openclaw, hermes-agent, superglue, better-ccflare and Cloudflare's list of its own statuses.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

from tests.support.messages_api.errors import CREDIT, DISABLED, USAGE_LIMIT, WORKSPACE_LIMIT

#: Tries of a request, and refusals of one that say when to come back: what `RetryPolicy` has.
TRIES, TOLD = 6, 50
#: The least and the most of the first pause where the API does not say.
BACKOFF = (0.25, 0.5)
HTML = "<html><head><title>520: Web server is returning an unknown error</title></head></html>"
#: An instant, as the clock of these cases has it, and in a header.
NOW = 1_795_867_200.0
NOW_TEXT = "Sat, 28 Nov 2026 12:00:00 GMT"
Ends = Literal["passes", "fails", "parks"]


@dataclass(frozen=True)
class Refusal:
    """One answer. `ends`: it passes (and is tried again after `wait_s`), the task fails at once, or its key is parked.

    `code` is the task's error where it never passes, `requests` how many there are then.
    """

    name: str
    status: int
    ends: Ends
    code: str
    wait_s: tuple[float, float] = BACKOFF
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""

    @property
    def requests(self) -> int:
        """The most requests of one task, and exactly as many where it does not pass."""
        if self.ends != "passes":
            return 1
        return TOLD if self.status == 429 and self.wait_s != BACKOFF else TRIES


def _error(kind: str, message: str, **more: object) -> str:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message, **more}})


def _429(name: str, wait_s: tuple[float, float] = BACKOFF, **headers: str) -> Refusal:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return Refusal(name, 429, "passes", "rate_limit_error", wait_s, named, _error("rate_limit_error", "slow down"))


def _passes(status: int, code: str, body: str = "", name: str = "", **headers: str) -> Refusal:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return Refusal(name or f"{status}", status, "passes", code, headers=named, body=body)


_LIMIT = {f"anthropic-ratelimit-requests-{what}": "0" for what in ("remaining", "limit")}
_CAP = (600.0, 600.0)
REFUSALS = [
    # --- when to come back ----------------------------------------------------------------------------------------
    _429("429 without a word"),
    _429("retry-after 0", retry_after="0"),
    _429("retry-after 0.0", retry_after="0.0"),
    _429("retry-after negative", retry_after="-43"),
    _429("retry-after nan", retry_after="nan"),
    _429("retry-after inf", retry_after="inf"),
    _429("retry-after -inf", retry_after="-Infinity"),
    _429("retry-after 1e400", retry_after="1e400"),
    _429("retry-after a word", retry_after="soon"),
    _429("retry-after empty", retry_after=""),
    _429("retry-after not ASCII", retry_after="\uff15"),
    _429("retry-after two values", retry_after="5, 10"),
    _429("retry-after a little", (0.5, 0.5), retry_after="0.001"),
    _429("retry-after 7", (7.0, 7.0), retry_after="7"),
    _429("retry-after a fraction", (7.5, 7.5), retry_after=" 7.5 "),
    _429("retry-after 171", (171.0, 171.0), retry_after="171"),
    _429("retry-after a billion", _CAP, retry_after="1000000000"),
    _429("retry-after 400 digits", _CAP, retry_after="9" * 400),
    _429("retry-after a date", (30.0, 30.0), retry_after="Sat, 28 Nov 2026 12:00:30 GMT", date=NOW_TEXT),
    _429("retry-after a date that is past", retry_after="Sat, 28 Nov 2026 11:59:30 GMT", date=NOW_TEXT),
    _429("retry-after a date of long ago", retry_after="Thu, 01 Jan 1970 00:00:00 GMT", date=NOW_TEXT),
    _429("retry-after a date far ahead", _CAP, retry_after="Fri, 31 Dec 9999 23:59:59 GMT", date=NOW_TEXT),
    _429("retry-after no date", retry_after="Sat, 99 Nov 99999 99:99:99 GMT", date=NOW_TEXT),
    _429("retry-after a date, clocks apart", (30.0, 30.0), retry_after="Thu, 01 Jan 1970 00:00:30 GMT",
         date="Thu, 01 Jan 1970 00:00:00 GMT"),
    _429("retry-after-ms", (1.5, 1.5), retry_after_ms="1500"),
    _429("retry-after-ms before retry-after", (1.5, 1.5), retry_after_ms="1500", retry_after="60"),
    _429("retry-after-ms 0, retry-after 9", (9.0, 9.0), retry_after_ms="0", retry_after="9"),
    _429("retry-after-ms nan", retry_after_ms="nan"),
    _429("retry-after-ms a billion of them", _CAP, retry_after_ms="1" + "0" * 12),
    _429("x-should-retry true", x_should_retry="true"),
    Refusal("429 x-should-retry false", 429, "fails", "rate_limit_error", headers={"x-should-retry": "false"}),
    Refusal("429 html", 429, "passes", "rate_limit_error", body=HTML),
    # --- the limits' headers --------------------------------------------------------------------------------------
    Refusal("limits 0", 429, "passes", "rate_limit_error", headers=_LIMIT),
    *(
        Refusal(f"limit's {what} {value!r:.20}", 429, "passes", "rate_limit_error", wait, headers={
            "anthropic-ratelimit-requests-limit": "60",
            "anthropic-ratelimit-requests-remaining": "5",
            "anthropic-ratelimit-requests-reset": "2026-11-28T12:00:30Z",
            "date": NOW_TEXT,
            f"anthropic-ratelimit-requests-{what}": value,
        })
        for what, value, wait in [
            ("remaining", "nan", BACKOFF),
            ("remaining", "-1", BACKOFF),
            ("remaining", "1" * 400, BACKOFF),
            ("limit", "9" * 400, BACKOFF),
            ("limit", "inf", BACKOFF),
            ("reset", "9999-12-31T23:59:59Z", BACKOFF),
            ("reset", "0001-01-01T00:00:00+23:59", BACKOFF),
            ("reset", "1" * 400, BACKOFF),
        ]
    ),
    # --- statuses that may pass -----------------------------------------------------------------------------------
    _passes(408, "timeout_error", _error("timeout_error", "Request timeout")),
    _passes(409, "conflict_error", _error("conflict_error", "locked")),
    _passes(500, "api_error", _error("api_error", "Internal server error")),
    _passes(501, "api_error"),
    _passes(502, "api_error", HTML),
    _passes(503, "overloaded_error", _error("overloaded_error", "Overloaded")),
    _passes(504, "timeout_error"),
    _passes(505, "api_error"),
    *(_passes(status, "api_error", HTML) for status in (520, 521, 522, 523, 524, 525, 526, 527, 530, 598, 599)),
    _passes(529, "overloaded_error", _error("overloaded_error", "Overloaded")),
    _passes(529, "overloaded_error", name="529 retry-after 0", retry_after="0"),
    _passes(500, "api_error", '{"error":' * 30_000, name="500 deep JSON"),
    _passes(500, "api_error", '{"error": {"type": 5, "message": {"a": 1}}}', name="500 of other types"),
    _passes(400, "invalid_request", name="400 x-should-retry true", x_should_retry="true"),
    Refusal("503 retry-after 20", 503, "passes", "api_error", (20.0, 20.0), {"retry-after": "20"}),
    Refusal("529 retry-after a billion", 529, "passes", "overloaded_error", _CAP, {"retry-after": "1000000000"}),
    # --- statuses that do not -------------------------------------------------------------------------------------
    Refusal("500 x-should-retry false", 500, "fails", "api_error", headers={"x-should-retry": "false"}),
    Refusal("529 x-should-retry false", 529, "fails", "overloaded_error", headers={"x-should-retry": "false"}),
    Refusal("400", 400, "fails", "invalid_request", body=_error("invalid_request_error", "messages: required")),
    Refusal("400 that quotes a field", 400, "fails", "invalid_request",
            body=_error("invalid_request_error", f"{CREDIT}: Extra inputs are not permitted")),
    Refusal("400 that quotes a value", 400, "fails", "invalid_request",
            body=_error("invalid_request_error", f"messages.0.role: Input should be 'user', not '{CREDIT}'")),
    Refusal("400 that quotes a disabled organization", 400, "fails", "invalid_request",
            body=_error("invalid_request_error", f"messages.0.role: Input should be 'user', not '{DISABLED}'")),
    Refusal("403", 403, "fails", "permission_error"),
    Refusal("404", 404, "fails", "not_found_error", body=_error("not_found_error", "no such path")),
    Refusal("413", 413, "fails", "request_too_large", body=HTML),
    Refusal("422", 422, "fails", "invalid_request_error", body=_error("invalid_request_error", "no")),
    Refusal("425", 425, "fails", "api_error"),
    Refusal("302", 302, "fails", "api_error", headers={"location": "https://example.com/"}),
    Refusal("400 retry-after", 400, "fails", "invalid_request", headers={"retry-after": "5"}),
    # --- the key, and the money behind it -------------------------------------------------------------------------
    Refusal("401", 401, "parks", "authentication_error", body=_error("authentication_error", "invalid x-api-key")),
    Refusal("401 x-should-retry true", 401, "parks", "authentication_error", headers={"x-should-retry": "true"}),
    Refusal("402", 402, "parks", "billing_error", body=_error("billing_error", "There is an issue")),
    Refusal("402 without a body", 402, "parks", "billing_error"),
    Refusal("400 credit", 400, "parks", "billing_error", body=_error("invalid_request_error", CREDIT)),
    Refusal("400 credit, other words after it", 400, "parks", "billing_error",
            body=_error("invalid_request_error", "Your credit balance is too low to access the Claude API.")),
    Refusal("403 credit", 403, "parks", "billing_error", body=_error("invalid_request_error", CREDIT)),
    Refusal("400 credit, retry", 400, "parks", "billing_error", headers={"x-should-retry": "true", "retry-after": "1"},
            body=_error("invalid_request_error", CREDIT)),
    Refusal("400 usage limit", 400, "parks", "spend_limit", body=_error("invalid_request_error", USAGE_LIMIT)),
    Refusal("400 workspace limit", 400, "parks", "spend_limit", body=_error("invalid_request_error", WORKSPACE_LIMIT)),
    Refusal("400 disabled", 400, "parks", "account_disabled", body=_error("invalid_request_error", DISABLED)),
    Refusal("401 disabled", 401, "parks", "account_disabled", body=_error("authentication_error", DISABLED)),
    Refusal("403 disabled", 403, "parks", "account_disabled",
            body=_error("permission_error", "Your organization has been disabled. Please contact support.")),
    Refusal("429 usage limit", 429, "parks", "spend_limit", headers={"retry-after": "1"},
            body=_error("rate_limit_error", USAGE_LIMIT)),
    Refusal("429 spend limit", 429, "parks", "spend_limit",
            body=_error("rate_limit_error", "monthly", details={"error_code": "enforced_spend_limit_reached"})),
    Refusal("429 spend limit, retry", 429, "parks", "spend_limit",
            headers={"retry-after": "1", "x-should-retry": "true"},
            body=_error("rate_limit_error", "monthly", error_code="enforced_spend_limit_reached")),
    Refusal("429 of a gateway's quota", 429, "parks", "billing_error", headers={"x-should-retry": "false"},
            body=_error("billing_error", "your daily quota is reached; it resets soon.")),
]  # fmt: skip
