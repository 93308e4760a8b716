"""Three hosts against one, where the API's latency dominates."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from pathlib import Path

from benchmarks.driver import agents, local, run_batch
from benchmarks.ground import Ground, timed
from benchmarks.rows import Row, interleaved, medians
from tests.support.agent import Agent

HOSTS = 3
TASKS = 360
#: So long that what the machine under the agents can do is not what bounds them.
LATENCY_MS = 1_000.0


def _spread(made: list[Agent], tasks: int) -> None:
    """The tasks in equal shares to these agents."""
    share = tasks // len(made)
    threads = [threading.Thread(target=run_batch, args=(local(agent), share)) for agent in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def _measure(ground: Ground, directory: Path) -> list[Row]:
    tasks = HOSTS * max(32, ground.tasks(TASKS) // HOSTS)
    async with agents(directory, HOSTS) as (made, api):
        api.latency(LATENCY_MS)
        ways = {
            "three": lambda: tasks / timed(lambda: _spread(made, tasks)),
            "one": lambda: tasks / timed(lambda: _spread(made[:1], tasks)),
        }
        middle = medians(await asyncio.to_thread(interleaved, ways, ground.rounds))
    return [
        Row(
            what="three agents",
            ours=middle["three"],
            reference=middle["one"],
            against="one agent",
            unit="tasks/s",
            target="ratio >= 2.5",
            note=f"{tasks} tasks, API latency {LATENCY_MS:g} ms",
        )
    ]


def measure(ground: Ground) -> list[Row]:
    """The row of several hosts."""
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        return asyncio.run(_measure(ground, Path(name)))
