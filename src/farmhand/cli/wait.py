"""`farmhand wait`: wait until tasks have ended."""

from __future__ import annotations

from farmhand.cli import render
from farmhand.cli.past import history, many_ids
from farmhand.cli.signals import Stoppable
from farmhand.cli.verb import VerbResult, verb
from farmhand.cli.watching import follow
from farmhand.core.errors import from_result
from farmhand.core.settings import Settings
from farmhand.wire.follow import FINAL_STATES


@verb("wait", "connect_timeout_s", json_help="Print one JSON object: the tasks' results.")
@many_ids
def command(conf: Settings, *, as_json: bool, ids: tuple[str, ...]) -> VerbResult:
    """Wait until all these tasks have ended.

    ID is an id, or the beginning of one. The exit status is 0 if all succeeded, else that of the first that did not: 1
    it failed or was cancelled, 5 a budget refused it. Ctrl-C ends the waiting and not the tasks.
    """
    results = []
    with Stoppable(), history(conf) as past:
        for task in [past.find(start) for start in ids]:
            result = task.result
            if result["state"] not in FINAL_STATES:
                result = follow(past, task, render.Printer(stream=False))
            results.append(result)
            if not as_json:
                render.write_bytes(f"{task.id} {result['state']}")
    failures = [failure for failure in map(from_result, results) if failure is not None]
    return VerbResult({"tasks": results}, "", failures[0].exit_code if failures else 0, list(map(str, failures)))
