"""A Unix socket in a private directory that serves only processes of this user; a batch's orders go through it.

ansible-runner writes its command line, its environment and its playbook to disk, so neither the key nor tasks can be
passed that way.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from farmhand.core import files


class LocalServer:
    """A context manager that calls `handle` with each connection and its process id, in a thread per connection."""

    def __init__(self, path: Path, handle: Callable[[socket.socket, int], None]) -> None:
        self.path = path
        self._handle = handle
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._accept, name=path.name, daemon=True)

    def __enter__(self) -> Self:
        before = os.umask(0o177)
        try:
            self._socket.bind(str(self.path))
        finally:
            os.umask(before)
        self._socket.listen(64)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # shutdown as well as close, because shutdown wakes accept.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(timeout=5)
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            who = files.peer(peer)
            if who.uid == os.geteuid():
                threading.Thread(
                    target=self._serve, args=(peer, who.pid), name=f"{self.path.name} {who.pid}", daemon=True
                ).start()
            else:
                peer.close()

    def _serve(self, peer: socket.socket, pid: int) -> None:
        with peer:
            self._handle(peer, pid)
