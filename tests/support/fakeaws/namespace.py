"""The network of a task: a namespace with a loopback of its own, reached through sockets that listen inside it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

from tests.support.serving import serving

#: Where Fargate's agent answers: the role's credentials and the task's metadata.
METADATA = "169.254.170.2"
_CLONE_NEWNET, _SIOCSIFADDR = 0x40000000, 0x8916
_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


def inside(pid: int, work: Callable[[], T]) -> T:
    """Do `work` in the network namespace of a process. A thread's namespace is its own, and ends with it."""

    def enter() -> T:
        with Path(f"/proc/{pid}/ns/net").open() as namespace:
            if _libc.setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        return work()

    with ThreadPoolExecutor(1) as one:
        return one.submit(enter).result()


def add_metadata_address(pid: int) -> None:
    """Give the loopback of the namespace the address of the metadata server."""

    def add() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            address = struct.pack("=H2x4s8x", socket.AF_INET, socket.inet_aton(METADATA))
            fcntl.ioctl(any_socket, _SIOCSIFADDR, struct.pack("16s16s8x", b"lo:0", address))

    inside(pid, add)


def listen(pid: int, address: tuple[str, int]) -> socket.socket:
    """A listening socket in the namespace."""
    return inside(pid, lambda: socket.create_server(address, backlog=64))


class Carrier:
    """Joins what connects to 127.0.0.1:`port` in the namespace to `target` out here."""

    def __init__(self, pid: int, port: int, target: tuple[str, int]) -> None:
        self._listener = listen(pid, ("127.0.0.1", port))
        self._target = target
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more."""
        _shut(self._listener)

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            try:
                outer = socket.create_connection(self._target)
            except OSError:
                inner.close()
                continue
            for pair in ((inner, outer), (outer, inner)):
                threading.Thread(target=_pump, args=pair, daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        _shut(source)
        _shut(sink)


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


class Metadata:
    """The metadata server of a task. `answers` maps a path to what makes its answer: None is 404."""

    def __init__(self, pid: int, answers: dict[str, Callable[[], dict[str, Any] | None]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = answers.get(self.path, lambda: None)()
                text = json.dumps(body or {"message": "not found"}).encode()
                self.send_response(200 if body else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((METADATA, 80), Handler, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = listen(pid, (METADATA, 80))
        self._open = contextlib.ExitStack()
        self._open.enter_context(serving(self._server))

    def close(self) -> None:
        """End it."""
        self._open.close()
