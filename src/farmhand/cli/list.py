"""`farmhand list`: the last tasks of all hosts."""

from __future__ import annotations

import contextlib
import os
import sys
from datetime import UTC, datetime
from typing import Any

import click

from farmhand.cli.past import history
from farmhand.cli.say import one_line
from farmhand.cli.signals import Stoppable
from farmhand.cli.verb import VerbResult, verb
from farmhand.cli.waiting import cut
from farmhand.core.amounts import duration
from farmhand.core.decoding import as_labels, as_text
from farmhand.core.errors import UsageError
from farmhand.core.readable import dollars, local_time
from farmhand.core.settings import Settings
from farmhand.core.since import since_day
from farmhand.history.store import PastTaskCopy, TaskFilter

_DAY_S = 86_400.0
#: Of a prompt: characters in JSON, and on a line that goes into a pipe.
_BEGINNING, _PIPED = 200, 60
#: The columns before the prompt, in the order in which they are left out where the terminal is narrow.
_DROPPED = ("host", "cost", "batch", "when")


@verb("list", "connect_timeout_s", json_help="Print one JSON object: the tasks, and how old each copy is.")
@click.option("--since", metavar="WHEN", help="From then on: 90m, 12h, or a day (UTC): 30d, 4w, 2026-11, 2026-11-01.")
@click.option("--failed", is_flag=True, help="Only tasks that failed.")
@click.option("--batch", metavar="BATCH", help="Only tasks of this batch.")
@click.option("--label", "labels", metavar="NAME=VALUE", multiple=True, help="Only tasks with this label; repeatable.")
@click.option("--grep", metavar="TEXT", help="Only tasks with this text in their prompt, in any case.")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, help="How many at the most. Default: 20.")
def command(
    conf: Settings,
    *,
    as_json: bool,
    since: str | None,
    failed: bool,
    batch: str | None,
    labels: tuple[str, ...],
    grep: str | None,
    limit: int,
) -> VerbResult:
    """List the last tasks of all hosts, the newest first.

    They are copied here (the last 10,000 of each host), so that a host that is down is listed too, as it was.
    Times are those of this machine's zone.
    """
    for name, value in (("--batch", batch), ("--grep", grep)):
        if value == "":  # an empty variable of a script must not list all
            raise UsageError(f"{name} is empty", hint="leave it out to list all")
    first = _first(since, datetime.now(UTC))
    wanted = TaskFilter(
        failed, as_text(batch or "", "--batch"), tuple(as_labels(labels).items()), first, as_text(grep or "", "--grep")
    )
    with Stoppable(), history(conf) as past:
        found = past.store.list(wanted, past.farms, limit + 1)
        tasks, more = found[:limit], len(found) > limit
        document = {"tasks": [_row(task) for task in tasks], "more": more, "hosts": past.hosts()}
        notes = past.notes()
        if not tasks:
            notes.append("no task is like that" if any(wanted) else "there is no task yet")
        elif more and not as_json:
            notes.append(_cut_off(limit))
        return VerbResult(document, _table(tasks), 0, notes)


def _first(since: str | None, now: datetime) -> float:
    """Return the moment that `since` names, in Unix seconds; days and weeks are whole days. Raises UsageError."""
    if since and since[-1] in "smh":
        with contextlib.suppress(ValueError):
            return now.timestamp() - duration(since)
    try:
        return since_day(since, now.date()) * _DAY_S
    except UsageError as error:
        error.hint = error.hint and f"{error.hint}; 90m or 12h"
        raise


def _cut_off(limit: int) -> str:
    return f"{'this is the last one' if limit == 1 else f'these are the last {limit}'}: -n shows more"


def _row(task: PastTaskCopy) -> dict[str, Any]:
    names = ("id", "state", "batch", "labels", "model", "engine", "cost_usd", "created_at", "finished_at", "content")
    prompt = None if task.spec is None else str(task.spec.get("prompt"))[:_BEGINNING]
    return {"host": task.host, **{name: task.result.get(name) for name in names}, "prompt": prompt}


def _table(tasks: list[PastTaskCopy]) -> str:
    """Return a line for each task that is no wider than the terminal: columns are left out first."""
    columns: dict[str, list[str]] = {name: [] for name in ("id", "when", "state", "host", "batch", "cost")}
    for task in tasks:
        cost = task.result.get("cost_usd")
        values = {
            "id": task.id,
            "when": local_time(task.result["created_at"])[5:16],
            "state": task.result["state"],
            "host": task.host,
            "batch": task.result.get("batch") or "-",
            "cost": "-" if cost is None else dollars(cost),
        }
        for name, value in values.items():
            columns[name].append(one_line(str(value))[:64])
    widths = {name: max(map(len, column), default=0) for name, column in columns.items()}
    width = _width()
    for name in _DROPPED:
        if width and sum(widths.values()) + 2 * len(widths) + 20 > width:
            del widths[name]
    lines = []
    for number, task in enumerate(tasks):
        prompt = "(gone)" if task.spec is None else one_line(str(task.spec.get("prompt"))[:400])
        cells = [columns[name][number].ljust(size) for name, size in widths.items()]
        line = "  ".join([*cells, prompt if width else prompt[:_PIPED]]).rstrip()
        lines.append(cut(line, width) if width else line)
    return "\n".join(lines)


def _width() -> int:
    """Return how wide a line may be: the terminal's width, whatever COLUMNS says; 0 for a pipe, where any is.

    A terminal that does not know its width (a serial line, a container's) is taken to have 80 columns.
    """
    with contextlib.suppress(OSError):
        if sys.stdout.isatty():
            return max(1, (os.get_terminal_size(sys.stdout.fileno()).columns or 80) - 1)
    return 0
