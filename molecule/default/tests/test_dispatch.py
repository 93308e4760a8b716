"""The dispatch account over a real ssh: it speaks to the agent, and cannot have a shell, a forwarding or a file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from testinfra.host import Host

STATUS = b"GET /v1/status HTTP/1.1\r\nHost: farmhand\r\nX-Farmhand-Wire: 1\r\nConnection: close\r\n\r\n"
HOST_TMP = "/tmp"  # noqa: S108 - names on the host under test
FORWARD = ("-N", "-o", "ExitOnForwardFailure=yes")
CONTROLLER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "farmhand"


@pytest.fixture
def options(host: Host, tmp_path: Path) -> list[str]:
    """Options of ssh, scp and sftp that log in as the dispatch account with the key that site.yml made."""
    known = tmp_path / "known_hosts"
    address = host.check_output("hostname -I").split()[0]
    public = host.file("/etc/ssh/ssh_host_ed25519_key.pub").content_string
    known.write_text(f"farm {public}")
    settings = {
        "HostName": address,
        "HostKeyAlias": "farm",
        "User": "farmhand",
        "IdentityFile": str(CONTROLLER / "dispatch_ed25519"),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": str(known),
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "ConnectTimeout": "10",
        "LogLevel": "ERROR",
    }
    return ["-F", "none", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]


def run(command: list[str], data: bytes = b"", timeout_s: float = 20) -> subprocess.CompletedProcess[bytes]:
    """Run `command`; one that waits for an answer that the agent never gives is ended, and has the status -9."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, start_new_session=True) as process:  # type: ignore[call-overload]
        try:
            out, error = process.communicate(data, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, error = process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):  # scp and sftp may leave their ssh behind
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, out, error)


@pytest.mark.parametrize("command", [[], ["id"], ["sh", "-c", f"'id > {HOST_TMP}/dispatched'"], ["internal-sftp"]])
def test_every_command_is_the_bridge(host: Host, options: list[str], command: list[str]) -> None:
    answer = run(["ssh", *options, "farm", *command], STATUS)
    assert answer.stdout.startswith(b"HTTP/1.1 200"), answer.stderr
    assert b"uid=" not in answer.stdout
    assert not host.file(f"{HOST_TMP}/dispatched").exists


def test_no_terminal(options: list[str]) -> None:
    answer = run(["ssh", "-tt", *options, "farm"], STATUS)
    assert b"PTY allocation request failed" in answer.stderr


def test_no_file_is_copied(host: Host, options: list[str], tmp_path: Path) -> None:
    """Some of these wait for a word that the bridge never says, so all are tried at once."""
    there, here = f"{HOST_TMP}/copied", tmp_path / "fetched"
    ends = (["/etc/hostname", f"farm:{there}"], ["farm:/etc/hostname", str(here)])
    copies = [([*scp, *options, *pair], b"") for scp in (["scp"], ["scp", "-O"]) for pair in ends]
    copies.append((["sftp", *options, "farm"], f"put /etc/hostname {there}\nget /etc/hostname {here}\n".encode()))
    with ThreadPoolExecutor(len(copies)) as pool:
        answers = list(pool.map(lambda copy: run(copy[0], copy[1], 5), copies))
    assert all(answer.returncode != 0 for answer in answers)
    assert not host.file(there).exists
    assert not here.exists()


@pytest.mark.parametrize(
    ("forwarding", "says"),
    [
        (["-W", "127.0.0.1:22"], b"forwarding failed"),
        ([*FORWARD, "-R", "127.0.0.1:18022:127.0.0.1:22"], b"remote port forwarding failed"),
        ([*FORWARD, "-R", f"{HOST_TMP}/forwarded:127.0.0.1:22"], b"remote port forwarding failed"),
    ],
)
def test_no_port_is_forwarded(host: Host, options: list[str], forwarding: list[str], says: bytes) -> None:
    answer = run(["ssh", *options, *forwarding, "farm"])
    assert answer.returncode == 255
    assert says in answer.stderr
    assert not host.file(f"{HOST_TMP}/forwarded").exists


def test_a_password_is_no_way_in(options: list[str]) -> None:
    answer = run(["ssh", *options, "-o", "PubkeyAuthentication=no", "farm"], STATUS)
    assert answer.returncode == 255
    assert b"Permission denied (publickey)" in answer.stderr


def test_environment_of_the_client_stays_there(host: Host, options: list[str]) -> None:
    """What sshd accepted would be in the environ of the bridge that waits for more of the request."""
    command = ["ssh", *options, "-o", "SendEnv=ANTHROPIC_API_KEY", "farm"]
    environment = os.environ | {"ANTHROPIC_API_KEY": "sk-ant-test-environment-00000000"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(STATUS.replace(b"Connection: close\r\n", b""))
        process.stdin.flush()
        assert process.stdout.readline().startswith(b"HTTP/1.1 200")
        environ = host.check_output("cat /proc/$(pgrep -u farmhand -f 'jada-agent bridge' | head -n 1)/environ")
        process.kill()
    assert "SSH_CONNECTION=" in environ
    assert "ANTHROPIC_API_KEY" not in environ


def test_controller_knows_the_host(host: Host) -> None:
    name = host.backend.get_hostname()
    listed = json.loads((CONTROLLER / "hosts.json").read_text(encoding="utf-8"))
    assert listed["hosts"][name] == {
        "address": name,
        "user": "farmhand",
        "identity_file": str(CONTROLLER / "dispatch_ed25519"),
        "known_hosts_file": None,
    }
    assert (CONTROLLER / "dispatch_ed25519").stat().st_mode & 0o777 == 0o600
    assert CONTROLLER.stat().st_mode & 0o777 == 0o700
