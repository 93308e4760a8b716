"""Send one task to an agent and print its answer. run_task imports this module while ssh is already connecting."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from farmhand.cli import last, render
from farmhand.cli.say import StdoutLost, note
from farmhand.cli.signals import Stoppable, Stopped
from farmhand.core.errors import FarmhandError, FarmUnreachable, UsageError, WireError
from farmhand.core.keys import Credential, holds_key
from farmhand.core.readable import counted
from farmhand.core.settings import Settings, old_spool_name, spool_name
from farmhand.places import hosts
from farmhand.places.reach import reach
from farmhand.wire.client import Client
from farmhand.wire.follow import RESUME_S, run_task

if TYPE_CHECKING:
    from farmhand.cli.telemetry import TaskSpan
    from farmhand.offline.spool import Spool, SpooledTask
    from farmhand.places.reach import Way
    from farmhand.wire.transport import ProcessTransport, Transport

#: How long the agent may take to confirm that a task is cancelled. Seconds.
CANCEL_S = 10.0
#: How long a call may spend on other waiting tasks, while the model works on its own task. Seconds.
DELIVER_S = 0.5


def carry(
    task: dict[str, Any],
    conf: Settings,
    way: Way,
    *,
    as_json: bool,
    events: bool = False,
    extract: str = "",
    keep: Callable[[dict[str, Any]], None] = lambda _result: None,
) -> int:
    """Run the task, print its answer, and return the exit status. `extract` is `first` or `last`: only that code.

    With `events` the task's events come before its result as JSON, each on a line.
    `keep` gets the result of a task that succeeded.
    """
    gc.freeze()  # what was imported stays
    gc.enable()
    stream = not (as_json or extract or "schema" in task) and render.is_read_as_it_comes()
    printer = render.Printer(stream=stream, extract=extract, events=events)
    with task_span(conf) as span:
        try:
            result = answer(task, conf, printer, way, span)
        except Stopped as stopped:
            if as_json:
                render.write_json({"error": {"code": "cancelled", "message": f"stopped by {stopped}", "hint": ""}})
            return stopped.exit_code
        if result.get("state") == "succeeded":
            last.keep(result)
        status = printer.report(result, as_json=as_json)
        if status == 0:
            keep(result)
        return status


def task_span(conf: Settings) -> contextlib.AbstractContextManager[TaskSpan | None]:
    """Return what sends the spans of the one task of its block; None where no spans are wanted. Raise NotConfigured."""
    if not conf.otel_endpoint:
        return contextlib.nullcontext()
    from farmhand.cli import telemetry

    return telemetry.task_span(conf, note)


def answer(
    task: dict[str, Any], conf: Settings, printer: render.Printer, way: Way, span: TaskSpan | None
) -> dict[str, Any]:
    """Return the result from the first farm host that answers, or else from the fallback. Raises WireError, Stopped."""
    spooling = Spooling(task, conf)
    if spooling.result is not None:
        return spooling.result
    key = hosts.credential(conf)
    if holds_key(task, key):
        hint = "take it out: it would go to the model"
        raise UsageError("the API key itself stands in the task", hint=hint, code="key_in_task")
    candidates = hosts.candidates(hosts.known_hosts(conf), spooling.wanted(), conf.hosts_name)

    def going(host: hosts.Host, connect_timeout_s: float) -> ProcessTransport:
        printer.wait.on(f"connecting to {host.name}")
        return way(host, connect_timeout_s)

    with Stoppable() as stoppable, printer.wait:
        try:
            host, client = reach(
                candidates, conf.connect_timeout_s, lambda error: note(f"{error}; trying the next"), going
            )
        except FarmUnreachable as error:
            reason = error
        else:
            with client:
                return follow(client, host.name, key, printer, spooling, stoppable, span)
    from farmhand.cli import fallback

    return fallback.fall_back(reason, task, conf)


def follow(
    client: Client,
    host: str,
    key: Credential,
    printer: render.Printer,
    spooling: Spooling,
    stoppable: Stoppable,
    span: TaskSpan | None,
) -> dict[str, Any]:
    """Run the task to its end on `host` and return the result. On a signal, cancel it there and raise Stopped.

    Where its budget has no room it goes on at a lower price, if `when_spent` says so, and the result has `bent`.
    """
    result = _follow(client, host, key, printer, spooling, stoppable, span)
    conf, task = spooling.conf, spooling.task
    if conf.when_spent == "stop" or result.get("state") != "failed":
        return result
    from farmhand.cli.lower_price import in_words, lower

    if (found := lower(task, result, conf)) is None:
        return result
    cheaper, bent = found
    note(in_words(bent))
    again = Spooling(cheaper, conf)
    try:
        result = again.result or _follow(client, host, key, printer, again, stoppable, span)
    except FarmhandError as error:
        # Given again under the first id, it goes the same way.
        error.hint = error.hint.replace(f"--id {cheaper['id']}", f"--id {task['id']}")
        raise
    return result | {"id": task["id"], "bent": bent}


def _follow(
    client: Client,
    host: str,
    key: Credential,
    printer: render.Printer,
    spooling: Spooling,
    stoppable: Stoppable,
    span: TaskSpan | None,
) -> dict[str, Any]:
    task = spooling.task
    if span is not None:
        task = task | span.fields
    told = False

    def on_event(event: dict[str, Any]) -> None:
        printer.wait.event(host, event)
        printer.on_event(event)

    def on_waiting(error: WireError) -> None:
        nonlocal told
        if error.code == "draining" and not told:
            told = True
            note(f"{error}; it is asked again for {RESUME_S:g} s, Ctrl-C ends that")
        # No request is under way, and what a host has is cancelled: the first signal ends the wait.
        stoppable.release()
        printer.wait.on(f"{host} takes no tasks now" if error.code == "draining" else f"connecting to {host} again")

    def on_submitting() -> None:
        spooling.sending(host)
        # A task can be cancelled only once it has arrived, so signals are held back until then.
        stoppable.hold()

    def on_submitted() -> None:
        stoppable.release()
        spooling.sent(client, host, key, span)

    try:
        with cancelled_when_stopped(client.transport, task["id"], stoppable, printer.end_line, span):
            result = run_task(
                client,
                task,
                key,
                on_event,
                on_submitting=on_submitting,
                on_submitted=on_submitted,
                # What waits in the spool nobody has told of, also if it has ended.
                on_state=span.submitted if span is not None and spooling.waiting is None else lambda _state: None,
                on_waiting=on_waiting,
            )
    except WireError as error:
        raise spooling.failed(error, host) from None
    spooling.ended(result, host)
    if span is not None:
        span.at_agent(result, client)
    return result


@contextlib.contextmanager
def cancelled_when_stopped(
    transport: Transport,
    task_id: str,
    stoppable: Stoppable,
    end_line: Callable[[], None],
    span: TaskSpan | None = None,
) -> Iterator[None]:
    """Cancel the task if a signal stops the body after its hand-over, and say so after `end_line`. Raises Stopped.

    Its result so far goes to `span`. Also if nobody reads the answer any more. Raises StdoutLost then.
    """
    try:
        yield
    except StdoutLost:
        stoppable.hold()
        cancel(transport, task_id, span, ended="")
        raise
    except Stopped:
        end_line()
        if stoppable.was_held:
            stoppable.hold()
            cancel(transport, task_id, span)
        else:
            note("stopped")
        raise


def cancel(
    transport: Transport, task_id: str, span: TaskSpan | None, *, ended: str = "the task had ended already: {}"
) -> None:
    """Cancel the task over a new connection, and print on stderr whether that worked; `ended` if it was too late."""
    transport.connect_timeout_s = min(transport.connect_timeout_s, CANCEL_S)
    try:
        with Client(transport, silence_s=CANCEL_S) as client:
            result = client.cancel(task_id)
        if span is not None:
            span.ended(result)
        state = result.get("state")
        said = "task cancelled" if state == "cancelled" else ended.format(state)
    except WireError as error:
        said = "stopped" if error.code == "no_such_task" else f"stopped, but the task may still run: {error}"
    if said:
        note(said)


class Spooling:
    """The spool during one call: it may have the call's task, and its other tasks are sent once a host answers.

    `waiting` is the call's task if it waits there, `result` its result if it has ended. Creating it raises UsageError
    if another task there has the call's id. Most calls find nothing: then the spool's modules are not imported.
    """

    def __init__(self, task: dict[str, Any], conf: Settings) -> None:
        self.task = task
        self.conf = conf
        self.spool: Spool | None = None
        self.waiting: SpooledTask | None = None
        self.result: dict[str, Any] | None = None
        if _may_concern(task["id"], conf):
            from farmhand.offline.spool import id_conflict, open_spool

            self.spool = open_spool(conf)
            self.waiting = self.spool.find(task["id"])
            if self.waiting is not None:
                self.spool.same(self.waiting, task)
            kept = self.spool.kept(task["id"])
            if kept is not None and kept.task != task:
                raise id_conflict(task["id"])
            self.result = None if kept is None else kept.result

    def wanted(self) -> str:
        """Return the only host that the task may go to; "" for any."""
        return self.conf.host if self.waiting is None else self.waiting.sent or self.conf.host

    def sending(self, host: str) -> None:
        """Record that the task goes to `host`. Raises FarmUnreachable if it is elsewhere, or was sent too often."""
        if self.spool is None or self.waiting is None:
            return
        if self.waiting.worn_out:
            times = counted(self.waiting.deliveries, "time")
            what = f"task {self.waiting.id} was sent {times}, and its host was gone each time"
            raise FarmUnreachable(what, hint=f"farmhand flush {self.waiting.id} asks that host what became of it")
        at = self.spool.claim(self.task["id"], host)
        if at not in ("", host):
            raise FarmUnreachable(f"task {self.task['id']} has just been sent to {at}", hint="try again")

    def sent(self, client: Client, host: str, key: Credential, span: TaskSpan | None = None) -> None:
        """Now that the task is at `host`, send other waiting tasks there for up to DELIVER_S, and print a summary."""
        if self.spool is None:
            return
        from farmhand.offline.deliver import Visit

        visit = Visit(client, host, self.spool, key, None if span is None else span.collected)
        with contextlib.suppress(WireError):
            visit.make(within_s=DELIVER_S)
        news = []
        for ids, what in ((visit.delivered, f"sent to {host}"), (visit.finished, "ended")):
            count = len(set(ids) - {self.task["id"]})
            if count:
                news.append(f"{counted(count, 'queued task')} {what}")
        if news:
            note(f"{', '.join(news)} (farmhand flush shows them)")

    def ended(self, result: dict[str, Any], host: str) -> None:
        """Keep the task's result if the task was in the spool."""
        if self.spool is not None and self.waiting is not None:
            self.spool.finish(self.task["id"], result, host)

    def failed(self, error: WireError, host: str) -> FarmhandError:
        """Return the error to raise when the task may be at `host`. Spool the task if the host is lost."""
        from farmhand.cli import fallback
        from farmhand.core.trace_context import of_caller
        from farmhand.offline.spool import open_spool

        failure = error.at()
        if not isinstance(failure, FarmUnreachable) or error.status or fallback.policy_of(self.conf) != "queue":
            return failure
        if not fallback.may_wait(self.task):
            failure.message = f"{failure.message}; {fallback.NOT_QUEUED}"
            return failure
        trace = of_caller(self.conf.otel_endpoint)
        open_spool(self.conf).add(self.task, wanted=self.conf.host, sent=host, trace=trace)
        return fallback.Spooled(self.task["id"], failure, at=host)


def _may_concern(task_id: str, conf: Settings) -> bool:
    """Return whether the spool may have a waiting task, or the result of this one."""
    spool = spool_name()
    if os.path.isdir(old_spool_name(conf)) or os.path.exists(os.path.join(spool, "results", f"{task_id}.json")):
        return True
    try:
        return bool(os.listdir(os.path.join(spool, "waiting")))
    except OSError:
        return False
