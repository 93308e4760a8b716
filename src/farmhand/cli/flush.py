"""`farmhand flush`: bring the spool to the farm hosts that answer, and show what became of its tasks."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from typing import Any

import click

from farmhand.cli import render
from farmhand.cli.app import note
from farmhand.cli.say import one_line
from farmhand.cli.signals import Stoppable, Stopped
from farmhand.core import settings
from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured, UsageError, WireError
from farmhand.core.keysource import read_key
from farmhand.offline import deliver
from farmhand.offline.spool import Spool, SpooledResult, SpooledTask, open_spool
from farmhand.places import hosts
from farmhand.wire import problems
from farmhand.wire.client import Client
from farmhand.wire.follow import run_task


@click.command(
    "flush",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 nothing waits any more but what runs on a host, 3 a file in the spool is no task, 4 some "
    "tasks still wait for a host. With ID: that of claude-cheap. Results are kept for 30 days.",
)
@click.argument("task_id", metavar="[ID]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--wait", is_flag=True, help="Wait until every task has ended.")
@click.option("--drop", is_flag=True, help="Forget the queued task ID instead; it is not stopped where it runs.")
@click.option("--key-source", metavar="SOURCE", help="As for claude-cheap.")
@click.option("--connect-timeout", type=float, metavar="SECONDS", help="How long reaching a farm host may take.")
@click.option("--config", metavar="FILE", help="The settings file.")
def command(
    task_id: str | None,
    as_json: bool,
    wait: bool,
    drop: bool,
    key_source: str | None,
    connect_timeout: float | None,
    config: str | None,
) -> int:
    """Send what was queued while no farm host answered, and collect results.

    Every claude-cheap does it as well, as far as half a second reaches. With ID print the answer of that task, waiting
    for it.
    """
    try:
        conf = settings.load(config, key_source=key_source, connect_timeout_s=connect_timeout)
        spool = open_spool(conf)
        if drop:
            return _drop(spool, task_id, as_json=as_json)
        if task_id is not None:
            return show(spool, task_id, conf, as_json=as_json)
        return flush(spool, conf, wait=wait, as_json=as_json)
    except FarmhandError as error:
        if as_json:
            render.write_json(render.error_object(error))
        raise
    except Stopped as stopped:
        return stopped.exit_code


def flush(spool: Spool, conf: settings.Settings, *, wait: bool, as_json: bool) -> int:
    """Deliver, collect, and say what there is."""
    before = {kept.task["id"] for kept in spool.results()}
    problems_met = deliver_all(spool, conf, wait=wait)
    waiting, elsewhere, broken = spool.waiting(), spool.elsewhere(), spool.broken()
    problems_met += _for_others(elsewhere, conf)
    results = spool.results()
    if as_json:
        render.write_json(
            {
                "results": [{"new": kept.task["id"] not in before, **_kept(kept)} for kept in results],
                "waiting": [_waiting(entry) for entry in (*waiting, *elsewhere)],
                "problems": [*problems_met, *(f"{path}: not a task" for path in broken)],
            }
        )
    else:
        _write_table(results, [*waiting, *elsewhere])
    for problem in problems_met:
        note(problem)
    for path in broken:
        note(f"{path}: not a task (move it away)")
    if any(not entry.sent for entry in (*waiting, *elsewhere)):
        return FarmUnreachable.exit_code
    return NotConfigured.exit_code if broken else 0


def show(spool: Spool, task_id: str, conf: settings.Settings, *, as_json: bool) -> int:
    """The answer of one task as claude-cheap gives it, once it has ended. Raises UsageError for an unknown id."""
    from farmhand.cli.carry import report

    if spool.kept(task_id) is None:
        entry = spool.look(task_id)
        if entry is None:
            raise UsageError(f"no task {task_id!r:.80} is in the spool", hint="farmhand flush lists them")
        for line in _for_others([one for one in spool.elsewhere() if one.path == entry.path], conf):
            raise FarmUnreachable(line)
        met = deliver_all(spool, conf, wait=True, only=task_id)
        if spool.kept(task_id) is None:
            raise FarmUnreachable(f"task {task_id} still waits: {'; '.join(met) or 'no farm host answers'}")
    kept = spool.kept(task_id)
    assert kept is not None  # noqa: S101  (for the type checker)
    return report(kept.result, render.Printer(stream=False), as_json=as_json)


def deliver_all(spool: Spool, conf: settings.Settings, *, wait: bool, only: str = "") -> list[str]:
    """Visit every host that a waiting task concerns; the lines of what went wrong. `wait` for all, or `only` one."""
    if not spool.waiting():
        return []
    spool.tidy()
    lines: list[str] = []
    key = _key(conf)
    known = hosts.load_hosts(conf.hosts_path)
    with Stoppable():
        for name, host in known.items():
            if any(deliver.concerns(entry, name) for entry in spool.each()):
                problem = _visit(spool, host, key, conf, wait=wait, only=only)
                lines += [] if problem is None else [str(problem)]
    gone = {entry.sent or entry.wanted for entry in spool.waiting()} - {"", *known}
    return [*lines, *(f"no farm host is called {name!r} in {conf.hosts_path} any more" for name in sorted(gone))]


def _visit(
    spool: Spool, host: hosts.Host, key: str, conf: settings.Settings, *, wait: bool, only: str
) -> FarmhandError | None:
    try:
        with Client(host.transport(conf.connect_timeout_s)) as client:
            client.connect()
            problem = deliver.visit(client, host.name, spool, key).problem
            if problem is None and wait:
                deliver.follow(client, host.name, spool, key, run_task, only=only)
    except WireError as error:
        problem = error
    return None if problem is None else problems.from_wire(problem, host.name)


def _key(conf: settings.Settings) -> str:
    try:
        return read_key(conf.key_source)
    except WireError as error:
        raise problems.from_wire(error) from None


def _drop(spool: Spool, task_id: str | None, *, as_json: bool) -> int:
    if task_id is None:
        raise UsageError("--drop needs the id of a task", hint="farmhand flush lists them")
    if not spool.drop(task_id):
        raise UsageError(f"no task {task_id!r:.80} is queued", hint="farmhand flush lists them")
    if as_json:
        render.write_json({"id": task_id, "state": "dropped"})
    else:
        note(f"task {task_id} is forgotten")
    return 0


def _kept(kept: SpooledResult) -> dict[str, Any]:
    return {"id": kept.task["id"], "host": kept.host, "at": kept.at, "result": kept.result}


def _waiting(entry: SpooledTask) -> dict[str, Any]:
    about = {"id": entry.id, "host": entry.sent or None, "wanted": entry.wanted or None, "queued_at": entry.queued_at}
    return about | {"hosts_file": entry.farm or None}


def _for_others(elsewhere: list[SpooledTask], conf: settings.Settings) -> list[str]:
    """What waits for hosts that these settings do not know: a line for each hosts file."""
    lines = []
    for farm, count in sorted(Counter(entry.farm for entry in elsewhere).items()):
        if farm == settings.old_spool_name(conf):
            send = "they stay there while another task here has their ids, or the spool cannot be written"
        elif os.path.isdir(farm):
            send = "farmhand flush with the FARMHAND_HOSTS_FILE or --config of then sends them"
        elif farm:
            send = f"farmhand flush with FARMHAND_HOSTS_FILE={farm} sends them"
        else:
            send = "farmhand flush without a hosts file of its own sends them"
        lines.append(f"{count} task{'s wait' if count > 1 else ' waits'} for {settings.hosts_of(farm)}: {send}")
    return lines


def _write_table(results: list[SpooledResult], waiting: list[SpooledTask]) -> None:
    if not results and not waiting:
        note("nothing is queued")
        return
    rows = [
        (kept.task["id"], str(kept.result.get("state")), kept.host, kept.at, str(kept.task.get("prompt")))
        for kept in results
    ]
    rows += [
        (
            entry.id,
            "sent" if entry.sent else "queued",
            entry.sent or entry.wanted or "-",
            entry.queued_at,
            str(entry.task.get("prompt")),
        )
        for entry in waiting
    ]
    width = max(len(row[0]) for row in rows)
    for task_id, state, host, at, prompt in rows:
        when = time.strftime("%m-%d %H:%M", time.localtime(at))
        start = one_line(prompt[:200])[:40]
        sys.stdout.write(f"{task_id:{width}}  {one_line(state)[:20]:9}  {host:10}  {when}  {start}\n")
    sys.stdout.flush()
