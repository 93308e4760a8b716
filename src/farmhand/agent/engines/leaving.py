"""Sandboxes whose task is over, until they are gone: a task can stop the program in its sandbox, but not what ends it.

A sandbox ends by itself when the agent hangs up. One that does not is ended by systemd, which `task-end.sock` asks for;
until its connection has ended, it counts as one that is in use. The role's units are the other side of both sockets.
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
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience_s):
            with contextlib.suppress(OSError):
                while await reader.read(65536):
                    pass
            return True
    return False
