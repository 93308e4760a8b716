"""The child of `farmhand mcp` that runs one job: `python -m farmhand.cli.mcp_job DIRECTORY task|VERB …`.

A job is the task in DIRECTORY/task.json, which goes the way of claude-cheap, or another verb of farmhand. Stdout is the
verb's JSON. The exit status is noted in DIRECTORY/status.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from farmhand.cli import render
from farmhand.cli.say import end
from farmhand.cli.signals import Stopped
from farmhand.cli.waiting import WaitLine, described
from farmhand.core import settings


class _NotedWait(WaitLine):
    """What the task waits for, noted in a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def on(self, what: str, in_s: float | None = None) -> None:
        """Note it."""
        _note(self._path, what)

    def event(self, host: str, event: dict[str, Any]) -> None:
        """Note what an event says."""
        if (found := described(event)) is not None:
            self.on(f"{host}: {found[0]}", found[1])


def _note(path: Path, what: str) -> None:
    with contextlib.suppress(OSError):
        path.write_text(what)


def main() -> None:
    """Run the job of this process's arguments, and note how it ended."""
    os.umask(0o077)
    directory = Path(sys.argv[1])
    status: Any = 1
    try:
        if sys.argv[2] == "task":
            end("farmhand", lambda: _run(directory, sys.argv[3] if sys.argv[3:] else None))
        from farmhand.cli import main as farmhand
        from farmhand.cli.batch_progress import ProgressDisplay

        ProgressDisplay.on_wait = staticmethod(partial(_note, directory / "progress"))
        sys.argv = ["farmhand", *sys.argv[2:]]
        farmhand()
    except SystemExit as ended:
        status = ended.code
        raise
    finally:
        beside = directory / "status.new"
        beside.write_text(str(status if isinstance(status, int) else 1 if status else 0))
        beside.replace(directory / "status")


def _run(directory: Path, config: str | None) -> int:
    from farmhand.cli.carry import answer, task_span
    from farmhand.cli.run_task import early_connection
    from farmhand.cli.say import note
    from farmhand.core.errors import from_result
    from farmhand.places import hosts

    with render.errors_as_json(True):
        conf = settings.load(config)
        # A session's task is never answered by the session's own plan, and there is nobody here to be asked.
        conf = conf._replace(fallback="none" if conf.fallback == "none" else "queue")
        task = json.loads((directory / "task.json").read_bytes())
        if conf.place in settings.AWS_PLACES:
            from farmhand.cli.cloud import task as on_fargate

            return on_fargate.carry(task, conf, as_json=True, extract="", subscription=False)
        hosts.make_ready(conf, note)
        printer = render.Printer(stream=False)
        printer.wait = _NotedWait(directory / "progress")
        with task_span(conf) as span:
            try:
                with early_connection(conf) as way:
                    result = answer(task, conf, printer, way, span)
            except Stopped as stopped:
                render.write_json({"error": {"code": "cancelled", "message": f"stopped by {stopped}", "hint": ""}})
                return stopped.exit_code
            render.write_json(result)
        failure = from_result(result)
        return 0 if failure is None else failure.exit_code


if __name__ == "__main__":
    main()
