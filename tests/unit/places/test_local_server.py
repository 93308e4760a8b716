from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from farmhand.places.local_server import LocalServer


def heard(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        return client.recv(100)


def test_it_serves_its_user_while_it_is_entered(tmp_path: Path) -> None:
    pids: list[int] = []

    def handle(peer: socket.socket, pid: int) -> None:
        pids.append(pid)
        peer.sendall(b"hello")

    path = tmp_path / "x.sock"
    with LocalServer(path, handle):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (heard(path), heard(path)) == (b"hello", b"hello")
        assert pids == [os.getpid()] * 2
    assert not path.exists()


def test_a_stranger_gets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.sock"
    with LocalServer(path, lambda peer, _pid: peer.sendall(b"hello")):
        real = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: real + 1)
        assert heard(path) == b""
