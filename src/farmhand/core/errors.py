"""The errors that Farmhand raises on purpose.

FarmhandError                 exit 1   code            what a user sees
├── TaskFailed                exit 1   (the task's)    the task ran and did not succeed
├── UsageError                exit 2   usage, invalid_*    the request itself is wrong
├── NotConfigured             exit 3   not_configured  a setting, a file or a key is missing
├── FarmUnreachable           exit 4   unreachable     no agent answered
│   └── WireMismatch          exit 4   agent_too_old, client_too_old
├── Refused                   exit 5   refused, budget policy or budget said no
└── WireError                 by its code              client and agent could not work together

A message is one line that names the problem and its place; the hint names the remedy.
"""

from __future__ import annotations

from typing import Any

from .keys import redact


class FarmhandError(Exception):
    """The base class: a stable ``code``, a one-line message, an optional hint and the exit status of the process."""

    exit_code = 1
    code = "error"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def as_dict(self) -> dict[str, str]:
        """Return the error as it appears on the wire and in all JSON output."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


class TaskFailed(FarmhandError):
    """The task ran and did not succeed; ``code`` is the task's own error code."""

    code = "task_failed"


class UsageError(FarmhandError):
    """The request itself is invalid: an option, an empty prompt, an invalid schema."""

    exit_code = 2
    code = "usage"


class NotConfigured(FarmhandError):
    """Something that the operator has to set up is missing or unsafe: key source, host, settings file."""

    exit_code = 3
    code = "not_configured"


class FarmUnreachable(FarmhandError):
    """No agent answered: no route, wrong host key, refused login, agent down."""

    exit_code = 4
    code = "unreachable"


class WireMismatch(FarmUnreachable):
    """Client and agent have no wire version in common."""

    code = "wire_mismatch"


class Refused(FarmhandError):
    """A policy or a budget rejected the request."""

    exit_code = 5
    code = "refused"


#: Why a task waits whose pot is spent.
POT_SPENT = "pot_spent"
#: The codes of WireErrors by class.
_CODES: dict[type[FarmhandError], tuple[str, ...]] = {
    NotConfigured: (
        *("not_configured", "bad_key", "no_key", "authentication_error"),
        *("dead_key", "key_source_changed", "key_missing", "retire_by_hand"),
    ),
    WireMismatch: ("agent_too_old", "client_too_old"),
    Refused: (
        *("network_refused", "refused", "budget", "account_disabled", "billing_error", "spend_limit"),
        *(POT_SPENT, "pot_refused"),
        *("rotation_running", "subscription_cli_only"),
    ),
    TaskFailed: ("agent_error",),
    UsageError: ("no_rotation", "rotation_unfinished", "too_late"),
    FarmhandError: ("api_unreachable", "rotation_failed", "still_running"),
    FarmUnreachable: (
        *("unreachable", "lost", "host_key_unknown", "host_key_changed", "login_refused", "hosts_unreached"),
        *("agent_missing", "agent_down", "not_an_agent", "bad_answer", "stranger", "draining"),
    ),
}
_KINDS = {code: kind for kind, codes in _CODES.items() for code in codes}


class WireError(FarmhandError):
    """An error between client and agent: a stable code, a one-line message, a hint, the HTTP status of the answer.

    `lost`: the connection broke after it had worked. `bad_answer`: the answer does not follow the wire, so the outcome
    of the request is unknown. A code that is not known here is classified by its status: 4xx means that the request was
    wrong.
    """

    def __init__(self, code: str, message: str, hint: str = "", status: int = 0) -> None:
        super().__init__(message, hint=hint, code=code)
        self.status = status
        self.kind = _KINDS.get(code) or (UsageError if 400 <= status < 500 else FarmUnreachable)
        self.exit_code = self.kind.exit_code

    def at(self, host: str = "") -> FarmhandError:
        """Return the error as its `kind`. With `host`, name that host and report any refusal by it as unreachable."""
        unasked = bool(host and self.status) and not issubclass(self.kind, FarmUnreachable)
        message = self.message if host in self.message else f"{host}: {self.message}"
        return (FarmUnreachable if unasked else self.kind)(message, hint=self.hint, code=self.code)


def from_result(result: dict[str, Any]) -> FarmhandError | None:
    """Return why a task with this result did not succeed, or None if it did."""
    if result.get("state") == "succeeded":
        return None
    error = result.get("error") or {}
    code = str(error.get("code") or result.get("state") or "task_failed")
    message = str(error.get("message") or f"the task is {result.get('state')}")
    kind = _KINDS.get(code)
    kind = kind if kind in (NotConfigured, Refused) else TaskFailed
    return kind(message, hint=str(error.get("hint") or ""), code=code)


def not_configured(message: str, hint: str = "") -> WireError:
    """Return the error for a missing or unsafe setup. A key pasted in place of a name is not repeated."""
    return WireError("not_configured", redact(message), redact(hint))
