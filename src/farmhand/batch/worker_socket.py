"""Where the action plugins of a batch's run come to for turns: a Unix socket in a private directory.

Turns and answers go this way, and the key with them, because ansible-runner writes to disk whatever else a playbook is
given or returns.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from farmhand.batch import frames

_UCRED = struct.Struct("3i")


class Dispatcher(Protocol):
    """Who knows what each host does next. Called from a thread per host."""

    def take(self, host: str, hosts: int) -> bytes | None:
        """The next turn of `host`, waiting until there is one; None: nothing is left to do."""

    def give(self, host: str, answer: bytes) -> dict[str, Any]:
        """Take the answer to a turn: how the batch stands, with `more` while the host has turns to come."""

    def left(self, host: str) -> None:
        """The host's plugin has gone."""

    def failed(self, error: Exception) -> None:
        """A call failed in a way that nobody foresaw."""


class WorkerServer:
    """Serves `coordinator` at `path` while entered, to processes of this user."""

    def __init__(self, coordinator: Dispatcher, directory: Path) -> None:
        self.path = directory / "desk.sock"
        self.pids: set[int] = set()
        self._coordinator = coordinator
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._accept, name="desk", daemon=True)

    def __enter__(self) -> Self:
        before = os.umask(0o177)
        try:
            self._socket.bind(str(self.path))
        finally:
            os.umask(before)
        self._socket.listen(64)
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        # shutdown and not only close: that is what wakes accept.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            pid, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
            if uid != os.geteuid():
                peer.close()
                continue
            self.pids.add(pid)
            threading.Thread(target=self._serve, args=(peer, pid), name=f"desk {pid}", daemon=True).start()

    def _serve(self, peer: socket.socket, pid: int) -> None:
        host = ""
        try:
            with peer:
                while (message := frames.receive(peer)) is not None:
                    head, body = message
                    host = str(head["host"])
                    if head["do"] == "take":
                        turn = self._coordinator.take(host, int(head["hosts"]))
                        frames.send(peer, {"more": turn is not None}, turn or b"")
                    else:
                        frames.send(peer, self._coordinator.give(host, body))
        except (OSError, ValueError):
            pass
        except Exception as error:
            self._coordinator.failed(error)
        finally:
            self.pids.discard(pid)
            if host:
                self._coordinator.left(host)
