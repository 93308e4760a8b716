from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from farmhand.core.errors import NotConfigured
from farmhand.places.farm import serving


def heard(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        return client.recv(100)


def test_it_serves_its_user_while_it_is_entered(tmp_path: Path) -> None:
    pids: list[int] = []

    def handle(peer: socket.socket, pid: int) -> None:
        pids.append(pid)
        with peer:
            peer.sendall(b"hello")

    path = tmp_path / "x.sock"
    with serving(path, handle):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (heard(path), heard(path)) == (b"hello", b"hello")
        assert pids == [os.getpid()] * 2
    assert not path.exists()


def test_a_stranger_gets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.sock"
    with serving(path, lambda peer, _pid: peer.sendall(b"hello")):
        real = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: real + 1)
        assert heard(path) == b""


def test_it_goes_on_when_it_was_out_of_file_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """accept fails with EMFILE once in a while on a busy machine: httpbeast#27, pg-status#32."""
    accept, failures = socket.socket.accept, [errno.EMFILE, errno.ENOBUFS, errno.ECONNABORTED]

    def failing(self: socket.socket) -> object:
        made = accept(self)
        if failures:
            made[0].close()
            raise OSError(failures.pop(), "no")
        return made

    monkeypatch.setattr(socket.socket, "accept", failing)
    path = tmp_path / "x.sock"

    def handle(peer: socket.socket, _pid: int) -> None:
        with peer:
            peer.sendall(b"hello")

    with serving(path, handle):
        assert [heard(path) for _ in range(4)] == [b"", b"", b"", b"hello"]


def test_a_path_too_long_for_a_socket_is_one_line_that_names_tmpdir(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 120) / "x.sock"
    path.parent.mkdir()
    with pytest.raises(NotConfigured, match="too long") as caught, serving(path, lambda peer, _pid: peer.close()):
        pass
    assert "TMPDIR" in caught.value.hint
