"""What systemd's `jada-task.socket` does, without systemd: `agent/sandbox.py` for each connection, unprivileged.

Only the starting is imitated; the sandbox's walls are proven on a real farm host (tests/e2e, molecule).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from types import TracebackType

from farmhand.agent import sandbox


class Sandboxes:
    """Listens on `path` while the context is open; `started` holds the processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # A copy beside the socket: the checkout may be in a home directory that the sandbox's user cannot enter.
        self._program = path.with_name("sandbox.py")
        self._listener = socket.socket(socket.AF_UNIX)
        self.started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Sandboxes:
        shutil.copyfile(sandbox.__file__, self._program)
        self._program.chmod(0o644)
        self._listener.bind(str(self._path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for process in self.started:
            process.kill()
            process.wait()

    def _accept(self) -> None:
        user = "nobody" if os.geteuid() == 0 else None
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                process: subprocess.Popen[bytes] = subprocess.Popen(
                    ["/usr/bin/python3", "-I", str(self._program)],
                    stdin=connection.fileno(),
                    stdout=connection.fileno(),
                    user=user,
                    extra_groups=[] if user else None,
                    env={},
                    cwd="/",
                )
            self.started.append(process)
