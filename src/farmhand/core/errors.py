"""Every error Farmhand raises on purpose.

FarmhandError                 exit 1   code            what a user sees
├── TaskFailed                exit 1   (the task's)    the task ran and did not succeed
├── UsageError                exit 2   usage, invalid_*    the request itself is wrong
├── NotConfigured             exit 3   not_configured  a setting, a file or a key is missing
├── FarmUnreachable           exit 4   unreachable     no agent answered
│   └── WireMismatch          exit 4   agent_too_old, client_too_old
└── Refused                   exit 5   refused, budget policy or budget said no

WireError                     (by its code)            client and agent could not work together

A message is one line that says what is wrong and where; the hint says what to do.
"""

from __future__ import annotations

from .keys import redact


class FarmhandError(Exception):
    """Base of all: a stable ``code``, a one-line message, an optional hint, the process's exit status."""

    exit_code = 1
    code = "error"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        """Keep message and hint apart, so that text and JSON can render them their own way."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class TaskFailed(FarmhandError):
    """The task ran and did not succeed; ``code`` is the task's own error code."""

    code = "task_failed"


class UsageError(FarmhandError):
    """The request is wrong in itself: an option, an empty prompt, an invalid schema."""

    exit_code = 2
    code = "usage"


class NotConfigured(FarmhandError):
    """Something the operator has to set up is missing or unsafe: key source, host, settings file."""

    exit_code = 3
    code = "not_configured"


class FarmUnreachable(FarmhandError):
    """No agent answered: no route, wrong host key, refused login, agent down."""

    exit_code = 4
    code = "unreachable"


class WireMismatch(FarmUnreachable):
    """Client and agent speak versions of the wire that do not overlap."""

    code = "wire_mismatch"


class Refused(FarmhandError):
    """Policy or a budget said no."""

    exit_code = 5
    code = "refused"


class WireError(Exception):
    """What went wrong: a stable code, one line, what to do, and the HTTP status if the agent answered with one.

    Codes made here: `not_configured`, `unreachable`, `lost` (the connection broke after it had worked),
    `host_key_unknown`, `host_key_changed`, `login_refused`, `agent_missing`, `agent_down`, `agent_too_old`,
    `client_too_old`, `not_an_agent`, `bad_answer` (it is none of the wire, so nobody knows what was done). Every other
    code is the agent's own.
    """

    def __init__(self, code: str, message: str, hint: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.status = status

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


def not_configured(message: str, hint: str = "") -> WireError:
    """Something the operator has to set up is missing or unsafe. A key pasted where a name belongs is not repeated."""
    return WireError("not_configured", redact(message), redact(hint))
