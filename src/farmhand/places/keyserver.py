"""A key source for one run: a Unix socket in a private directory that tells the key to processes of this user.

ansible-runner writes the environment and the command line of what it starts to disk, so the key can travel in neither.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

_UCRED = struct.Struct("3i")
#: Run with the socket's path: prints what the socket says. `-I` keeps the user's environment out.
_READER = "import socket,sys;s=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1]);print(s.makefile().read())"


class KeyServer:
    """While entered, `source` is a key source that yields `key` to this user's processes."""

    def __init__(self, key: str, directory: Path) -> None:
        self._key = key.encode()
        self._path = directory / "key.sock"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._serve, name="key source", daemon=True)

    @property
    def source(self) -> str:
        """The key source to hand on. Neither path has characters that need quotes: see __enter__."""
        return f'command:"{sys.executable}" -I -c "{_READER}" "{self._path}"'

    def __enter__(self) -> Self:
        if set(f"{sys.executable}{self._path}") & set('"\\'):
            raise ValueError(f"{self._path} and {sys.executable} must have no quotes and backslashes")
        before = os.umask(0o177)
        try:
            self._socket.bind(str(self._path))
        finally:
            os.umask(before)
        self._socket.listen()
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        # shutdown and not only close: that is what wakes accept.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(timeout=5)
        self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            with peer:
                _, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
                if uid == os.geteuid():
                    peer.sendall(self._key)
