"""The sandboxes of tasks, from before there is a task for one until it is gone: connections to task.sock.

Each serves one task and ends with it; the next task gets the next sandbox. So a task finds its sandbox ready, and yet
nothing of the one before it. Spare ones are there while the engine is in use: the first task after a rest starts its
own.

A sandbox ends by itself when the agent hangs up. A task can stop the program in it, but not systemd, which
`task-end.sock` asks for the end of such a one; until its connection has ended, it counts as one that is in use. The
role's units are the other side of all these sockets.
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
#: What ends every sandbox there is.
ALL = "all"
#: How long a sandbox may wait for a task, and how long after the last task there are any, in seconds. The unit's
#: RuntimeMaxSec begins with the sandbox and not with its task: the role adds as much to it.
WAIT_S = 300.0
#: How long an orderly end may take, and then one that was asked for, in seconds.
_LEAVE_S = 4.0
_END_S = 10.0


class _Hello(msgspec.Struct, tag="farmhand.unit", tag_field="type"):
    """The first line of a sandbox, from before anything of the task runs in it."""

    unit: str = ""


def unit_of(line: bytes) -> str | None:
    """The unit that a sandbox's first line names, "" where it has none; None where it is no such line."""
    try:
        unit = msgspec.json.decode(line, type=_Hello).unit
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return unit if _UNIT.fullmatch(unit) else ""


class SandboxPool:
    """Up to `wanted` connections to `path` that nobody has used yet; `limit` is the longest line that is read.

    Each takes one of `permits` and keeps it, also for whoever takes the connection: until it is gone, they give it
    back. A task waits for one; a spare sandbox is started only where one is free.
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
        """A sandbox that waits for its order, or a new one. Raises OSError where none can be had."""
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
        """End all that wait."""
        for pending in (self._filling, self._expiry):
            if pending is not None:
                pending.cancel()
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

    async def _fill(self) -> None:
        while len(self._lines) < self._wanted and not self._permits.locked():
            try:
                self._lines.append(await self._connect())
            except OSError as error:
                # The next task tries again, and says so if it cannot have one either.
                log.debug("no spare sandbox: %s", error)
                return


class SandboxCleanup:
    """Sees sandboxes out. Their end is asked for at `end_socket`; `gone` is called once for each that has ended."""

    def __init__(self, end_socket: Path, gone: Callable[[], None]) -> None:
        self._end_socket = end_socket
        self._gone = gone
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def see_out(self, line: Line, unit: str) -> None:
        """Hang up, and look after the sandbox until it has ended, in the background."""
        task = asyncio.create_task(self._see_out(line, unit), name=f"leaving {unit}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """The agent ends: the next one begins with the end of what is left."""
        for task in self._tasks:
            task.cancel()

    async def end(self, unit: str) -> None:
        """Have systemd end a unit, or ALL; return once that is done, or is not to be had."""
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
    """Whether the connection ends in that time; what still comes over it is dropped."""
    try:
        async with asyncio.timeout(patience_s):
            while await reader.read(65536):
                pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True
