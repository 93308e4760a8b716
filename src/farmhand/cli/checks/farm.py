"""The checks of the farm hosts: what an agent reports, one small task for it, and no key stored on the hosts."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Collection
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from farmhand import __version__
from farmhand.cli.checks import Check, by_error, failed, passed, run
from farmhand.core import pushed
from farmhand.core.errors import POT_SPENT, NotConfigured, WireError, from_result
from farmhand.core.ids import new_task_id
from farmhand.core.money import pico
from farmhand.core.pots import in_words
from farmhand.core.readable import counted, dollars, duration
from farmhand.core.scratch import private_directory
from farmhand.core.settings import Settings
from farmhand.places import docker
from farmhand.places.ansible_environment import ansible_environment, find_program
from farmhand.places.checkout import find_project
from farmhand.places.hosts import Host, credential
from farmhand.wire.client import Client
from farmhand.wire.follow import run_task

#: The largest clock difference at which times in reports and logs are still easy to compare. Seconds.
SKEW_S = 5.0
#: A task that waits longer than this is reported. Economy tasks, which may wait for a day, are not counted. Seconds.
OLDEST_S = 3600.0
#: The canary's time limit, in the queue and running. Seconds.
CANARY_S = 180.0
_SEARCH_S = 600.0
#: Where the role `base` keeps the originals of scrubbed files: its variable base_scrub_backup_dir.
_IGNORED = "/var/backups/farmhand"
NAMES = ("reach", "cli", "clock", "queue", "budget", "pots", "cloudwatch", "wall")
#: What the walls of containers let a task open.
_WALLS = {"unix": "Unix sockets only", "relay": "any socket: the container's lack of a network is what holds"}


def look(host: Host, conf: Settings, skipped: Collection[str]) -> list[Check]:
    """Return the checks of one host. An unreachable host has only its red `reach`."""
    try:
        with Client(host.transport(conf.connect_timeout_s)) as client:
            client.connect()
            before = time.time()
            status = client.status()
            after = time.time()
            oldest = _oldest(client, status)
    except WireError as error:
        return [replace(by_error(error.at(host.name), "farmhand up"), name="reach", host=host.name)]
    checks = [
        ("reach", lambda: reach(status, "" if conf.place == docker.NAME else "host key known, ")),
        ("cli", lambda: cli(status)),
        ("clock", lambda: clock(host.name, status, before, after)),
        ("queue", lambda: queue(status, oldest)),
        ("budget", lambda: budget(status)),
    ]
    if status.get("pots"):
        checks.append(("pots", lambda: pots_left(status)))
    if status.get("cloudwatch"):
        checks.append(("cloudwatch", lambda: cloudwatch(status)))
    if conf.place == docker.NAME:
        checks.append(("wall", lambda: wall(docker.existing(conf).wall())))
    return run(checks, skipped, host.name)


def _oldest(client: Client, status: dict[str, Any]) -> float:
    """Return how long the oldest waiting task has waited, in seconds. Economy tasks are not counted."""
    waiting = [state for state in ("queued", "awaiting_key") if status.get(state)]
    pages = [client.tasks(state=state, limit=20).get("tasks") or [] for state in waiting]
    tasks = [task for page in pages for task in page if task.get("engine") != "economy"]
    return max((float(task.get("queued_s") or 0) for task in tasks), default=0.0)


def reach(status: dict[str, Any], known: str = "host key known, ") -> Check:
    """Check that the agent is running and has this version. That it answered shows that its host key is `known`."""
    version = str(status.get("version"))
    if version != __version__:
        return failed(f"the agent is {version}, this farmhand {__version__}", "farmhand up")
    if status.get("state") != "running":
        fix = "wait for its upgrade, or take it back: ansible-playbook playbooks/drain.yml -e drain_state=off"
        return failed(f"jada-agent {version} is {status.get('state')}", fix)
    return passed(f"{known}jada-agent {version} active")


def wall(force: str) -> Check:
    """Check that tasks in containers are behind a wall."""
    if force not in _WALLS:
        return failed("the worker does not run", "farmhand up --place docker")
    return passed(f"{force}: a task may open {_WALLS[force]}")


def cli(status: dict[str, Any]) -> Check:
    """Check that the claude CLI is installed on the host."""
    version = status.get("cli")
    if version is None:
        return failed("no claude CLI for tasks with tools", "farmhand up")
    return passed(f"claude {version}")


def clock(host: str, status: dict[str, Any], before: float, after: float) -> Check:
    """Check the host's clock against ours, which was read `before` and `after` the request."""
    theirs = status.get("time")
    if not isinstance(theirs, int | float):
        return failed("the agent does not tell its time", "farmhand up")
    skew = theirs - before if theirs < before else max(0.0, theirs - after)
    if abs(skew) > SKEW_S:
        fix = f"on {host}: timedatectl set-ntp true (or here, if this clock is wrong)"
        return failed(f"its clock is {skew:+.0f} s off", fix)
    return passed(f"agrees within {SKEW_S:.0f} s")


