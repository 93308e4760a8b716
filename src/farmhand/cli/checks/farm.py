"""The checks of one farm host, by what its agent says over the wire; and one task that it answers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from farmhand import __version__
from farmhand.cli.checks import Check, by_error, failed, passed, run
from farmhand.core.errors import FarmhandError, WireError, from_result
from farmhand.core.ids import new_task_id
from farmhand.core.keysource import read_key
from farmhand.core.settings import Settings
from farmhand.places.hosts import Host
from farmhand.wire.client import Client
from farmhand.wire.follow import run_task

#: Clocks that differ by more make times in reports and logs hard to compare. Seconds.
SKEW_S = 5.0
#: A task that waits for longer is worth a look; one of economy may wait for a day. Seconds.
OLDEST_S = 3600.0
#: Until the canary has ended, in the queue and at work. Seconds.
CANARY_S = 180.0
NAMES = ("reach", "cli", "clock", "queue", "budget")


def look(host: Host, conf: Settings, skipped: Iterable[str]) -> list[Check]:
    """The lines of one host. What cannot be known of a host that is not reached is not shown."""
    try:
        with Client(host.transport(conf.connect_timeout_s)) as client:
            client.connect()
            before = time.time()
            status = client.status()
            after = time.time()
            oldest = _oldest(client, status)
    except WireError as error:
        return [by_error("reach", error.at(host.name), host.name, "farmhand up")]
    checks = [
        ("reach", lambda: reach(host.name, status)),
        ("cli", lambda: cli(host.name, status)),
        ("clock", lambda: clock(host.name, status, before, after)),
        ("queue", lambda: queue(host.name, status, oldest)),
        ("budget", lambda: budget(host.name, status)),
    ]
    return run(checks, skipped, host.name)


def _oldest(client: Client, status: dict[str, Any]) -> float:
    """How long the oldest task that waits has waited, in seconds. Economy tasks are not counted."""
    waits = 0.0
    for state in ("queued", "awaiting_key"):
        if status.get(state):
            page = client.tasks(state=state, limit=20).get("tasks") or []
            waits = max(
                [waits, *(float(task.get("queued_s") or 0) for task in page if task.get("engine") != "economy")]
            )
    return waits


def reach(host: str, status: dict[str, Any]) -> Check:
    """It is reached, its host key is known, its agent is active and of this version."""
    version = str(status.get("version"))
    if version != __version__:
        return failed("reach", f"the agent is {version}, this farmhand {__version__}", "farmhand up", host)
    if status.get("state") != "running":
        fix = "wait for its upgrade, or take it back: ansible-playbook playbooks/drain.yml -e drain_state=off"
        return failed("reach", f"jada-agent {version} is {status.get('state')}", fix, host)
    return passed("reach", f"host key known, jada-agent {version} active", host)


def cli(host: str, status: dict[str, Any]) -> Check:
    """The claude CLI is installed there."""
    version = status.get("cli")
    if version is None:
        return failed("cli", "no claude CLI for tasks with tools", "farmhand up", host)
    return passed("cli", f"claude {version}", host)


def clock(host: str, status: dict[str, Any], before: float, after: float) -> Check:
    """Its clock agrees with ours, which was read `before` and `after` it was asked."""
    theirs = status.get("time")
    if not isinstance(theirs, int | float):
        return failed("clock", "the agent does not tell its time", "farmhand up", host)
    skew = theirs - before if theirs < before else max(0.0, theirs - after)
    if abs(skew) > SKEW_S:
        fix = f"on {host}: timedatectl set-ntp true (or here, if this clock is wrong)"
        return failed("clock", f"its clock is {skew:+.0f} s off", fix, host)
    return passed("clock", f"agrees within {SKEW_S:.0f} s", host)


def queue(host: str, status: dict[str, Any], oldest_s: float) -> Check:
    """Nothing is parked, and nothing waits for too long."""
    refused = [entry for entry in status.get("keys") or [] if entry.get("state") == "refused"]
    if refused and refused[0].get("queued"):
        detail = f"{refused[0]['queued']} tasks are parked: key {refused[0]['fingerprint']} was refused"
        return failed("queue", f"{detail}: {refused[0].get('reason')}", "top it up or farmhand rotate", host)
    parked = int(status.get("awaiting_key") or 0)
    if parked:
        return failed("queue", f"{parked} tasks await a key", "any claude-cheap brings it", host)
    if oldest_s > OLDEST_S:
        return failed("queue", f"a task waits for {oldest_s / 3600:.1f} h", "farmhand status says what for", host)
    running, queued = int(status.get("running") or 0), int(status.get("queued") or 0)
    waits = f", the oldest for {oldest_s:.0f} s" if queued else ""
    return passed("queue", f"{running} running, {queued} queued{waits}, none parked", host)


def budget(host: str, status: dict[str, Any]) -> Check:
    """The day's budget, where one is set, is not spent."""
    day = status.get("budget_day")
    if not isinstance(day, dict):
        return passed("budget", "no budget for the day is set", host)
    limit, spent = Decimal(str(day["limit_usd"])), Decimal(str(day["spent_usd"]))
    detail = f"{spent:.2f} of {limit:.2f} US$ spent on {day.get('day')}"
    if spent >= limit:
        return failed("budget", detail, "wait for tomorrow (UTC), or raise jada_agent_budget_day_usd", host)
    return passed("budget", detail, host)


def canary(host: Host, conf: Settings) -> Check:
    """The farm answers: one task of a few tokens."""
    task = {
        "id": new_task_id(),
        "prompt": "Answer with the one word: ready",
        "max_tokens": 64,
        "timeout_s": 60.0,
        "labels": {"purpose": "doctor"},
    }
    started = time.monotonic()
    try:
        key = read_key(conf.key_source)
        with Client(host.transport(conf.connect_timeout_s)) as client:
            result = run_task(client, task, key, lambda _event: None, resume_s=5.0, within_s=CANARY_S)
    except WireError as error:
        return by_error("canary", error.at(host.name), host.name)
    failure: FarmhandError | None = from_result(result)
    if failure is not None:
        return by_error("canary", failure, host.name, "farmhand status, and the journal of jada-agent")
    took = time.monotonic() - started
    return passed("canary", f"a task was answered in {took:.1f} s ({_cost(result)})", host.name)


def _cost(result: dict[str, Any]) -> str:
    cost = result.get("cost_usd")
    return "unpriced" if cost is None else f"{Decimal(str(cost)):.6f} US$"
