"""The fallback if no farm host answers: ask the operator, queue the task, use the subscription, or fail."""

from __future__ import annotations

import sys
from typing import Any

from farmhand.cli.say import note
from farmhand.cli.signals import Stoppable, Stopped
from farmhand.core.errors import FarmhandError, FarmUnreachable, Refused, WireMismatch
from farmhand.core.settings import Settings
from farmhand.core.trace_context import of_caller
from farmhand.offline import subscription
from farmhand.offline.spool import open_spool

DREW = "answered by your own claude on your login: this drew on the plan's own limits, not on the API key"
NOT_QUEUED = "a task with pictures, PDFs or a conversation is not queued"


class Spooled(FarmUnreachable):
    """There is no answer yet: the task is in the spool, under `task_id`."""

    code = "spooled"

    def __init__(self, task_id: str, reason: FarmhandError, *, at: str = "") -> None:
        what = f"task {task_id} may be running on {at}" if at else f"queued as task {task_id}"
        hint = f"farmhand flush {task_id} gives its answer once {at or 'a farm host'} is back"
        super().__init__(f"{what}: {reason}", hint=hint)
        self.task_id = task_id


def on_terminal() -> bool:
    """Return whether the operator can be asked: stdin and stderr are terminals."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def policy_of(conf: Settings) -> str:
    """Return the policy in force: the setting, or `ask` by default. Without a terminal `ask` becomes `queue`."""
    policy = conf.fallback or "ask"
    return "queue" if policy == "ask" and not on_terminal() else policy


def may_wait(task: dict[str, Any]) -> bool:
    """Return whether the task may wait in the spool, which keeps it for weeks and has no conversation to go on with."""
    return not task.get("files") and not task.get("history")


def fall_back(reason: FarmUnreachable, task: dict[str, Any], conf: Settings) -> dict[str, Any]:
    """Get the task's result elsewhere. Raises Spooled, Refused (by policy), Stopped, or `reason` again.

    Call it only if no host can have received the task.
    """
    if isinstance(reason, WireMismatch):
        # A host does answer, but in another version: waiting would not help.
        raise reason
    refused = subscription.refusal(task, allowed=conf.allow_subscription)
    policy = policy_of(conf)
    if policy == "ask" and may_wait(task):
        note(str(reason))
        policy = _ask(subscription_allowed=refused is None)
    if policy in ("ask", "queue") and not may_wait(task):
        raise FarmUnreachable(f"{reason.message}; {NOT_QUEUED}", hint=reason.hint)
    if policy == "queue":
        open_spool(conf).add(task, wanted=conf.host, trace=of_caller(conf.otel_endpoint))
        raise Spooled(task["id"], reason)
    if policy != "subscription":
        raise reason
    if refused is not None:
        raise Refused(f"{refused.message}; {reason.message}", hint=refused.hint, code=refused.code)
    with Stoppable():
        try:
            result = subscription.answer(task)
        except Stopped:
            note("stopped")
            raise
    note(DREW)
    return result


def _ask(*, subscription_allowed: bool) -> str:
    """Ask the operator on the terminal, once, which policy to use. Choices that would be refused are not offered."""
    choices = {"q": ("queue", "[Q]ueue it until a farm host is back")}
    if subscription_allowed:
        choices["s"] = ("subscription", "[s]ubscription: ask your own claude here, on your plan's limits")
    choices["n"] = ("none", "[n]othing")
    sys.stderr.write(f"{', '.join(label for _, label in choices.values())}? ")
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        sys.stderr.write("\n")
        return "none"
    policy, _ = choices.get(line.strip().lower()[:1] or "q", choices["n"])
    return policy
