"""The wire's own error. `code` is stable; the package maps it to farmhand.errors, a module to its failure message."""

from __future__ import annotations

from .keys import redact


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
