"""When no farm host answers: ask the operator, queue the task, use their subscription, or say so and stop."""

from __future__ import annotations

import sys
from typing import Any

from farmhand.cli.say import note
from farmhand.cli.signals import Stoppable, Stopped
from farmhand.core.errors import FarmhandError, FarmUnreachable, Refused, WireMismatch
from farmhand.core.settings import Settings
from farmhand.offline.spool import open_spool

DREW = "answered by your own claude on your login: this drew on the plan's own limits, not on the API key"
_MEANINGS = {"q": "queue", "s": "subscription", "n": "none"}


class Spooled(FarmUnreachable):
    """No answer yet: the task is in the spool. `task_id` is what its answer will be asked for with."""

    code = "spooled"

    def __init__(self, task_id: str, reason: FarmhandError, *, at: str = "") -> None:
        what = f"task {task_id} may be running on {at}" if at else f"queued as task {task_id}"
        hint = f"farmhand flush {task_id} gives its answer once {at or 'a farm host'} is back"
        super().__init__(f"{what}: {reason}", hint=hint)
        self.task_id = task_id


def policy_of(conf: Settings, *, terminal: bool) -> str:
    """The policy in force: the setting's; ask on a terminal, queue elsewhere. Nobody can be asked without one."""
    policy = conf.fallback or "ask"
    return "queue" if policy == "ask" and not terminal else policy


def on_terminal() -> bool:
    """Whether somebody can be asked: stdin and stderr are terminals."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def fall_back(reason: FarmUnreachable, task: dict[str, Any], conf: Settings) -> dict[str, Any]:
    """The task's result from elsewhere; or Spooled, Refused by policy, or `reason` again.

    Only for a task that no host can have.
    """
    if isinstance(reason, WireMismatch):
        # A host answers; waiting mends nothing.
        raise reason
    policy = policy_of(conf, terminal=on_terminal())
    if policy == "ask":
        policy = ask(reason, task, conf)
    if policy == "queue":
        open_spool(conf).add(task, wanted=conf.host)
        raise Spooled(task["id"], reason)
    if policy == "subscription":
        return on_subscription(reason, task, conf)
    raise reason


def ask(reason: FarmUnreachable, task: dict[str, Any], conf: Settings) -> str:
    """What the operator wants, asked once on the terminal. Nothing is offered that would be refused."""
    note(str(reason))
    choices = ["[Q]ueue it until a farm host is back"]
    if subscription_refusal(task, conf) is None:
        choices.append("[s]ubscription: ask your own claude here, on your plan's limits")
    choices.append("[n]othing")
    print(f"{', '.join(choices)}? ", end="", file=sys.stderr, flush=True)  # noqa: T201  (a question on the terminal)
    line = sys.stdin.readline()
    if not line:
        print(file=sys.stderr)  # noqa: T201
        return "none"
    word = line.strip().lower()[:1] or "q"
    wanted = _MEANINGS.get(word, "none")
    if wanted == "subscription" and len(choices) < 3:
        return "none"
    return wanted


def subscription_refusal(task: dict[str, Any], conf: Settings) -> Refused | None:
    """Why this task may not run on the subscription; None if it may."""
    from farmhand.offline import subscription

    try:
        subscription.check_allowed(task, allowed=conf.allow_subscription)
    except Refused as refused:
        return refused
    return None


def on_subscription(reason: FarmUnreachable, task: dict[str, Any], conf: Settings) -> dict[str, Any]:
    """The task's answer from the operator's own claude. Stopped if a signal ends it."""
    from farmhand.offline import subscription

    refused = subscription_refusal(task, conf)
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
