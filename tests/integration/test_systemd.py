"""The daemon under a service manager, played by the test: its sockets by name, readiness, the watchdog, the end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.agent import Agent
from tests.support.messages_api import DEFAULT_KEY, MessagesApi

WATCHDOG_S = 1.0
#: Becomes the daemon, as systemd starts it: the sockets from descriptor 3 on, and who they are for by process id.
_START = """
import os, sys
for target, given in enumerate(map(int, sys.argv[1].split(",")), start=3):
    os.dup2(given, target)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "farmhand.agent.main", "serve", "--config", sys.argv[2]])
"""


@dataclass
class Manager:
    """The service manager's side: what it was told, and when."""

    agent: Agent
    process: asyncio.subprocess.Process
    told: list[tuple[float, str]] = field(default_factory=list)

    def says(self, word: str) -> list[float]:
        """When `word` came."""
        return [at for at, text in self.told if word in text.splitlines()]

    async def until(self, word: str, count: int = 1) -> None:
        """Wait for the `count`th `word`."""
        async with asyncio.timeout(120):
            while len(self.says(word)) < count:
                assert self.process.returncode is None, "the daemon has ended"
                await asyncio.sleep(0.02)


@pytest.fixture
async def manager(tmp_path: Path, api: MessagesApi) -> AsyncIterator[Manager]:
    agent = Agent(tmp_path, api.url, drain_s=5.0)
    loop = asyncio.get_running_loop()
    listeners = {}
    # Not in the order that the daemon uses them in: it must go by their names. 10 and up: 3 and 4 are the targets.
    for name in ("meter", "agent"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "run" / f"{name}.sock"))
        listener.listen()
        listeners[name] = listener
    given = [os.dup(listener.fileno()) for listener in listeners.values()]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.setblocking(False)
        environment = {
            **os.environ,
            "LISTEN_FDS": "2",
            "LISTEN_FDNAMES": ":".join(listeners),
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6)),
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _START, ",".join(map(str, given)), str(agent.config)),
            env=environment,
            pass_fds=given,
            stderr=(tmp_path / "agent.log").open("ab"),
        )
        running = Manager(agent, process)
        loop.add_reader(channel, lambda: running.told.append((loop.time(), channel.recv(4096).decode())))
        yield running
        loop.remove_reader(channel)
        if process.returncode is None:
            process.kill()
            await process.wait()
    for descriptor in given:
        os.close(descriptor)
    for listener in listeners.values():
        listener.close()


async def test_it_serves_on_the_sockets_it_was_given_and_says_when_it_is_ready(
    manager: Manager, tmp_path: Path
) -> None:
    inodes = {name: (tmp_path / "run" / name).stat().st_ino for name in ("agent.sock", "meter.sock")}
    await manager.until("READY=1")
    assert (await manager.agent.get("/v1/status"))["state"] == "running"
    # The daemon made no sockets of its own in their place, and leaves these behind for the next start.
    manager.process.terminate()
    assert await manager.process.wait() == 0
    assert {name: (tmp_path / "run" / name).stat().st_ino for name in inodes} == inodes


async def test_it_reports_life_twice_per_interval_and_not_while_it_hangs(manager: Manager) -> None:
    await manager.until("WATCHDOG=1", 4)
    beats = manager.says("WATCHDOG=1")
    assert max(later - earlier for earlier, later in pairwise(beats)) < WATCHDOG_S
    manager.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(0.1)
    before = len(manager.says("WATCHDOG=1"))
    await asyncio.sleep(1.5 * WATCHDOG_S)
    assert len(manager.says("WATCHDOG=1")) == before
    manager.process.send_signal(signal.SIGCONT)
    await manager.until("WATCHDOG=1", before + 1)


async def test_it_says_that_it_stops_and_goes_on_reporting_life_while_it_drains(
    manager: Manager, api: MessagesApi
) -> None:
    await manager.until("READY=1")
    api.state.latency_s = 1.5
    await manager.agent.submit({"id": "last", "prompt": "hello"}, key={"X-Farmhand-Key": DEFAULT_KEY})
    await manager.agent.wait_state("last", "running")
    manager.process.terminate()
    await manager.until("STOPPING=1")
    before = len(manager.says("WATCHDOG=1"))
    await manager.until("WATCHDOG=1", before + 2)
    assert await manager.process.wait() == 0
    again = Agent(manager.agent.directory, api.url)
    for name in ("agent", "meter"):
        (manager.agent.directory / "run" / f"{name}.sock").unlink()
    await again.start()
    assert (await again.get("/v1/tasks/last"))["task"]["state"] == "succeeded"
    await again.stop()
