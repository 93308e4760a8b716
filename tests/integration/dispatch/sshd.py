"""A real sshd on a loopback port with its own keys in a temporary directory: no system service, no system key."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

_BRIDGE = Path(__file__).resolve().parents[3] / "src/farmhand/agent/bridge.py"


def bridge_to(agent: Path) -> str:
    """The forced command that connects to an agent's socket, started as on a host: jada-agent.j2 says how and why."""
    return f"{sys.executable} -I -S {_BRIDGE} {agent}"


def keygen(path: Path) -> str:
    """Make a key pair; the public line."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text().strip()


def free_port(address: str = "127.0.0.1") -> int:
    """A loopback port that nobody listens on right now."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def shared_connections(directory: str) -> list[bytes]:
    """What the processes that share a connection in `directory` hold in their memory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if directory.encode() in (process / "cmdline").read_bytes():
                found.append(_memory(process))
        except OSError:
            continue
    return found


def _memory(process: Path) -> bytes:
    """What a process can write to, and so keeps: ssh writes its title over what /proc shows as its environment."""
    held = []
    with (process / "mem").open("rb", buffering=0) as file:
        for line in (process / "maps").read_text().splitlines():
            span, mode = line.split()[:2]
            start, end = (int(part, 16) for part in span.split("-"))
            if mode.startswith("rw"):
                file.seek(start)
                held.append(file.read(end - start))
    return b"".join(held)


class Sshd:
    """An sshd for the user who runs the tests; the account's forced command is `command`, "" for none."""

    def __init__(self, directory: Path, command: str, address: str = "127.0.0.1") -> None:
        self.directory = directory
        self.address = address
        self.port = free_port(address)
        self.user = getpass.getuser()
        self.identity = directory / "id"
        self.known_hosts = directory / "known_hosts"
        self._host_key = directory / "host_key"
        self._process: subprocess.Popen[bytes] | None = None
        public = keygen(self.identity)
        self.host_public = keygen(self._host_key)
        self.authorize(public, command)
        self.trust(self.host_public)

    def authorize(self, public: str, command: str, options: str = "restrict") -> None:
        """Let the key in, with its forced command if there is one."""
        options += f',command="{command}"' if command else ""
        authorized = self.directory / "authorized_keys"
        authorized.write_text(f"{options} {public}\n")
        authorized.chmod(0o600)

    def trust(self, public: str) -> None:
        """Put the host's key on record."""
        self.known_hosts.write_text(f"[{self.address}]:{self.port} {public}\n")

    def start(self) -> None:
        """Start it and wait until it listens."""
        program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        assert program is not None, "sshd is not there: install openssh-server (its service need not run)"
        if os.geteuid() == 0:
            # Made at boot where sshd is a service; root's sshd does not start without it.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = self.directory / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress {self.address}\nHostKey {self._host_key}\nPidFile none\nStrictModes no\n"
            f"AuthorizedKeysFile {self.directory}/authorized_keys\nUsePAM no\nPasswordAuthentication no\n"
            "PermitRootLogin prohibit-password\nPrintMotd no\nLogLevel ERROR\n"
        )
        self._process = subprocess.Popen(
            [program, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection((self.address, self.port), timeout=1).close()
            except OSError:
                assert self._process.poll() is None, "sshd did not start"
                time.sleep(0.05)
            else:
                return
        raise AssertionError("sshd does not listen")

    def drop_connections(self, number: int = signal.SIGKILL) -> None:
        """Kill the processes that serve connections, as a broken line would, or send them another signal."""
        assert self._process is not None
        listener = self._process.pid
        for child in Path(f"/proc/{listener}/task/{listener}/children").read_text().split():
            os.kill(int(child), number)

    def stop(self) -> None:
        """End it, and what it serves."""
        if self._process is not None:
            # Each connection is served by a session of its own, which outlives the listener.
            self.drop_connections()
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(timeout=120)
            self._process = None


def serve(directory: Path, command: str, address: str = "127.0.0.1") -> Sshd:
    """One that runs, in a new directory."""
    directory.mkdir()
    server = Sshd(directory, command, address)
    server.start()
    return server
