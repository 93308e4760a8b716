"""The first program of a container on AWS as a process of its own, forked where boto3 and its models are loaded.

The daemon that it starts is a fork as well, with its own environment and session, made before anything of `entry` runs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from farmhand.cloud import agent, child, entry
from tests.support import aws_loaded
from tests.support.forked import write_to

__all__ = ["aws_loaded", "run"]


def run(environ: Mapping[str, str], log: Path) -> None:
    """Be `python -m farmhand.cloud.entry` with this environment."""
    os.setsid()
    write_to(log)
    _be(environ)
    daemon = _Daemon()
    vars(child)["subprocess"] = SimpleNamespace(
        Popen=daemon.begin, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired
    )
    os._exit(entry.main())


def _be(environ: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environ)
    tempfile.tempdir = None  # TMPDIR is another one here


class _Daemon:
    """What `child` asks of a subprocess.Popen, for one process that is there before it begins."""

    def __init__(self) -> None:
        reads, self._line = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._line)
            with open(reads, "rb") as told:
                environ = told.read()
            status = 0
            if environ:
                os.setsid()
                _be(json.loads(environ))
                status = _served()
            os._exit(status)
        os.close(reads)
        self._status: int | None = None

    def begin(self, argv: Sequence[str], *, env: Mapping[str, str], **_: Any) -> _Daemon:
        """Start it."""
        assert argv[1:] == ["-m", agent.__name__], argv
        with open(self._line, "wb") as line:
            line.write(json.dumps(dict(env)).encode())
        return self

    def poll(self) -> int | None:
        """How it ended; None while it runs."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def wait(self, within_s: float = 60) -> int:
        """Wait for its end. Raise subprocess.TimeoutExpired."""
        until = time.monotonic() + within_s
        while (status := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(agent.__name__, within_s)
            time.sleep(0.005)
        return status

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _served() -> int:
    try:
        return agent.main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
