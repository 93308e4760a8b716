"""From the wire's codes to the package's errors, and so to exit codes."""

from __future__ import annotations

from ..core.errors import (
    FarmhandError,
    FarmUnreachable,
    NotConfigured,
    Refused,
    TaskFailed,
    UsageError,
    WireError,
    WireMismatch,
)

TYPE_CHECKING = False  # as in farmhand.wire.http1
if TYPE_CHECKING:
    from typing import Any

_KINDS: dict[str, type[FarmhandError]] = {
    "not_configured": NotConfigured,
    "bad_key": NotConfigured,
    "no_key": NotConfigured,
    "authentication_error": NotConfigured,
    "agent_too_old": WireMismatch,
    "client_too_old": WireMismatch,
    "network_refused": Refused,
    "refused": Refused,
    "budget": Refused,
    "account_disabled": Refused,
    "billing_error": Refused,
    "spend_limit": Refused,
    "agent_error": TaskFailed,
    "dead_key": NotConfigured,
    "key_source_changed": NotConfigured,
    "key_missing": NotConfigured,
    "retire_by_hand": NotConfigured,
    "no_rotation": UsageError,
    "rotation_unfinished": UsageError,
    "too_late": UsageError,
    "rotation_running": Refused,
    "hosts_unreached": FarmUnreachable,
    "api_unreachable": FarmhandError,
    "rotation_failed": FarmhandError,
    "still_running": FarmhandError,
    **dict.fromkeys(
        (
            "unreachable",
            "lost",
            "host_key_unknown",
            "host_key_changed",
            "login_refused",
            "agent_missing",
            "agent_down",
            "not_an_agent",
            "bad_answer",
            "stranger",
            "draining",
        ),
        FarmUnreachable,
    ),
}


def from_wire(error: WireError, host: str = "") -> FarmhandError:
    """The package's error for one of the wire. A code not known here goes by its status: 4xx blames the request.

    With `host` somebody looks at a host: the message names it, and whatever it answers, it could not be asked.
    """
    kind = _KINDS.get(error.code)
    if kind is None:
        kind = UsageError if 400 <= error.status < 500 else FarmUnreachable
    if host and error.status and not issubclass(kind, FarmUnreachable):
        kind = FarmUnreachable
    message = error.message if not host or host in error.message else f"{host}: {error.message}"
    return kind(message, hint=error.hint, code=error.code)


def from_result(result: dict[str, Any]) -> FarmhandError | None:
    """Why a task with this result did not succeed; None if it did."""
    if result.get("state") == "succeeded":
        return None
    error = result.get("error") or {}
    code = str(error.get("code") or result.get("state") or "task_failed")
    message = str(error.get("message") or f"the task is {result.get('state')}")
    kind = Refused if _KINDS.get(code) is Refused else TaskFailed
    return kind(message, hint=str(error.get("hint") or ""), code=code)
