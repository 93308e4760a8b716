"""Sandboxes that have started before there is a task for them: connections to task.sock that wait for their order.

Each serves one task and ends with it, as one that is started for its task does; the next task gets the next sandbox. So
a task finds its sandbox ready, and yet nothing of the one before it. They are there while the engine is in use: the
first task after a rest starts its own.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

log = logging.getLogger("jada-agent")
#: How long a sandbox may wait for a task, and how long after the last task there are any, in seconds. The unit's
#: RuntimeMaxSec begins with the sandbox and not with its task: the role adds as much to it.
WAIT_S = 300.0

Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class SandboxPool:
    """Up to `wanted` connections to `path` that nobody has used yet; `limit` is the longest line that is read.

    Each takes one of `permits` and keeps it, also for whoever takes the connection: until it is gone, they give it
    back. A task waits for one; a spare sandbox is started only where one is free.
    """

    def __init__(self, path: Path, wanted: int, limit: int, permits: asyncio.Semaphore | None = None) -> None:
        self.path = path
        self._permits = permits if permits is not None else asyncio.Semaphore(2**31)
        self._wanted = wanted
        self._limit = limit
        self._lines: list[Line] = []
        self._filling: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None

    async def take(self) -> Line:
        """A sandbox that waits for its order, or a new one. Raises OSError where none can be had."""
        line = self._ready() or await self._connect()
        self._refill()
        return line

    def close(self) -> None:
        """End all that wait."""
        if self._filling is not None:
            self._filling.cancel()
        if self._expiry is not None:
            self._expiry.cancel()
        while self._lines:
            self._drop(self._lines.pop()[1])

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        """Nothing of a task has run in it: it ends by itself."""
        writer.close()
        self._permits.release()

    def _ready(self) -> Line | None:
        """The one that has waited longest, past those that have died: systemd or the kernel may end any of them."""
        while self._lines:
            reader, writer = self._lines.pop(0)
            if not reader.at_eof() and reader.exception() is None and not writer.is_closing():
                return reader, writer
            self._drop(writer)
        return None

    async def _connect(self) -> Line:
        await self._permits.acquire()
        try:
            return await asyncio.open_unix_connection(self.path, limit=self._limit)
        except BaseException:
            self._permits.release()
            raise

    def _refill(self) -> None:
        if not self._wanted:
            return
        loop = asyncio.get_running_loop()
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = loop.call_later(WAIT_S, self.close)
        if self._filling is None or self._filling.done():
            self._filling = loop.create_task(self._fill(), name="spare sandboxes")

    async def _fill(self) -> None:
        while len(self._lines) < self._wanted and not self._permits.locked():
            try:
                self._lines.append(await self._connect())
            except OSError as error:
                # The next task tries again, and says so if it cannot have one either.
                log.debug("no spare sandbox: %s", error)
                return
