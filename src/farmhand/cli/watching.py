"""Following a task of the history until it ends."""

from __future__ import annotations

from typing import Any

from farmhand.cli.past import Past
from farmhand.cli.render import Printer
from farmhand.cli.say import note
from farmhand.cli.signals import Stopped
from farmhand.core.errors import NotConfigured, WireError
from farmhand.history.store import PastTaskCopy
from farmhand.wire.follow import FINAL_STATES, follow_task


def follow(past: Past, task: PastTaskCopy, printer: Printer) -> dict[str, Any]:
    """Follow the task to its end and return its result. Raises Stopped, which leaves the task alone, or why it cannot.

    A task that waits for a key cannot end: NotConfigured.
    """

    def on_event(event: dict[str, Any]) -> None:
        printer.wait.event(task.host, event)
        printer.on_event(event)

    with printer.wait:
        printer.wait.on(f"connecting to {task.host}")
        try:
            with past.client(task.host) as client:
                lost = f"connecting to {task.host} again"
                result = follow_task(client, task.id, on_event, on_waiting=lambda _error: printer.wait.on(lost))
        except WireError as error:
            raise error.at(task.host) from None
        except Stopped:
            printer.end_line()
            note(f"task {task.id} goes on (farmhand cancel {task.id} ends it)")
            raise
    if result.get("state") not in FINAL_STATES:
        what = f"task {task.id} waits for a key: {task.host} has none that the API takes"
        raise NotConfigured(what, hint="any claude-cheap brings it", code="no_key")
    return result
