"""The sandboxes of tasks: connections to task.sock, from before a task is assigned until the sandbox has ended.

Each sandbox serves one task and ends with it; the next task gets another one. So a task finds its sandbox ready, but
with nothing left from an earlier task. Spare sandboxes exist while the engine is in use: the first task after a pause
has to start its own.

A sandbox ends by itself when the agent disconnects. A task can stop the program in it, but not systemd. The agent asks
systemd through `task-end.sock` to end such a sandbox, which counts as in use until its connection has ended. The role's
units are the other end of all these sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable
from pathlib import Path

import msgspec

log = logging.getLogger("jada-agent")
Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_UNIT = re.compile(r"jada-task(-full)?@[a-z0-9-]+\.service")
#: The name that ends all sandboxes.
ALL = "all"
#: How long a sandbox may wait for a task, and how long spare ones are kept after the last task, in seconds. The unit's
#: RuntimeMaxSec starts with the sandbox, not with its task, so the role adds this time to it.
WAIT_S = 300.0
#: Time limits in seconds for a sandbox to end by itself, and then to end on request.
_LEAVE_S = 4.0
_END_S = 10.0


class _Hello(msgspec.Struct, tag="farmhand.unit", tag_field="type"):
    """The first line of a sandbox, sent before anything of the task runs in it."""

    unit: str = ""


def unit_of(line: bytes) -> str | None:
    """Return the unit in a sandbox's first line, "" if it names none, or None for any other line."""
    try:
        unit = msgspec.json.decode(line, type=_Hello).unit
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return unit if _UNIT.fullmatch(unit) else ""


class SandboxPool:
    """A pool of up to `wanted` unused connections to `path`. `limit` is the longest line that is read.

    Each connection takes one of `permits`. Whoever takes the connection also takes over the permit, and releases it
    when the sandbox has ended. A task waits for a permit; a spare sandbox is started only if one is free.
    """

    def __init__(self, path: Path, wanted: int, limit: int, permits: asyncio.Semaphore) -> None:
        self.path = path
        self._permits = permits
        self._wanted = wanted
        self._limit = limit
        self._lines: list[Line] = []
        self._filling: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None

    async def take(self) -> Line:
        """Return a sandbox that waits for its order, or a new one. Raise OSError if none can be started."""
        line = self._ready() or await self._connect()
        if self._wanted:
            loop = asyncio.get_running_loop()
            if self._expiry is not None:
                self._expiry.cancel()
            self._expiry = loop.call_later(WAIT_S, self.close)
            if self._filling is None or self._filling.done():
                self._filling = loop.create_task(self._fill(), name="spare sandboxes")
        return line

    def close(self) -> None:
        """End all idle sandboxes."""
        for pending in (self._filling, self._expiry):
            if pending is not None:
                pending.cancel()
        while self._lines:
            self._drop(self._lines.pop()[1])

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        """Close an unused connection. No task has run in the sandbox, so it ends by itself."""
        writer.close()
        self._permits.release()

    def _ready(self) -> Line | None:
        """Return the oldest idle sandbox. Skip those that systemd or the kernel has ended."""
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

    async def _fill(self) -> None:
        while len(self._lines) < self._wanted and not self._permits.locked():
            try:
                self._lines.append(await self._connect())
            except OSError as error:
                # The next task tries again, and reports an error if it gets no sandbox either.
                log.debug("no spare sandbox: %s", error)
                return


class SandboxCleanup:
    """Ends sandboxes through `end_socket`. `gone` is called once for each that has ended."""

    def __init__(self, end_socket: Path, gone: Callable[[], None]) -> None:
        self._end_socket = end_socket
        self._gone = gone
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def see_out(self, line: Line, unit: str) -> None:
        """Disconnect, and wait in the background until the sandbox has ended."""
        task = asyncio.create_task(self._see_out(line, unit), name=f"leaving {unit}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Stop waiting: the agent ends, and the next start ends all sandboxes that are left."""
        for task in self._tasks:
            task.cancel()

    async def end(self, unit: str) -> None:
        """Ask systemd to end a unit, or ALL. Return when that is done or has failed."""
        try:
            async with asyncio.timeout(_END_S):
                reader, writer = await asyncio.open_unix_connection(self._end_socket)
                try:
                    writer.write(f"{unit}\n".encode())
                    writer.write_eof()
                    await reader.read()
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            log.warning("a sandbox could not be ended: %s: %s", self._end_socket, error or type(error).__name__)

    async def _see_out(self, line: Line, unit: str) -> None:
        reader, writer = line
        try:
            with contextlib.suppress(OSError):
                writer.write_eof()
            patience = _LEAVE_S
            while not await _ended(reader, patience):
                log.warning("the sandbox %s does not end by itself", unit or "of a task")
                if unit:
                    await self.end(unit)
                patience = _END_S
        finally:
            writer.close()
            self._gone()


async def _ended(reader: asyncio.StreamReader, patience_s: float) -> bool:
    """Return whether the connection ends within `patience_s`. Discard the data that still arrives."""
    try:
        async with asyncio.timeout(patience_s):
            while await reader.read(65536):
                pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True
