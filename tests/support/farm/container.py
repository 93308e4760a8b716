"""The container that plays the farm host: Debian 12 with systemd and sshd, on a Docker network of its own."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.farm.run import Completed, FarmError, check, run

BASE = "farmhand-base"
IMAGE = f"{BASE}:bookworm"
BOOT_S = 120.0
ONCE = Path(__file__).parents[1] / "compiled_once.py"
#: What systemd needs to boot in a container. `privileged` would fail where the engine itself is confined.
_OPTIONS = [
    *("--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--cap-add", "SYS_PTRACE"),
    *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
    *("--cgroupns", "host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"),
    *("--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec,mode=1777"),
    *("--stop-signal", "SIGRTMIN+3"),
]
#: A rented box has a login that may become root. The keys are read from stdin.
_ADMIN = """set -e
id admin >/dev/null 2>&1 || useradd --create-home --shell /bin/bash admin
printf 'admin ALL=(ALL) NOPASSWD: ALL\\n' > /etc/sudoers.d/admin
chmod 0440 /etc/sudoers.d/admin
install -d -o admin -g admin -m 0700 /home/admin/.ssh
cat > /home/admin/.ssh/authorized_keys
chown admin:admin /home/admin/.ssh/authorized_keys
chmod 0600 /home/admin/.ssh/authorized_keys
"""
#: Ansible's modules are compiled once for each host, not each time: compiled_once.py says how. It is read from stdin.
_COMPILE_ONCE = """set -e
cd /usr/local/lib/python3*/dist-packages
mkdir -p /var/cache/compiled_once
cat > compiled_once.py
echo 'import compiled_once; compiled_once.keep("/var/cache/compiled_once")' > compiled_once.pth
"""


@dataclass(frozen=True)
class Container:
    """A farm host's container, `name`, of `image`, and its network; `hostname` is what the host calls itself.

    Its network is its own and has its name, unless there is a `shared_network`, where it may have a `fixed` address.
    """

    name: str
    hostname: str = "farm1"
    shared_network: str = ""
    fixed: str = ""
    image: str = IMAGE

    def start(self) -> None:
        """Make what is missing, start it, wait until systemd has booted. Does nothing to one that runs already."""
        if not self.shared_network and run(["docker", "network", "inspect", self.name]).returncode != 0:
            check(["docker", "network", "create", "--label", "farmhand", self.name])
        if run(["docker", "container", "inspect", self.name]).returncode == 0:
            check(["docker", "start", self.name])
        else:
            names = ["--name", self.name, "--hostname", self.hostname, "--network", self.network, "--label", "farmhand"]
            if self.fixed:
                names += ["--ip", self.fixed]
            check(["docker", "run", "--detach", *names, *_OPTIONS, self.image])
        self.wait_for_boot()
        if self.image.startswith(BASE):
            self._root("Ansible's modules cannot be compiled once", _COMPILE_ONCE, ONCE.read_text(encoding="ascii"))

    def wait_for_boot(self) -> None:
        """Return when systemd says that the host runs. Raises FarmError with the units that failed."""
        deadline = time.monotonic() + BOOT_S
        state = ""
        while time.monotonic() < deadline:
            state = self.exec("systemctl", "is-system-running").stdout.strip()
            if state == "running":
                return
            if state == "degraded":
                failed = self.exec("systemctl", "list-units", "--failed", "--plain", "--no-legend").stdout
                raise FarmError(
                    f"{self.name}: units failed at boot: {', '.join(x.split()[0] for x in failed.splitlines())}"
                )
            time.sleep(0.2)
        raise FarmError(f"{self.name}: systemd is {state or 'silent'} after {BOOT_S:g} s: see docker logs {self.name}")

    def exists(self) -> bool:
        """Whether there is such a container, running or not."""
        return run(["docker", "container", "inspect", self.name]).returncode == 0

    def exec(self, *argv: str, input: str | bytes | None = None, timeout_s: float = 120.0) -> Completed:  # noqa: A002  # as in run
        """Run `argv` as root in it, past ssh."""
        return run(["docker", "exec", "--interactive", self.name, *argv], input=input, timeout_s=timeout_s)

    def authorize(self, public_key: str) -> None:
        """Make the account `admin`, which may become root, and let this key log in to it."""
        self._root("the account admin could not be made", _ADMIN, public_key)

    def _root(self, failure: str, script: str, given: str) -> None:
        done = self.exec("sh", "-c", script, input=given)
        if done.returncode != 0:
            raise FarmError(f"{self.name}: {failure}: {done.stderr.strip()}")

    def host_keys(self) -> list[str]:
        """The public host keys, `type base64`, read inside: what a provider's console would show."""
        text = check(["docker", "exec", self.name, "sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub"])
        return [" ".join(line.split()[:2]) for line in text.splitlines()]

    @property
    def network(self) -> str:
        """The name of the Docker network it is on."""
        return self.shared_network or self.name

    @property
    def address(self) -> str:
        """Its address on its network."""
        found = json.loads(check(["docker", "container", "inspect", self.name]))
        return str(found[0]["NetworkSettings"]["Networks"][self.network]["IPAddress"])

    @property
    def id(self) -> str:
        """Docker's id of it; another one after it was removed and made again."""
        return check(["docker", "container", "inspect", "--format", "{{.Id}}", self.name]).strip()

    @property
    def gateway(self) -> str:
        """This machine's address on that network: what the host can reach, and nothing wider can."""
        found = json.loads(check(["docker", "network", "inspect", self.network]))
        return str(found[0]["IPAM"]["Config"][0]["Gateway"]).partition("/")[0]

    # What may befall it

    def kill(self) -> None:
        """As a power cut: no process has time for anything."""
        check(["docker", "kill", self.name])

    def cut_off(self) -> None:
        """Take it off the network: nobody hears from it, and no connection is closed."""
        check(["docker", "network", "disconnect", self.network, self.name])

    def join(self) -> None:
        """Put it back, with its address."""
        check(["docker", "network", "connect", *(["--ip", self.fixed] if self.fixed else []), self.network, self.name])

    def remove(self) -> None:
        """Remove container and network, if they are there; a shared network stays."""
        if self.exists():
            # In good order first: connections through its sshd are closed instead of left hanging.
            check(["docker", "stop", "--time", "10", self.name])
            check(["docker", "rm", "--force", "--volumes", self.name])
        if not self.shared_network and run(["docker", "network", "inspect", self.name]).returncode == 0:
            check(["docker", "network", "rm", self.name])
