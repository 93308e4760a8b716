"""The worker container's first program waits for its agent, and ends with it."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

#: With shorter times, and no directory of this machine to guard.
PROGRAM = """
import os, sys
from pathlib import Path
from farmhand.cloud import launcher
launcher.READY_S, launcher.LOOK_S, launcher.GONE_S, launcher.SHARED = {ready}, 0.1, 0.5, ()
root = Path(sys.argv[1])
sys.exit(launcher.main(root / "run", root / "sandbox", root / "work", os.getuid()))
"""


@pytest.fixture
async def root() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="launch-") as made:
        for name in ("run", "sandbox", "work"):
            Path(made, name).mkdir()
        yield Path(made)


async def launch(root: Path, ready: float = 20) -> asyncio.subprocess.Process:
    command = (sys.executable, "-c", PROGRAM.format(ready=ready), str(root))
    return await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)


def has_ended(process: asyncio.subprocess.Process) -> bool:
    """Whether it has ended."""
    return process.returncode is not None


async def listens(root: Path) -> None:
    async with asyncio.timeout(40):
        while not (root / "sandbox" / "task.sock").exists():  # noqa: ASYNC110  (it is another process)
            await asyncio.sleep(0.05)


def agent(root: Path) -> socket.socket:
    path = root / "run" / "meter.sock"
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(128)
    return listener


async def test_without_an_agent_it_ends_with_70(root: Path) -> None:
    process = await launch(root, ready=0.3)
    _, said = await process.communicate()
    assert (process.returncode, b"the agent has made no" in said) == (70, True)
    # The file of an agent that has ended is none.
    agent(root).close()
    process = await launch(root, ready=0.3)
    assert await process.wait() == 70


async def test_it_ends_when_the_agent_has_gone(root: Path) -> None:
    listener = agent(root)
    process = await launch(root)
    await listens(root)
    await asyncio.sleep(1)
    assert not has_ended(process)
    listener.close()
    _, said = await asyncio.wait_for(process.communicate(), 40)
    assert (process.returncode, b"the agent has not been there" in said) == (0, True)


async def test_sigterm_ends_it_at_once_with_and_without_an_agent(root: Path) -> None:
    process = await launch(root)
    await asyncio.sleep(1.5)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 40) == 0
    with agent(root):
        process = await launch(root)
        await listens(root)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 40) == 0
