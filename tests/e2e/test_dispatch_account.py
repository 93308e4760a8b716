"""What the dispatch account's key opens over real ssh: the agent's wire, and nothing else."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.farm import Farm
from tests.support.farm.control import wire_answer, wire_request
from tests.support.farm.run import run

HELLO = wire_request("GET", "/v1/status")


@pytest.mark.parametrize("command", [(), ("id",), ("sh", "-c", "id"), ("cat /etc/passwd",), ("sudo", "-n", "id")])
def test_every_command_is_the_bridge(farm: Farm, command: tuple[str, ...]) -> None:
    done = farm.ssh(*command, user="farmhand", input=HELLO)
    status, answer = wire_answer(done.stdout)
    assert (status, answer["wire"]) == (200, 1)
    assert "uid=" not in done.stdout
    assert "root:" not in done.stdout


def test_it_gets_no_terminal(farm: Farm) -> None:
    done = farm.ssh(user="farmhand", options=("-tt",), input=HELLO)
    assert "PTY allocation request failed" in done.stderr


def test_no_file_is_copied_either_way(farm: Farm, tmp_path: Path) -> None:
    where = ["-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={farm.state / 'known_hosts'}", "-o", "ControlPath=none"]
    where += ["-i", str(farm.state / "dispatch_ed25519")]
    address = f"farmhand@{farm.container.address}"
    (tmp_path / "up").write_text("from the workstation", encoding="ascii")
    # The old protocol waits for a word that the bridge never says, so it is given five seconds.
    for program in (["scp"], ["timeout", "5", "scp", "-O"]):
        up = run([*program, *where, str(tmp_path / "up"), f"{address}:/tmp/up"], env=farm.env)
        down = run([*program, *where, f"{address}:/etc/hostname", str(tmp_path / "down")], env=farm.env)
        assert up.returncode != 0
        assert down.returncode != 0
    assert not (tmp_path / "down").exists()
    assert farm.exec("test", "-e", "/tmp/up").returncode == 1


def test_no_port_is_forwarded(farm: Farm) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    remote = farm.ssh(user="farmhand", options=("-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:9"), input=HELLO)
    assert remote.returncode == 255
    assert "forwarding failed" in remote.stderr
    argv = [
        "ssh",
        "-o",
        "BatchMode=yes",
        "-o",
        f"UserKnownHostsFile={farm.state / 'known_hosts'}",
        "-o",
        "ControlPath=none",
    ]
    argv += ["-i", str(farm.state / "dispatch_ed25519"), "-L", f"127.0.0.1:{port}:127.0.0.1:22"]
    with subprocess.Popen(
        [*argv, f"farmhand@{farm.container.address}"],
        env=farm.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert _banner(port) == b"", "the host's sshd answered through a forwarded port"
        finally:
            process.terminate()


def _banner(port: int) -> bytes:
    """What a connection to the forwarded port gets to read; waits for ssh to listen there."""
    for _ in range(1200):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                return connection.recv(64)
        except ConnectionRefusedError:
            time.sleep(0.1)
        except ConnectionResetError:
            return b""
    raise AssertionError("ssh does not listen on the port to forward")


def test_its_key_opens_no_other_account(farm: Farm) -> None:
    done = run(
        [
            *("ssh", "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={farm.state / 'known_hosts'}"),
            *("-o", "IdentitiesOnly=yes", "-o", "ControlPath=none", "-i", str(farm.state / "dispatch_ed25519")),
            *(f"admin@{farm.container.address}", "id"),
        ],
        env=farm.env,
    )
    assert done.returncode == 255
    assert "Permission denied" in done.stderr
