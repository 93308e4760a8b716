"""One task on Fargate for the commands: run it, stop it when they are stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from farmhand.aws.client import Aws
from farmhand.aws.environment import credential_source, task_credential
from farmhand.aws.places.run_task import NAME, FargateTask
from farmhand.cli import last, render, task_options
from farmhand.cli.carry import task_span
from farmhand.cli.say import note
from farmhand.cli.signals import Stoppable, Stopped
from farmhand.core.errors import FarmhandError, Refused, UsageError, WireError
from farmhand.core.keys import holds_key
from farmhand.core.keysource import read_key
from farmhand.core.settings import Settings
from farmhand.core.task_access import CloneOrder

if TYPE_CHECKING:
    from farmhand.cli.telemetry import TaskSpan


def check(task: dict[str, Any], conf: Settings) -> None:
    """Raise UsageError for a task that no agent would take, or with the operator's key in it.

    On AWS that key is not needed otherwise, so a missing one is no error.
    """
    task_options.check(task)
    try:
        key = read_key(conf.key_source)
    except WireError:
        return
    if holds_key(task, key):
        raise UsageError("the API key itself stands in the task", hint="take it out", code="key_in_task")


def prepared(
    conf: Settings,
    task: dict[str, Any],
    size: str,
    *,
    spot: bool = False,
    subscription: bool = False,
    clone: CloneOrder | None = None,
    source: str = "",
) -> FargateTask:
    """Return the task, once the environment is known to be there.

    Raise NotConfigured, and Refused for a plan that is not allowed, before anything is asked.
    """
    task_credential.check_allowed(conf, subscription=subscription)
    if source:
        credential_source.check_form(source)
    about: dict[str, Any] = {"spot": spot, "subscription": subscription, "clone": clone, "source": source}
    return FargateTask(conf=conf, task=task, size=size, say=note, aws=Aws(conf), **about)


def run(task: FargateTask, span: TaskSpan | None) -> dict[str, Any]:
    """Run the task and return its result; see FargateTask. `span` gets it, and is what the task is sent with."""
    if span is None:
        return task.run()
    task.task = task.task | span.fields
    result = task.run()
    if not task.had_ended:
        span.ended(result, task.rows)
    return result


@contextmanager
def ended_when_stopped(task: FargateTask, stoppable: Stoppable, span: TaskSpan | None) -> Iterator[None]:
    """End the task if a signal stops the body, and say so. Raises Stopped."""
    try:
        yield
    except Stopped:
        if not task.begun:
            note("stopped")
            raise
        stoppable.hold()
        note("stopping the task on Fargate")
        if span is not None:
            # Nobody waits for what it has cost so far.
            span.ended({"id": task.task["id"], "state": "cancelled", "attempts": 1})
        try:
            task.stop()
        except FarmhandError as error:
            note(f"it may still run: {error}")
        raise


def carry(task: dict[str, Any], conf: Settings, *, as_json: bool, extract: str = "", subscription: bool = False) -> int:
    """Run the task, print its answer, and return the exit status."""
    if conf.place != NAME:
        raise UsageError(f"the place {conf.place} is for batches", hint="one task runs at --place fargate")
    if task.get("economy"):
        raise UsageError("--economy needs no containers", hint="leave --place out")
    if subscription:
        if task.get("engine") == "api":
            hint = "leave out --engine: with --subscription it is cli"
            raise Refused("only the unmodified claude runs on your plan, never the engine api", hint=hint)
        task["engine"] = "cli"
    check(task, conf)
    printer = render.Printer(stream=False, extract=extract)
    try:
        size = "cli" if task.get("tools") or task.get("engine") == "cli" else "api"
        one = prepared(conf, task, size, subscription=subscription)
        with task_span(conf) as span:
            with Stoppable() as stoppable, ended_when_stopped(one, stoppable, span):
                result = run(one, span)
            if result.get("state") == "succeeded":
                last.keep(result)
            status = printer.report(result, as_json=as_json)
    except Stopped as stopped:
        if as_json:
            render.write_json({"error": {"code": "cancelled", "message": f"stopped by {stopped}", "hint": ""}})
        return stopped.exit_code
    tell_plan(result)
    return status


def tell_plan(result: dict[str, Any]) -> None:
    """Say so if the result drew on the operator's plan."""
    if result.get("residency") == "subscription":
        spent = result.get("list_usd")
        price = f" at the API's prices it would have been US$ {spent}" if spent is not None else ""
        note(f"this drew on your plan's own limits, and no key is billed for it;{price}".rstrip(";"))
