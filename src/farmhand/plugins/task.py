"""The task described by farmhand_task's arguments, and the failure in the answer of `jada-agent task`."""

from __future__ import annotations

from typing import Any

from farmhand.core.ids import new_task_id
from farmhand.wire.follow import FINAL_STATES

#: The arguments that are fields of a task with the same names.
TASK_FIELDS = (
    "id", "prompt", "system", "model", "engine", "tools", "network", "schema", "max_tokens", "timeout_s", "batch",
    "labels", "priority", "files", "max_usd", "work_class", "economy", "pot",
)  # fmt: skip


def task_of(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the task described by the arguments; omitted fields get the agent's defaults."""
    task = {name: arguments[name] for name in TASK_FIELDS if arguments.get(name) is not None}
    return {"id": new_task_id()} | task


def failure(answer: dict[str, Any]) -> str | None:
    """Return a one-line error for an unsuccessful answer, or None for success."""
    state, error = answer.get("state"), answer.get("error") or {}
    if not error and (state is None or state == "succeeded" or state not in FINAL_STATES):
        return None
    message, hint = error.get("message") or f"the task is {state}", error.get("hint")
    return f"{message} ({hint})" if hint else str(message)
