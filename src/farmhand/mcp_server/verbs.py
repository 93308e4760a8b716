"""The verbs of the command line that a tool asks, each in a process of its own."""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio

from farmhand.core.errors import FarmhandError, FarmUnreachable
from farmhand.core.keys import harmless
from farmhand.mcp_server import words
from farmhand.mcp_server.book import Tell
from farmhand.mcp_server.jobs import working_directory

#: How long what is asked of a verb may take, and how often it is told that it takes. Seconds.
VERB_S = 60.0
_TELLS_S = 1.0


async def printed(argv: list[str], environment: dict[str, str], tell: Tell) -> dict[str, Any]:
    """Return what `farmhand ARGV --json` prints; `tell` is told while it takes. Raise its error, or FarmUnreachable."""
    program = [sys.executable, "-c", "from farmhand.cli import main; main()", *argv, "--json"]
    what, done = f"is not there after {VERB_S:g} s", None
    with anyio.move_on_after(VERB_S):
        async with anyio.create_task_group() as group:
            group.start_soon(_tell_often, tell, f"waiting for the farm's {argv[0]}")
            try:
                done = await anyio.run_process(program, check=False, env=environment, cwd=working_directory())
            except OSError as problem:
                what = f"cannot be started: {problem.strerror}"
            group.cancel_scope.cancel()
    if done is None:
        raise FarmUnreachable(f"the farm's {argv[0]} {what}", hint="call it again later")
    try:
        found = json.loads(done.stdout or b"{}")
    except ValueError:
        found = {}
    if isinstance(error := found.get("error"), dict):
        raise failure_of(error, done.returncode)
    return dict(found)


def failure_of(error: dict[str, Any], status: int, job_id: str = "") -> FarmhandError:
    """Return the error that a verb has printed, in the words of a session. `job_id`: the job that it is of."""
    message = words.message(str(harmless(error.get("message") or "")), job_id)
    hint = words.hint(str(harmless(error.get("hint") or "")), job_id)
    lines = error.get("lines")
    message += "".join(f"; {harmless(str(line))}" for line in lines) if isinstance(lines, list) else ""
    made = FarmhandError(message, hint=hint, code=str(error.get("code") or "error"))
    made.exit_code = status
    return made


async def _tell_often(tell: Tell, what: str) -> None:
    while True:
        await anyio.sleep(_TELLS_S)
        await tell(what)
