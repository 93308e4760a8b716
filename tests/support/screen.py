"""A real terminal, tmux, with a command in it; what it shows is read from its screen, as a person sees it."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class Screen:
    """A tmux session of its own server, whose socket is at `socket`."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def tmux(self, *arguments: str) -> str:
        """Run a command of tmux and return what it prints."""
        done = subprocess.run(
            ["tmux", "-S", str(self._socket), "-f", "/dev/null", *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout

    @property
    def lines(self) -> list[str]:
        """The lines on the screen that are not empty."""
        return [line for line in self.tmux("capture-pane", "-p").splitlines() if line.strip()]

    def keys(self, *names: str) -> None:
        """Press keys."""
        self.tmux("send-keys", *names)

    async def until(self, wanted: str) -> list[str]:
        """Wait until `wanted` is on the screen; its lines then."""
        for _ in range(2400):
            if any(wanted in line for line in self.lines):
                return self.lines
            await asyncio.sleep(0.05)
        raise AssertionError(f"{wanted!r} never came: {self.lines}")


@contextmanager
def screen(
    directory: Path, argv: list[str], environ: Mapping[str, str], *, columns: int = 100, term: str = ""
) -> Iterator[Screen]:
    """A terminal in which `argv` runs, and then `[STATUS]` is printed."""
    shown = Screen(directory / f"tmux-{uuid.uuid4().hex[:6]}")  # the server of an earlier one may still be ending
    variables = dict(environ) | ({"TERM": term} if term else {})
    settings = [f"{name}={value}" for name, value in variables.items()]
    command = f'env {shlex.join(settings)} {shlex.join(argv)}; echo "[$?]"; exec cat'
    shown.tmux("new-session", "-d", "-x", str(columns), "-y", "24", "sh", "-c", command)
    try:
        yield shown
    finally:
        shown.tmux("kill-server")