def queue(status: dict[str, Any], oldest_s: float) -> Check:
    """Check that no task is parked and none waits too long."""
    refused = [entry for entry in status.get("keys") or [] if entry.get("state") == "refused"]
    if refused and refused[0].get("queued"):
        tasks = counted(refused[0]["queued"], "task is", "tasks are")
        detail = f"{tasks} parked: key {refused[0]['fingerprint']} was refused"
        return failed(f"{detail}: {refused[0].get('reason')}", "top it up or farmhand rotate")
    of_pots = sum(wait.get("tasks") or 0 for wait in status.get("waiting") or [] if wait["reason"] == POT_SPENT)
    parked = int(status.get("awaiting_key") or 0) - of_pots
    if parked > 0:
        return failed(counted(parked, "task awaits", "tasks await") + " a key", "any claude-cheap brings it")
    if oldest_s > OLDEST_S and not of_pots:
        return failed(f"a task waits for {oldest_s / 3600:.1f} h", "farmhand status says what for")
    running, queued = int(status.get("running") or 0), int(status.get("queued") or 0)
    waits = f", the oldest for {duration(oldest_s)}" if queued else ""
    kept = f"{counted(of_pots, 'waits', 'wait')} for a pot to be filled" if of_pots else "none parked"
    return passed(f"{running} running, {queued} queued{waits}, {kept}")


def budget(status: dict[str, Any]) -> Check:
    """Check that the daily budget, if there is one, is not used up."""
    day = status.get("budget_day")
    if not isinstance(day, dict):
        return passed("no budget for the day is set")
    limit, spent = Decimal(str(day["limit_usd"])), Decimal(str(day["spent_usd"]))
    detail = f"{dollars(spent)} of {dollars(limit)} spent on {day.get('day')}"
    if spent >= limit:
        return failed(detail, "wait for tomorrow (UTC), or raise jada_agent_budget_day_usd")
    return passed(detail)


def pots_left(status: dict[str, Any]) -> Check:
    """Check that no pot is spent or expired without another one that pays: each with what is left on this host."""
    said, bad, ended = [], [], False
    for pot in status["pots"]:
        if pot.get("limit_usd") is None:
            continue
        limit = Decimal(str(pot["limit_usd"]))
        rest = max(0, pico(limit - Decimal(str(pot.get("spent_usd") or 0))))
        spent = pot.get("state") == "spent"
        since = pot.get("api_closed_at")
        said.append(in_words(pot["name"], rest, limit, pot.get("until"), time.time(), spent=spent, api_closed_at=since))
        if pot.get("state") != "open" and not pot.get("next"):
            bad.append(pot["name"])
            ended |= pot.get("state") == "expired"
    detail = "; ".join(said) or "no pot has an amount"
    wait = "set its new expires" if ended else f"wait until {' and '.join(bad)} is filled again"
    fix = f"{wait}, name another --pot, or set when_spent"
    return failed(detail, fix) if bad else passed(detail)


