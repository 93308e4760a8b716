"""A process that outlives the command that started it, found again by its pid file."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.farm.run import FarmError

STOP_S = 10.0


def _started_at(pid: int) -> str:
    """The process's start time in clock ticks since boot (field 22 of /proc/PID/stat); empty if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


class Background:
    """One background process. The file holds its pid and start time, so that a reused pid is never taken for it."""

    def __init__(self, pid_file: Path, log: Path) -> None:
        self._pid_file = pid_file
        self._log = log

    def pid(self) -> int | None:
        """Its pid while it runs."""
        try:
            pid, started = self._pid_file.read_text(encoding="ascii").split()
        except (OSError, ValueError):
            return None
        return int(pid) if _started_at(int(pid)) == started else None

    def start(self, argv: Sequence[str], *, cwd: Path, first_line: str) -> str:
        """Start it and return its first line of output, which must begin with `first_line`."""
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._pid_file.write_text(f"{process.pid} {_started_at(process.pid)}\n", encoding="ascii")
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and process.poll() is None:
            said = self._log.read_text(encoding="utf-8")
            if said.startswith(first_line) and "\n" in said:
                return said.splitlines()[0]
            time.sleep(0.05)
        raise FarmError(
            f"{' '.join(argv[:4])} did not start: {self._log.read_text(encoding='utf-8').strip() or 'silent'}"
        )

    def stop(self) -> None:
        """End it, if it runs."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_S
            while self.pid() is not None:
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)
        self._pid_file.unlink(missing_ok=True)
