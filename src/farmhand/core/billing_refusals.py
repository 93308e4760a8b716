"""How the API says that it does not serve the account behind a key, whatever the status that it says it with."""

from __future__ import annotations

import re
from typing import Any

#: Code → what to do about it.
HINTS = {
    "billing_error": "check the credit and the billing details of the API account",
    "account_disabled": "the provider has disabled this key's organization: ask its support, or use another one's key",
    "spend_limit": "raise the spend limit of the API account, or wait until it resets",
}
#: Beginnings of messages. An empty balance, one's own spend limit and a disabled organization come as 400
#: `invalid_request_error`, so that only the message says which it is.
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
    """(code, hint) of the refusal in an answer's `error` object; two empty strings where it is about something else.

    The code is one of HINTS. `status` is the answer's, 0 for an error inside an answer.
    """
    message = error.get("message")
    # A message about a field begins with the field's name, which is the request's own text, and a colon.
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
