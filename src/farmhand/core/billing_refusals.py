"""Recognition of the API's refusals to serve the account behind a key, whatever their HTTP status."""

from __future__ import annotations

import re
from typing import Any

#: Error code → hint.
HINTS = {
    "billing_error": "check the credit and the billing details of the API account",
    "account_disabled": "the provider has disabled this key's organization: ask its support, or use another one's key",
    "spend_limit": "raise the spend limit of the API account, or wait until it resets",
}
#: Beginnings of messages. An empty balance, the customer's own spend limit and a disabled organization are all reported
#: as 400 `invalid_request_error`, so only the message distinguishes them.
#: Source: error bodies in public reports, 2025-05 to 2026-08.
_MESSAGES = (
    (
        re.compile(r"your credit balance is too low\b", re.IGNORECASE),
        "billing_error",
        "buy credits in the Console (Billing), or have it reload them by itself",
    ),
    (
        re.compile(r"you have reached your specified (?:\w+ )?api usage limits\b", re.IGNORECASE),
        "spend_limit",
        "raise the limit that was set for the organization or the workspace (Console, Limits), or wait until it resets",
    ),
    (
        re.compile(r"(?:this|your) organization has been disabled\b", re.IGNORECASE),
        "account_disabled",
        HINTS["account_disabled"],
    ),
)
_SPENT = "enforced_spend_limit_reached"


def refusal(status: int, error: dict[str, Any]) -> tuple[str, str]:
    """Return (code, hint) for the `error` object of an answer, or two empty strings if it is not a billing refusal.

    The code is a key of HINTS. `status` is the HTTP status, or 0 for an error inside an answer.
    """
    message = error.get("message")
    # A message about a request field begins with the field's name, which the requester chose, and a colon.
    if isinstance(message, str) and ": " not in message:
        for pattern, code, hint in _MESSAGES:
            if pattern.match(message.strip()):
                return code, hint
    details = error.get("details")
    if _SPENT in (error.get("error_code"), details.get("error_code") if isinstance(details, dict) else None):
        return "spend_limit", HINTS["spend_limit"]
    if status == 402 or error.get("type") == "billing_error":
        return "billing_error", HINTS["billing_error"]
    return "", ""
