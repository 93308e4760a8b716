"""Memory: the agent at rest, with a long queue and with many tasks running; the client of a short and a long batch."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path

from benchmarks.driver import agents, local, resident_mb, run_batch, submit
from benchmarks.ground import ROOT, Ground, write_tasks
from benchmarks.rows import Row
from farmhand.wire.client import Client
from tests.support.farm import FarmError

#: Tasks that run at once for the row of one running task.
RUNNING = 200
QUEUED = 10_000
LINES = (1_000, 100_000)


async def _agent(ground: Ground, directory: Path) -> list[Row]:
    # Two agents: what a queue has left behind in one's heap would hide what running tasks take.
    async with agents(directory, 2, slots_api=RUNNING) as ((queueing, busy), api):
        await asyncio.sleep(1)
        rest = resident_mb(queueing.pid)
        queued = ground.tasks(QUEUED)
        with Client(local(queueing)) as client:
            # Without a key they wait.
            await asyncio.to_thread(submit, client, "queued", queued, key=None)
            full = resident_mb(queueing.pid)
        before = resident_mb(busy.pid)
        # The meter lets more requests go out at once the more have been answered; what these leave counts as well.
        await asyncio.to_thread(run_batch, local(busy), 10 * RUNNING)
        api.latency(20_000)
        with Client(local(busy)) as client:
            await asyncio.to_thread(submit, client, "running", RUNNING)
            await _until_running(client, RUNNING)
            await asyncio.sleep(2)
            running, out = resident_mb(busy.pid), api._call("GET", "limits")["running"]
            await asyncio.to_thread(client.cancel_many, [task["id"] for task in client.tasks(limit=RUNNING)["tasks"]])
    return [
        Row(what="memory: agent at rest", ours=rest, unit="MB", target="<= 60"),
        Row(what=f"memory: agent with {queued:,} tasks queued", ours=full, unit="MB", target="<= 100"),
        Row(
            what="memory: each running api task",
            ours=max(0.0, running - before) / RUNNING,
            unit="MB",
            target="<= 1",
            note=f"{RUNNING} at once, {out} requests under way",
        ),
    ]


async def _until_running(client: Client, count: int) -> None:
    deadline = time.monotonic() + 30
    while (running := client.status()["running"]) < count:
        if time.monotonic() > deadline:
            raise FarmError(f"only {running} tasks run")
        await asyncio.sleep(0.1)


def _client(ground: Ground, directory: Path) -> Row:
    """The peak of `farmhand batch`; its children are Ansible's, for a moment each."""
    peaks = {}
    for lines in (ground.tasks(LINES[0]), ground.tasks(LINES[1])):
        source = write_tasks(directory / f"in-{lines}.jsonl", [f"Say {n}." for n in range(lines)])
        argv = [str(ROOT / ".venv/bin/farmhand"), "batch", str(source), "--out", str(directory / f"out-{lines}.jsonl")]
        with (directory / "batch.log").open("wb") as log:
            pid = os.posix_spawn(
                argv[0],
                argv,
                ground.env,
                file_actions=[(os.POSIX_SPAWN_DUP2, log.fileno(), 1), (os.POSIX_SPAWN_DUP2, log.fileno(), 2)],
            )
        _, status, used = os.wait4(pid, 0)
        if status != 0:
            raise FarmError(f"farmhand batch: {(directory / 'batch.log').read_text()[-400:]}")
        peaks[lines] = used.ru_maxrss / 1024
    (few, small), (many, large) = peaks.items()
    return Row(
        what=f"memory: farmhand batch, {many:,} lines",
        ours=large,
        reference=small,
        against=f"the same with {few:,} lines",
        unit="MB",
        target="ratio <= 1.2",
        note="peak of the process",
    )


def measure(ground: Ground) -> list[Row]:
    """The rows of memory."""
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        directory = Path(name)
        rows = asyncio.run(_agent(ground, directory))
        return [*rows, _client(ground, directory)]
