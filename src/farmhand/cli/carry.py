"""Send one task to an agent and print its answer. run_task imports this module while ssh is already connecting."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from farmhand.cli import render
from farmhand.cli.say import note
from farmhand.cli.signals import Stoppable, Stopped
from farmhand.cli.spooling import Spooling
from farmhand.core.errors import FarmUnreachable, UsageError, WireError, from_result
from farmhand.core.keys import holds_key
from farmhand.core.keysource import read_key
from farmhand.places import hosts
from farmhand.places.reach import reach
from farmhand.wire.client import Client
from farmhand.wire.follow import run_task

if TYPE_CHECKING:
    from farmhand.core.settings import Settings
    from farmhand.wire.transport import SshTransport, Transport

    #: Returns the transport to a host; the number is the connect timeout in seconds.
    Way = Callable[[hosts.Host, float], SshTransport]

#: How long the agent may take to confirm that a task is cancelled. Seconds.
CANCEL_S = 10.0


def carry(task: dict[str, Any], conf: Settings, way: Way, *, as_json: bool) -> int:
    """Run the task, print its answer, and return the exit status."""
    printer = render.Printer(stream=not as_json and "schema" not in task and sys.stdout.isatty())
    try:
        result = answer(task, conf, printer, way)
    except Stopped as stopped:
        if as_json:
            render.write_json({"error": {"code": "cancelled", "message": f"stopped by {stopped}", "hint": ""}})
        return stopped.exit_code
    return report(result, printer, as_json=as_json)


def answer(task: dict[str, Any], conf: Settings, printer: render.Printer, way: Way) -> dict[str, Any]:
    """Return the result from the first farm host that answers, or else from the fallback. Raises WireError, Stopped."""
    spooling = Spooling(task, conf)
    result = spooling.result()
    if result is not None:
        return result
    key = read_key(conf.key_source)
    if holds_key(task, key):
        hint = "take it out: it would go to the model"
        raise UsageError("the API key itself stands in the task", hint=hint, code="key_in_task")
    candidates = hosts.candidates(hosts.load_hosts(conf.hosts_name), spooling.wanted(), conf.hosts_name)
    with Stoppable() as stoppable:
        try:
            host, client = reach(
                candidates, conf.connect_timeout_s, lambda error: note(f"{error}; trying the next"), way
            )
        except FarmUnreachable as error:
            reason = error
        else:
            with client:
                return follow(client, host.name, key, printer, spooling, stoppable)
    from farmhand.cli import fallback

    return fallback.fall_back(reason, task, conf)


def follow(
    client: Client, host: str, key: str, printer: render.Printer, spooling: Spooling, stoppable: Stoppable
) -> dict[str, Any]:
    """Run the task to its end on `host` and return the result. On a signal, cancel it there and raise Stopped."""
    task = spooling.task

    def on_submitting() -> None:
        spooling.sending(host)
        # A task can be cancelled only once it has arrived, so signals are held back until then.
        stoppable.hold()

    def on_submitted() -> None:
        stoppable.release()
        spooling.sent(client, host, key)

    try:
        result = run_task(client, task, key, printer.on_event, on_submitting=on_submitting, on_submitted=on_submitted)
    except Stopped:
        printer.end_line()
        if stoppable.was_held:
            stoppable.hold()
            cancel(client.transport, task["id"])
        else:
            note("stopped")
        raise
    except WireError as error:
        raise spooling.failed(error, host) from None
    spooling.ended(result, host)
    return result


def cancel(transport: Transport, task_id: str) -> None:
    """Cancel the task over a new connection, and print on stderr whether that worked."""
    transport.connect_timeout_s = min(transport.connect_timeout_s, CANCEL_S)
    try:
        with Client(transport, silence_s=CANCEL_S) as client:
            state = client.cancel(task_id).get("state")
        said = "task cancelled" if state == "cancelled" else f"the task had ended already: {state}"
    except WireError as error:
        said = "stopped" if error.code == "no_such_task" else f"stopped, but the task may still run: {error}"
    note(said)


def report(result: dict[str, Any], printer: render.Printer, *, as_json: bool) -> int:
    """Print the answer and return the exit status. Raises the task's failure."""
    failure = from_result(result)
    if as_json:
        render.write_json(result)
        if failure is None:
            return 0
        note(str(failure))
        return failure.exit_code
    if failure is not None:
        printer.end_line()
        raise failure
    printer.finish(result)
    if result.get("stop_reason") == "max_tokens":
        note("the answer was cut off at its longest length (raise --max-tokens)")
    return 0