def cloudwatch(status: dict[str, Any]) -> Check:
    """Check that CloudWatch gets the host's metrics."""
    if late := pushed.trouble(status):
        return failed(late, "journalctl -u jada-cloudwatch on the host; docs/operations.md, CloudWatch")
    return passed("the host's metrics are pushed")


def canary(host: Host, conf: Settings) -> Check:
    """Check that the host answers a task of a few tokens."""
    task = {
        "id": new_task_id(),
        "prompt": "Answer with the one word: ready",
        "max_tokens": 64,
        "timeout_s": 60.0,
        "labels": {"purpose": "doctor"},
    }
    started = time.monotonic()
    task |= {"pot": conf.pot} if conf.pot else {}
    key = credential(conf)
    with Client(host.transport(conf.connect_timeout_s)) as client:
        try:
            result = run_task(client, task, key, lambda _event: None, resume_s=5.0, within_s=CANARY_S)
        except WireError as error:
            if error.code == POT_SPENT:  # it would be run, and paid for, when the pot is filled again
                client.cancel(str(task["id"]))
                return failed(error.message.partition("; task ")[0], error.hint)
            raise
    failure = from_result(result)
    if failure is not None:
        return by_error(failure, "farmhand status, and the journal of jada-agent")
    took, usd = time.monotonic() - started, result.get("cost_usd")
    cost = "unpriced" if usd is None else dollars(usd)
    return passed(f"a task was answered in {duration(took)} ({cost})")


def at_rest(conf: Settings, hosts: list[str]) -> dict[str, Check]:
    """Return a check for each host that no key is stored there.

    The dispatch account cannot look, so Ansible runs the module farmhand_search as root, which only reads. Containers
    have nobody's files but ours.
    """
    if not hosts:
        return {}
    if conf.place == docker.NAME:
        return dict.fromkeys(hosts, passed("containers have nobody else's files"))
    try:
        answers = _search(find_project(conf.project_dir, Path.cwd()))
    except NotConfigured as error:
        line = failed(f"not looked at: {error.message}", error.hint or "--skip at-rest leaves this out")
        return dict.fromkeys(hosts, line)
    return {host: _at_rest(answers.get(host)) for host in hosts}


def _at_rest(answer: dict[str, Any] | None) -> Check:
    if answer is None:
        return failed("not looked at: the inventory has no such host", "correct hosts.json: farmhand up")
    places = answer.get("places")
    if not isinstance(places, list):
        why = " ".join(str(answer.get("msg") or "no reason given").split())[:200]
        return failed(f"not looked at: {why}", "ansible farm -b -m ping, or --skip at-rest")
    if places:
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        return failed(
            f"a key is in {places[0]}{more}", "remove it there, and rotate if it still works: farmhand rotate"
        )
    return passed("no key in any file, process or journal")


def _search(directory: Path) -> dict[str, dict[str, Any]]:
    """Run farmhand_search on the group farm and return its answers by host. Raises NotConfigured."""
    program = find_program("ansible")
    arguments = ["farm", "--become", "-m", "farmhand_search", "-a", json.dumps({"ignore": [_IGNORED]})]
    with private_directory() as private:
        tree = private / "tree"
        tree.mkdir()
        try:
            done = subprocess.run(
                [program, *arguments, "--tree", str(tree)],
                cwd=directory,
                env=ansible_environment(directory),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SEARCH_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NotConfigured(f"ansible did not end within {_SEARCH_S:.0f} s") from None
        answers = {path.name: _answer(path) for path in tree.iterdir()}
    if not answers:
        said = " ".join((done.stderr or done.stdout).decode("utf-8", "replace").split())[-200:]
        raise NotConfigured(f"ansible searched no host: {said}")
    return answers


def _answer(path: Path) -> dict[str, Any]:
    """Read the module's answer for one host, or Ansible's message if the module did not run; {} if it is not JSON."""
    try:
        answer = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        answer = None
    return answer if isinstance(answer, dict) else {}
