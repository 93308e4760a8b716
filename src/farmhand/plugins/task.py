"""What the Ansible module farmhand_task does on the farm host. It never has the key: the action plugin brings that."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from typing import Any

from ..core.errors import WireError
from ..core.ids import new_task_id
from ..wire.client import Client
from ..wire.follow import FINAL_STATES, run_task
from ..wire.transport import Transport

#: The module's parameters that are fields of a task, under the same names.
TASK_FIELDS = (
    "id",
    "prompt",
    "system",
    "model",
    "engine",
    "tools",
    "network",
    "schema",
    "max_tokens",
    "timeout_s",
    "batch",
    "labels",
)


def task_of(parameters: dict[str, Any]) -> dict[str, Any]:
    """The task that the module's parameters describe; what was not given is left to the agent's defaults."""
    task = {name: parameters[name] for name in TASK_FIELDS if parameters.get(name) is not None}
    task.setdefault("id", new_task_id())
    return task


def predict(client: Client, task: dict[str, Any]) -> dict[str, Any]:
    """Check mode: what `perform` would return as far as it is known, without running anything. Raises WireError."""
    client.connect()
    try:
        known = client.task(task["id"])
    except WireError as error:
        if error.code != "no_such_task":
            raise
        # Empty and not missing, so that a playbook that goes on with the answer can be checked to its end.
        return {"changed": True, "id": task["id"], "text": "", "structured": None}
    return {"changed": known.get("state") not in FINAL_STATES, **known}


def perform(client: Client, task: dict[str, Any]) -> dict[str, Any]:
    """Run the task to its end: its result with `changed`, which is false if that was there before. Raises WireError.

    A task that waits for a key comes back in state `awaiting_key`.
    """
    states = client.submit([task])
    before = states[0].get("state") if states else None
    if before in FINAL_STATES:
        return {"changed": False, **client.task(task["id"])}
    return {"changed": True, **run_task(client, task, None, lambda _event: None)}


def failure(answer: dict[str, Any]) -> str | None:
    """The one line for an answer that is no success, None for one that is."""
    state = answer.get("state")
    if state == "awaiting_key":
        return "the task waits for the API key (run the module through its action plugin, which brings it)"
    if state is None or state == "succeeded" or state not in FINAL_STATES:
        return None
    error = answer.get("error") or {}
    message, hint = error.get("message") or f"the task is {state}", error.get("hint")
    return f"{message} ({hint})" if hint else str(message)


def cancel_when_unheard(transport: Transport, task_id: str, output: int = 1) -> None:
    """From now on stop the task, and this process, once nobody reads `output` any more or a signal asks for it.

    That is how Ctrl-C on the controller arrives here: over ssh as a closed pipe, with a local connection as SIGINT.
    """

    def stop(*_: object) -> None:
        with contextlib.suppress(WireError), Client(transport) as client:
            client.cancel(task_id)
        os._exit(1)

    def watch() -> None:
        poll = select.poll()
        # No event is asked for: a reader that has gone is reported all the same.
        poll.register(output, 0)
        poll.poll()
        stop()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    threading.Thread(target=watch, name="hang-up", daemon=True).start()
