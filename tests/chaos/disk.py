"""A disk that can be full: a small tmpfs for root, and for others the agent's limit on the size of its files."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
from pathlib import Path

from tests.support.agent import Agent

_SIZE_MB = 8


class Disk:
    """The directory `state` of an agent. `async with` mounts it and takes it away."""

    def __init__(self, state: Path, *, mount: bool) -> None:
        self._state = state
        self._root = mount and os.geteuid() == 0

    async def __aenter__(self) -> Disk:
        self._state.mkdir(exist_ok=True)
        if self._root:
            await self._run("mount", "-t", "tmpfs", "-o", f"size={_SIZE_MB}m", "tmpfs", str(self._state))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._root:
            await self._run("umount", "--lazy", str(self._state))

    @staticmethod
    async def _run(*argv: str) -> None:
        await asyncio.to_thread(subprocess.run, argv, check=True)

    def fill(self, agent: Agent) -> None:
        """No byte is left."""
        if not self._root:
            room = (self._state / "ledger.db-wal").stat().st_size
            resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
            return
        with (self._state / "filler").open("wb", buffering=0) as file:
            for size in (65536, 512, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue

    def free(self, agent: Agent) -> None:
        """There is room again."""
        if self._root:
            (self._state / "filler").unlink(missing_ok=True)
            return
        resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
