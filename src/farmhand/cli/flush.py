"""`farmhand flush`: send the spooled tasks to the farm hosts that answer, and show their results."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any

import click

from farmhand.cli import render
from farmhand.cli.carry import task_span
from farmhand.cli.say import note, one_line
from farmhand.cli.signals import Stoppable
from farmhand.cli.verb import VerbResult, verb
from farmhand.cli.waiting import WaitLine
from farmhand.core import settings
from farmhand.core.errors import FarmUnreachable, NotConfigured, UsageError
from farmhand.core.readable import counted
from farmhand.offline.deliver import deliver_all
from farmhand.offline.spool import Spool, SpooledResult, SpooledTask, open_spool

_LISTED = "farmhand flush lists them"


@verb(
    "flush",
    "key_source",
    "place",
    "connect_timeout_s",
    epilog="Exit status: 0 nothing waits any more but what runs on a host, 3 a file in the spool is no task, 4 some "
    "tasks still wait for a host. With QUEUED, a task's id: that of claude-cheap. Results are kept for 30 days.",
)
@click.argument("task_id", metavar="[QUEUED]", required=False)
@click.option("--wait", is_flag=True, help="Wait until every task has ended.")
@click.option("--drop", is_flag=True, help="Forget the task QUEUED instead; it is not stopped where it runs.")
def command(conf: settings.Settings, *, task_id: str | None, as_json: bool, wait: bool, drop: bool) -> VerbResult | int:
    """Send what was queued while no farm host answered, and collect results.

    Every claude-cheap does it as well, as far as half a second reaches. With QUEUED, its id, print the answer of that
    task, waiting for it. Times are those of this machine's zone.
    """
    spool = open_spool(conf)
    with Stoppable():
        if drop and task_id is None:
            raise UsageError("--drop needs the id of a task", hint=_LISTED)
        if task_id is None:
            return _flush(spool, conf, wait=wait, as_json=as_json)
        if drop:
            if not spool.drop(task_id):
                raise UsageError(f"no task {task_id!r:.80} is queued", hint=_LISTED)
            return VerbResult({"id": task_id, "state": "dropped"}, lambda: note(f"task {task_id} is forgotten"))
        result = _result_of(spool, task_id, conf)
    return render.Printer(stream=False).report(result, as_json=as_json)


def _flush(spool: Spool, conf: settings.Settings, *, wait: bool, as_json: bool) -> VerbResult:
    """Send tasks, collect results, and return both."""
    before = {kept.task["id"] for kept in spool.results()}
    with WaitLine() as shown:
        shown.on("waiting for the farm hosts")
        problems = _delivered(spool, conf, wait=wait)
    elsewhere = spool.elsewhere()
    waiting = [*spool.waiting(), *elsewhere]
    problems += _for_others(elsewhere, conf)
    broken = [f"{path}: not a task" for path in spool.broken()]
    results = spool.results()
    document = {
        "results": [{"new": kept.task["id"] not in before, **_kept(kept)} for kept in results],
        "waiting": [_waiting(entry) for entry in waiting],
        "problems": [*problems, *broken],
    }
    status = NotConfigured.exit_code if broken else 0
    if any(not entry.sent for entry in waiting):
        status = FarmUnreachable.exit_code
    notes = [*problems, *(f"{line} (move it away)" for line in broken)]
    if not results and not waiting and not as_json:
        notes.insert(0, "nothing is queued")
    return VerbResult(document, _table(results, waiting), status, notes)


def _delivered(spool: Spool, conf: settings.Settings, *, wait: bool, only: str = "") -> list[str]:
    """Deliver what waits, and send the spans of what has ended in containers. Return a line for each host's error."""
    with task_span(conf) as span:
        on_end = {} if span is None else {"on_end": span.collected}
        return deliver_all(spool, conf, wait=wait, only=only, **on_end)


def _result_of(spool: Spool, task_id: str, conf: settings.Settings) -> dict[str, Any]:
    """Wait for one task and return its result. Raises FarmUnreachable, and UsageError for an unknown id."""
    kept = spool.kept(task_id)
    if kept is None:
        entry = spool.look(task_id)
        if entry is None:
            raise UsageError(f"no task {task_id!r:.80} is queued here", hint=_LISTED)
        for line in _for_others([one for one in spool.elsewhere() if one.path == entry.path], conf):
            raise FarmUnreachable(line)
        with WaitLine() as shown:
            shown.on(f"waiting for task {task_id}")
            problems = _delivered(spool, conf, wait=True, only=task_id)
        kept = spool.kept(task_id)
        if kept is None:
            raise FarmUnreachable(f"task {task_id} still waits: {'; '.join(problems) or 'no farm host answers'}")
    return kept.result


def _kept(kept: SpooledResult) -> dict[str, Any]:
    return {"id": kept.task["id"], "host": kept.host, "at": kept.at, "result": kept.result}


def _waiting(entry: SpooledTask) -> dict[str, Any]:
    about = {"id": entry.id, "host": entry.sent or None, "wanted": entry.wanted or None, "queued_at": entry.queued_at}
    return about | {"hosts_file": entry.farm or None}


def _for_others(elsewhere: list[SpooledTask], conf: settings.Settings) -> list[str]:
    """Return a line for each other hosts file: how many tasks wait for its hosts, and how to send them."""
    lines = []
    for farm, count in sorted(Counter(entry.farm for entry in elsewhere).items()):
        if farm == settings.old_spool_name(conf):
            send = "they stay there while another task here has their ids, or the spool cannot be written"
        elif farm.startswith("docker:"):
            name = farm.removeprefix("docker:")
            named = "" if name == conf.docker_name else f" with FARMHAND_DOCKER_NAME={name}"
            send = f"farmhand flush --place docker{named} sends them"
        elif os.path.isdir(farm):
            send = "farmhand flush with the FARMHAND_HOSTS_FILE or --config of then sends them"
        elif farm:
            send = f"farmhand flush with FARMHAND_HOSTS_FILE={farm} sends them"
        else:
            away = "without a hosts file of its own" if conf.place == "farm" else "--place farm"
            send = f"farmhand flush {away} sends them"
        lines.append(f"{counted(count, 'task waits', 'tasks wait')} for {settings.hosts_of(farm)}: {send}")
    return lines


def _table(results: list[SpooledResult], waiting: list[SpooledTask]) -> str:
    rows = [(kept.task, str(kept.result.get("state")), kept.host, kept.at) for kept in results]
    for entry in waiting:
        state = "sent" if entry.sent else "queued"
        rows.append((entry.task, state, entry.sent or entry.wanted or "-", entry.queued_at))
    width = max((len(task["id"]) for task, *_ in rows), default=0)
    lines = []
    for task, state, host, at in rows:
        when = time.strftime("%m-%d %H:%M", time.localtime(at))
        prompt = one_line(str(task.get("prompt"))[:200])[:40]
        lines.append(f"{task['id']:{width}}  {one_line(state)[:20]:9}  {host:10}  {when}  {prompt}")
    return "\n".join(lines)
