"""One process of the unmodified CLI for one turn, which may have been started before the turn came.

Nothing of a turn is in its arguments or its environment: the system prompt is in a file that is removed once the CLI
has read it, the conversation goes through stdin. Later a process could be kept for a whole conversation and be given
each new turn: `ask` is the one place where a turn goes in.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec

from farmhand.core import claude
from farmhand.subscription.command import command

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h
_LIBC = ctypes.CDLL(None)
#: Bytes of one line of the CLI: the whole answer is in one of them.
_MAX_LINE = 64 * 1024 * 1024
#: Bytes of its stderr that are kept for an error.
_MAX_ERRORS = 4096
#: Seconds that it has to end by itself after its result.
_END_S = 5.0
#: The system prompt of a turn that has none: without one the CLI would send its own, of 50 KB.
_NO_SYSTEM = "Answer the user."


class CliOrder(msgspec.Struct, frozen=True):
    """With what a process is started. One that waits is used for a turn with the same order only."""

    program: str
    model: str
    system: str
    max_tokens: int | None


class ClaudeProcess:
    """A started CLI. Make one with `start`."""

    def __init__(self, order: CliOrder, process: Process, directory: Path) -> None:
        self.order = order
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("a process without pipes")
        self._process, self._stdin, self._stdout, self._stderr = process, process.stdin, process.stdout, process.stderr
        self._directory = directory
        self._errors = b""
        self._reader = asyncio.create_task(self._read_errors())

    @classmethod
    async def start(cls, order: CliOrder, environ: Mapping[str, str], home: Path) -> ClaudeProcess:
        """Start the CLI, which then waits for its turn; its files are below `home`. Raise OSError or Refused."""
        directory = home / f"turn-{secrets.token_hex(4)}"
        directory.mkdir(mode=0o700)
        try:
            system = directory / "system"
            _write(system, order.system or _NO_SYSTEM)
            process = await asyncio.create_subprocess_exec(
                *command(order.program, order.model, system),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                env=dict(environ),
                cwd=home / "work",
                start_new_session=True,
                limit=_MAX_LINE,
                preexec_fn=_end_with_gateway if sys.platform == "linux" else None,
            )
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return cls(order, process, directory)

    @property
    def pid(self) -> int:
        """Return the process's id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Return whether it has not ended."""
        return self._process.returncode is None

    @property
    def errors(self) -> str:
        """Return the beginning of what it wrote to stderr."""
        return self._errors.decode("utf-8", "replace")

    async def ask(self, text: str) -> None:
        """Give it its one turn."""
        # A process that has ended already says why in its lines.
        with contextlib.suppress(ConnectionError):
            self._stdin.write(claude.user_message(text))
            await self._stdin.drain()
            self._stdin.close()

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield its lines. Raise ValueError for one of more than 64 MB."""
        while line := await self._stdout.readline():
            yield line

    def forget(self) -> None:
        """Remove the files: the CLI has read them."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def kill(self) -> None:
        """End it at once, with all that it has started."""
        self.forget()
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def ended(self) -> int | None:
        """Wait until it has ended by itself, and kill it if that takes too long: some hang at their end.

        Return its exit status; None if it was killed here, and so has none of its own.
        """
        try:
            async with asyncio.timeout(_END_S):
                return await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
            return None
        finally:
            self.forget()
            self._reader.cancel()

    async def _read_errors(self) -> None:
        while piece := await self._stderr.read(65536):
            self._errors = (self._errors + piece)[:_MAX_ERRORS]


def _end_with_gateway() -> None:
    """Let the CLI be killed with the gateway: otherwise it would answer to nobody, and draw on the plan."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _write(path: Path, text: str) -> None:
    """Write a file that nobody else can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
