"""Growth: the same tasks beside a ledger of 1,000, 10,000 and 100,000 finished ones, and how long `status` takes."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.driver import agents, local, run_batch
from benchmarks.ground import Ground
from benchmarks.rows import Row, interleaved
from farmhand.wire.client import Client
from tests.support.agent import Agent

SIZES = (1_000, 10_000, 100_000)
TASKS = 500
_SEEDS = 500
_STATUS_CALLS = 20


def multiply(ledger: Path, size: int) -> None:
    """Copy the finished tasks of a ledger, with their attempts and charges, until there are `size` tasks."""
    db = sqlite3.connect(ledger)
    with db:
        have = db.execute("SELECT count(*) FROM task").fetchone()[0]
        for copy in range(1, -(-size // have)):
            _copy(db, copy, have, min(have, size - copy * have))
        db.execute("UPDATE counter SET value = (SELECT max(done_no) FROM task) WHERE name = 'done'")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def _copy(db: sqlite3.Connection, copy: int, have: int, count: int) -> None:
    shift = copy * have
    changes = {"seq": f"seq + {shift}", "id": f"id || '-{copy}'", "done_no": f"done_no + {shift}"}
    _insert(db, "task", changes, f"seq <= {count}")
    for table in ("attempt", "charge"):
        names = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
        more = {"task_seq": f"task_seq + {shift}"}
        if "no" in names:
            most = db.execute("SELECT max(no) FROM charge").fetchone()[0]
            more |= {"no": f"no + {most}"}
        _insert(db, table, more, f"task_seq <= {count}")


def _insert(db: sqlite3.Connection, table: str, changes: dict[str, str], where: str) -> None:
    # Names and numbers of our own: nothing here comes from outside.
    names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(changes.get(name, name) for name in names)
    db.execute(f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM {table} WHERE {where}")  # noqa: S608


async def _prepared(agent: Agent, size: int) -> None:
    await asyncio.to_thread(run_batch, local(agent), min(_SEEDS, size))
    await agent.stop()
    await asyncio.to_thread(multiply, agent.directory / "state" / "ledger.db", size)
    await agent.start()


def _status_s(agent: Agent) -> float:
    with Client(local(agent)) as client:
        client.status()
        taken = []
        for _ in range(_STATUS_CALLS):
            started = time.perf_counter()
            client.status()
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


async def _measure(ground: Ground, directory: Path) -> list[Row]:
    sizes = [ground.tasks(size) for size in SIZES]
    tasks = ground.tasks(TASKS)
    async with agents(directory, len(sizes)) as (made, _api):
        for agent, size in zip(made, sizes, strict=True):
            await _prepared(agent, size)
        by_size = dict(zip(sizes, made, strict=True))
        ways = {
            f"{size:,}": lambda agent=agent: run_batch(local(agent), tasks) / tasks * 1000
            for size, agent in by_size.items()
        }
        taken = await asyncio.to_thread(interleaved, ways, ground.rounds)
        status = {size: await asyncio.to_thread(_status_s, agent) for size, agent in by_size.items()}
    base = statistics.median(taken[f"{sizes[0]:,}"])
    rows = [
        Row(
            what=f"growth: a task beside {size:,} in the ledger",
            ours=statistics.median(taken[f"{size:,}"]),
            reference=base,
            against=f"beside {sizes[0]:,}",
            unit="ms",
            target="ratio <= 1.2",
            note=f"{tasks} tasks, API latency 0 ms",
        )
        for size in sizes[1:]
    ]
    return rows + [
        Row(what=f"growth: status, {size:,} tasks in the ledger", ours=s * 1000, unit="ms", target="<= 50")
        for size, s in status.items()
    ]


def measure(ground: Ground) -> list[Row]:
    """The rows of growth."""
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        return asyncio.run(_measure(ground, Path(name)))
