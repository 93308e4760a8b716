"""The sandboxes of tasks: connections to task.sock, from before a task is assigned until the sandbox has ended.

A sandbox ends by itself when the agent disconnects. A task can stop the program in it, but not systemd. The agent asks
systemd through `task-end.sock` to end such a sandbox. The role's units are the other end of all these sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from pathlib import Path

import msgspec

from farmhand.agent.engines import EngineError
from farmhand.core.task import Network

log = logging.getLogger("jada-agent")
Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_UNIT = re.compile(r"jada-task(-full)?@[a-z0-9-]+\.service")
#: The name that ends all sandboxes.
ALL = "all"
#: Longest line: a whole message with the output of a tool. The daemon holds up to two of them per task.
_MAX_LINE = 16 * 1024 * 1024
#: How long a sandbox may wait for a task, and how long spare ones are kept after the last task, in seconds. The unit's
#: RuntimeMaxSec starts with the sandbox, not with its task, so the role adds this time to it.
WAIT_S = 300.0
#: Time limits in seconds for a sandbox to end by itself, and then to end on request.
_LEAVE_S = 4.0
_END_S = 10.0


class _Hello(msgspec.Struct, tag="farmhand.unit"):
    unit: str = ""


def unit_of(line: bytes) -> str | None:
    """Return the unit in a sandbox's first line, "" if it names none, or None for any other line.

    A sandbox sends it before anything of the task runs in it.
    """
    try:
        unit = msgspec.json.decode(line, type=_Hello).unit
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return unit if _UNIT.fullmatch(unit) else ""


class SandboxPool:
    """The sandboxes whose sockets are in `runtime`: at most `most` at a time, those that hang included.

    Each serves one task and ends with it. Up to `spares` wait for a task while the engine is in use, so that a task
    finds its sandbox ready. They have no network, and are started only if no task waits for a place.
    """

    def __init__(self, runtime: Path, most: int, spares: int) -> None:
        self._runtime = runtime
        self._end_socket = runtime / "task-end.sock"
        self._permits = asyncio.Semaphore(most)
        self._spares = spares
        self._idle: list[Line] = []
        self._filling: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self.leaving: set[asyncio.Task[None]] = set()

    async def take(self, network: Network) -> Line:
        """Return a sandbox that waits for its order, or a new one. Raise EngineError if none can be started."""
        if network == "full":
            return await self._connect("task-full")
        line = self._ready() or await self._connect("task")
        if self._spares:
            loop = asyncio.get_running_loop()
            if self._expiry is not None:
                self._expiry.cancel()
            self._expiry = loop.call_later(WAIT_S, self._rest)
            if self._filling is None or self._filling.done():
                self._filling = loop.create_task(self._fill(), name="spare sandboxes")
        return line

    def see_out(self, line: Line, unit: str) -> None:
        """Disconnect, and wait in the background until the sandbox has ended."""
        task = asyncio.create_task(self._see_out(line, unit), name=f"leaving {unit}")
        self.leaving.add(task)
        task.add_done_callback(self.leaving.discard)

    async def clear(self) -> None:
        """End the sandboxes that an earlier agent left behind. Call this before the first task."""
        if self._end_socket.exists():
            await self._end(ALL)

    def close(self) -> None:
        """End the idle sandboxes, and wait for no other: the next start ends all that are left."""
        self._rest()
        for task in self.leaving:
            task.cancel()

    def _rest(self) -> None:
        for pending in (self._filling, self._expiry):
            if pending is not None:
                pending.cancel()
        while self._idle:
            self._drop(self._idle.pop()[1])

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        """Close an unused connection. No task has run in the sandbox, so it ends by itself."""
        writer.close()
        self._permits.release()

    def _ready(self) -> Line | None:
        """Return the oldest idle sandbox. Skip those that systemd or the kernel has ended."""
        while self._idle:
            reader, writer = self._idle.pop(0)
            if not reader.at_eof() and reader.exception() is None and not writer.is_closing():
                return reader, writer
            self._drop(writer)
        return None

    async def _connect(self, name: str) -> Line:
        path = self._runtime / f"{name}.sock"
        await self._permits.acquire()
        try:
            return await asyncio.open_unix_connection(path, limit=_MAX_LINE)
        except BaseException as error:
            self._permits.release()
            if isinstance(error, OSError):
                what, hint = f"no sandbox to be had: {path}: {error.strerror}", f"systemctl status jada-{name}.socket"
                raise EngineError("agent_error", what, hint=f"see: {hint}") from None
            raise

    async def _fill(self) -> None:
        while len(self._idle) < self._spares and not self._permits.locked():
            try:
                self._idle.append(await self._connect("task"))
            except EngineError as error:
                # The next task tries again, and reports an error if it gets no sandbox either.
                log.debug("no spare sandbox: %s", error)
                return

    async def _end(self, unit: str) -> None:
        """Ask systemd to end a unit, or ALL. Return when that is done or has failed."""
        try:
            async with asyncio.timeout(_END_S):
                reader, writer = await asyncio.open_unix_connection(self._end_socket)
                with contextlib.closing(writer):
                    writer.write(f"{unit}\n".encode())
                    writer.write_eof()
                    await reader.read()
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
                    await self._end(unit)
                patience = _END_S
        finally:
            writer.close()
            self._permits.release()


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
