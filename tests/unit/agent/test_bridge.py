from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "agent.sock"))
        server.listen()
        yield server


def bridge(path: Path, *options: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "farmhand.agent.main", "bridge", "--socket", str(path), *options]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_the_answer_comes_though_stdin_has_ended(tmp_path: Path, listener: socket.socket) -> None:
    request = os.urandom(300_000)
    heard = bytearray()

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            while len(heard) < len(request):
                heard.extend(peer.recv(65536))
            peer.sendall(bytes(heard)[::-1])

    server = threading.Thread(target=serve)
    server.start()
    out, err = bridge(tmp_path / "agent.sock").communicate(request, timeout=120)
    server.join()
    assert bytes(heard) == request
    assert out == request[::-1]
    assert err == b""


def test_it_ends_when_nobody_reads_any_more(tmp_path: Path, listener: socket.socket) -> None:
    process = bridge(tmp_path / "agent.sock")
    peer, _ = listener.accept()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert peer.recv(1) == b""
    peer.close()


def test_it_does_not_wait_for_ever_once_stdin_has_ended(tmp_path: Path, listener: socket.socket) -> None:
    process = bridge(tmp_path / "agent.sock", "--linger", "0.3")
    peer, _ = listener.accept()
    assert process.stdin is not None
    process.stdin.write(b"half a request")
    process.stdin.close()
    peer.sendall(b"the daemon says something")
    assert process.wait(timeout=120) == 0
    assert process.stdout is not None
    assert process.stdout.read() == b"the daemon says something"
    peer.close()


def test_as_a_script_it_needs_neither_venv_nor_site(tmp_path: Path, listener: socket.socket) -> None:
    script = Path(__file__).resolve().parents[3] / "src/farmhand/agent/bridge.py"
    argv = [sys.executable, "-I", "-S", "-X", "importtime", str(script), str(tmp_path / "agent.sock")]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    peer, _ = listener.accept()
    assert process.stdin is not None
    process.stdin.write(b"a request")
    process.stdin.flush()
    assert peer.recv(100) == b"a request"
    peer.sendall(b"an answer")
    peer.close()
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, b"an answer")
    imported = {line.rpartition("|")[2].strip() for line in err.decode().splitlines()}
    assert not imported & {"socket", "selectors", "enum", "re", "argparse", "typing", "farmhand"}


@pytest.mark.parametrize("present", [True, False])
def test_no_daemon_is_one_line_and_exit_4(tmp_path: Path, present: bool) -> None:
    path = tmp_path / "agent.sock"
    if present:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    process = bridge(path)
    out, err = process.communicate(b"", timeout=120)
    assert process.returncode == 4
    assert out == b""
    assert err.count(b"\n") == 1
    assert str(path).encode() in err
