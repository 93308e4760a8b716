"""The real daemon in a process of its own, forked where its modules are loaded: a start takes a tenth of the time."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from tests.support import clock, trap
from tests.support.agent import NO_CERTIFICATES, Agent
from tests.support.clock import Clock
from tests.support.trap import Trap

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.support.preloaded"])
#: A start asks how each earlier child ended; of two threads that ask about one at once, the second is told 255.
_ASKING = threading.Lock()


class ForkedAgent(Agent):
    """`jada-agent serve`, with a clock that can be set, and moments to die at."""

    clock: Clock | None = None
    trap: Trap | None = None

    async def spawn(self) -> Child:
        """A new process of it."""
        paths = [None if one is None else one.path for one in (self.clock, self.trap)]
        return await asyncio.to_thread(Child, _serve, self.config, self.log, *paths)


class Child:
    """A process that calls `target`, as `asyncio.subprocess.Process` would be. What it says is in the log."""

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        self._process = _FORKS.Process(target=target, args=arguments, daemon=True)
        with _ASKING:
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs."""
        with _ASKING:
            return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    async def wait(self) -> int:
        """Wait for the end."""
        while (status := self.returncode) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        return status


def write_to(log: Path) -> None:
    """What this process says from here on is in the log."""
    with log.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)


def _serve(config: Path, log: Path, time: Path | None, snare: Path | None) -> None:
    """Be the daemon."""
    write_to(log)
    if time is not None:
        clock.follow(time)
    if snare is not None:
        trap.follow(snare)
    os.environ |= NO_CERTIFICATES
    from farmhand.agent.main import main

    sys.exit(main(["serve", "--config", str(config)]))
