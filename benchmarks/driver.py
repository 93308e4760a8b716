"""Agents of their own, without ssh and systemd, for what concerns the agent alone; and a client to keep them busy."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from farmhand.core.ids import new_task_id
from farmhand.wire.client import Client
from farmhand.wire.transport import Transport, UnixTransport
from tests.support.agent import Agent
from tests.support.farm import FarmError
from tests.support.farm.background import Background
from tests.support.farm.control import ApiControl
from tests.support.messages_api import DEFAULT_KEY

_ROOT = Path(__file__).resolve().parents[1]
#: Tasks in one submission, as `farmhand batch` sends them.
CHUNK = 500


@asynccontextmanager
async def agents(directory: Path, count: int = 1, **settings: Any) -> AsyncIterator[tuple[list[Agent], ApiControl]]:
    """So many agents on one loopback API, which is a process of its own as well."""
    api = Background(directory / "api.pid", directory / "api.log")
    said = api.start([sys.executable, "-m", "tests.support.messages_api"], cwd=_ROOT, first_line="listening on ")
    url = said.removeprefix("listening on ")
    made: list[Agent] = []
    try:
        for number in range(count):
            home = directory / f"agent{number}"
            home.mkdir(exist_ok=True)
            made.append(Agent(home, url, **settings))
            await made[-1].start()
        yield made, ApiControl(url)
    finally:
        for agent in made:
            await agent.stop()
        api.stop()


def submit(client: Client, batch: str, count: int, *, key: str | None = DEFAULT_KEY, **options: Any) -> None:
    """Hand over `count` tasks of `batch`."""
    for first in range(0, count, CHUNK):
        numbers = range(first, min(first + CHUNK, count))
        tasks = [{"id": new_task_id(), "prompt": f"Say hello. {n}", "batch": batch, **options} for n in numbers]
        client.submit(tasks, key)


def collect(client: Client, batch: str) -> int:
    """Wait for all results of `batch`; how many succeeded."""
    after, good = 0, 0
    while True:
        page = client.results(batch, after, wait_s=20)
        good += [result["state"] for result in page["results"]].count("succeeded")
        after = int(page["next"])
        if not page["results"] and not page["unfinished"]:
            return good


def run_batch(transport: Transport, count: int, *, key: str = DEFAULT_KEY, **options: Any) -> float:
    """Seconds from the first task's submission to the last one's result. FarmError where a task fails."""
    batch = f"bench-{new_task_id()}"
    with Client(transport) as client:
        client.connect()
        started = time.perf_counter()
        submit(client, batch, count, key=key, **options)
        good = collect(client, batch)
        taken = time.perf_counter() - started
    if good != count:
        raise FarmError(f"{good} of {count} tasks of {batch} succeeded on {transport.name}")
    return taken


def local(agent: Agent) -> UnixTransport:
    """The way to an agent of `agents`."""
    return UnixTransport(str(agent.socket))


def resident_mb(pid: int, what: str = "VmRSS") -> float:
    """A process's resident memory in MB, now (VmRSS) or at its highest (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)
