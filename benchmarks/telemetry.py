"""What spans cost a task: the real daemon without a collector, with one, and with one that is down.

`python -m benchmarks.telemetry [TASKS]`; milliseconds a task, eight at once, and the daemon's memory afterwards.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
import time
from pathlib import Path

from tests.support.agent import Agent
from tests.support.collector import Collector
from tests.support.messages_api import MessagesApi

_AT_ONCE = 8


async def _measure(endpoint: str, tasks: int) -> tuple[float, float]:
    """Return milliseconds of processor time of the daemon for each task, and its memory in MB."""
    async with MessagesApi() as api:
        with tempfile.TemporaryDirectory() as directory:
            agent = Agent(Path(directory), api.url, **{"otel_endpoint": endpoint} if endpoint else {})
            await agent.start()
            try:
                await agent.run(id="warm", prompt="hello")
                before = _processor(agent.pid)
                for first in range(0, tasks, _AT_ONCE):
                    numbers = range(first, min(first + _AT_ONCE, tasks))
                    await asyncio.gather(*(agent.run(id=f"t{number}", prompt="hello") for number in numbers))
                await asyncio.sleep(2.5)  # the last spans are sent
                return (_processor(agent.pid) - before) / tasks * 1000, _memory(agent.pid)
            finally:
                await agent.stop()


def _memory(pid: int) -> float:
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) / 1024


def _processor(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def main(tasks: int) -> None:
    """Print the table."""
    print("| collector | processor time, ms a task | memory, MB |\n|---|---|---|")
    async with Collector() as collector:
        for name, endpoint in (("none", ""), ("there", collector.url), ("down", "http://127.0.0.1:9")):
            began = time.monotonic()
            cost, memory = await _measure(endpoint, tasks)
            print(f"| {name} | {cost:.2f} | {memory:.0f} |", flush=True)
            print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 400))
