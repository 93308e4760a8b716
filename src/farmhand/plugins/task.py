"""The task described by farmhand_task's arguments, and the failure in the answer of `jada-agent task`."""

from __future__ import annotations

from typing import Any

from farmhand.core.ids import new_task_id
from farmhand.wire.follow import FINAL_STATES
from farmhand.wire.transport import AGENT_SOCKET

#: The arguments that are fields of a task with the same names.
TASK_FIELDS: dict[str, dict[str, Any]] = {
    "id": {"type": "str"},
    "prompt": {"type": "str"},
    "system": {"type": "str"},
    "model": {"type": "str"},
    "engine": {"type": "str", "choices": ["auto", "api", "cli"]},
    "tools": {"type": "list", "elements": "str"},
    "network": {"type": "str", "choices": ["none", "full"]},
    "schema": {"type": "dict"},
    "max_tokens": {"type": "int"},
    "timeout_s": {"type": "float"},
    "batch": {"type": "str"},
    "labels": {"type": "dict"},
}
ARGUMENTS: dict[str, dict[str, Any]] = TASK_FIELDS | {
    "prompt_file": {"type": "path"},
    "key_source": {"type": "str", "no_log": False},
    "orders": {"type": "path"},
    "socket": {"type": "path", "default": AGENT_SOCKET},
}


def task_of(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the task described by the arguments; omitted fields get the agent's defaults."""
    task = {name: arguments[name] for name in TASK_FIELDS if arguments.get(name) is not None}
    task.setdefault("id", new_task_id())
    return task


def failure(answer: dict[str, Any]) -> str | None:
    """Return a one-line error for an unsuccessful answer, or None for success."""
    state, error = answer.get("state"), answer.get("error") or {}
    if not error and (state is None or state == "succeeded" or state not in FINAL_STATES):
        return None
    message, hint = error.get("message") or f"the task is {state}", error.get("hint")
    return f"{message} ({hint})" if hint else str(message)
