"""`farmhand cancel`: end tasks, whether they wait or run."""

from __future__ import annotations

from farmhand.cli.past import history, many_ids
from farmhand.cli.signals import Stoppable
from farmhand.cli.verb import VerbResult, verb
from farmhand.core.errors import FarmhandError, FarmUnreachable, WireError
from farmhand.core.settings import Settings
from farmhand.wire.follow import FINAL_STATES
from farmhand.wire.requests import MAX_IDS


@verb("cancel", "connect_timeout_s", json_help="Print one JSON object: the tasks' ids and states.")
@many_ids
def command(conf: Settings, *, as_json: bool, ids: tuple[str, ...]) -> VerbResult:
    """End tasks, whether they wait or run. What a request has cost until then is paid.

    ID is an id, or the beginning of one. A task that had ended before stays as it is. Where one is not known, the
    others are ended all the same. The exit status is 2 then, 4 if a host could not be asked, else 0.
    """
    states: dict[str, str] = {}
    failures: list[FarmhandError] = []
    with Stoppable(), history(conf) as past:
        tasks = {}
        for start in ids:
            try:
                task = past.find(start)
                tasks[task.id] = task
            except FarmhandError as error:
                failures.append(error)
        if not tasks:
            raise failures[0]
        states = {task.id: task.result["state"] for task in tasks.values()}
        running = [task for task in tasks.values() if states[task.id] not in FINAL_STATES]
        for host in dict.fromkeys(task.host for task in running):
            there = [task.id for task in running if task.host == host]
            try:
                with past.client(host) as client:
                    for first in range(0, len(there), MAX_IDS):
                        states |= client.cancel_many(there[first : first + MAX_IDS])
            except WireError as error:
                failures.append(error.at(host))
            except FarmhandError as error:
                failures.append(error)
    lines = [
        f"{task_id} {state}" if any(task.id == task_id for task in running) else f"{task_id} had ended: {state}"
        for task_id, state in states.items()
    ]
    unreached = [str(error) for error in failures if error.exit_code == FarmUnreachable.exit_code]
    document = {"tasks": [{"id": task_id, "state": state} for task_id, state in states.items()], "unreached": unreached}
    return VerbResult(document, "\n".join(lines), failures[0].exit_code if failures else 0, list(map(str, failures)))
