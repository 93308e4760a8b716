"""A farm host in two containers on this machine: the agent, which holds the key, and the worker, where tasks run.

They share volumes and nothing else: the worker sees the meter's socket, the agent sees the sandboxes' socket. The
worker has no network. Both have a read-only root; neither has a capability that a task could use. See docs/aws.md.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from farmhand.core.child import scrubbed
from farmhand.core.errors import NotConfigured, WireError
from farmhand.core.files import xdg
from farmhand.places.image import EngineSilent, Say, docker, ensure
from farmhand.wire.transport import ProcessTransport

#: Capabilities of the launcher: another user per task, its directory, its end. Each task's process drops them.
LAUNCHER = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETPCAP", "SETUID")
_SPEC = "farmhand.spec"
#: Connects to both sockets that others wait for.
_PROBE = (
    "import socket\nfor path in ('/run/farmhand/agent.sock', '/run/sandbox/task.sock'): socket.socket(1).connect(path)"
)
#: Idle sandboxes that the agent keeps ready.
_SPARES = 2
#: Processes in the worker beside its tasks, and for each sandbox: more than its user may have (farmhand.cloud.confine).
_OWN_PIDS, _PIDS_A_SANDBOX = 64, 272
#: Seconds for the agent to answer after its container has started, and to end its tasks when it is stopped.
_READY_S = 30.0
_STOP_S = 45


@dataclass(frozen=True, kw_only=True)
class PairSettings:
    """Settings of a pair. `name` begins the names of its containers, network and volumes.

    `memory_mb` and `cpus` limit the worker; `slots` is how many tasks with tools run at once. `network` is that of the
    worker, "none" but for the wall's own tests. `wall` is one of farmhand.cloud.confine. `base` is the image's base, ""
    being Debian's archive.
    """

    checkout: Path
    upstream_url: str
    prices: str = ""
    name: str = "farmhand"
    slots: int = 2
    memory_mb: int = 4096
    cpus: float = 2.0
    network: str = "none"
    wall: str = "unix"
    base: str = ""


class ContainerPair:
    """The two containers of `settings`."""

    def __init__(self, settings: PairSettings) -> None:
        self._settings = settings
        self.agent, self.worker = (f"{settings.name}-{part}" for part in ("agent", "worker"))
        self._lock = Path(xdg("XDG_STATE_HOME"), "farmhand", f"{settings.name}.lock")
        #: There once the containers that run have answered.
        self._ready = self._lock.with_suffix(".ready")
        self.volumes = {part: f"{settings.name}-{part}" for part in ("run", "sandbox", "state")}

    def up(self, say: Say) -> None:
        """Make both run with these settings: build the image, replace containers of others. Raise NotConfigured.

        The ledger is kept. Tasks that run in a container that is replaced continue in its successor.
        """
        with self._alone():
            image = ensure(self._settings.checkout, say, self._settings.base)
            wanted = {self.agent: self._agent_command(image), self.worker: self._worker_command(image)}
            stale = [name for name, command in wanted.items() if self._spec(name) != _digest(command)]
            if not stale:
                if not self._ready.exists():  # who started them was stopped before they answered
                    self._await_ready()
                return
            say("starting the containers")
            self._ready.unlink(missing_ok=True)
            self._remove_containers()
            docker("network", "create", self._settings.name, fine="already exists")
            for volume in self.volumes.values():
                docker("volume", "create", volume)
            for name, command in wanted.items():
                docker("run", "--detach", "--name", name, "--label", f"{_SPEC}={_digest(command)}", *command)
            self._await_ready()

    def down(self, *, delete_data: bool = False) -> None:
        """Remove the containers, and with `delete_data` the ledger and its results. Raise NotConfigured."""
        with self._alone():
            self._remove_containers()
            for name, volume in self.volumes.items():
                if name != "state" or delete_data:
                    docker("volume", "rm", volume, fine="o such volume")
            docker("network", "rm", self._settings.name, fine="not found")

    def wall(self) -> str:
        """Return the wall in force in the running worker, "" if it does not run. Raise NotConfigured."""
        environ = "{{.State.Running}}{{range .Config.Env}}\n{{.}}{{end}}"
        running, *rows = docker(
            "inspect", "--type", "container", "--format", environ, self.worker, fine="o such"
        ).split()
        walls = [row.removeprefix("FARMHAND_WALL=") for row in rows if row.startswith("FARMHAND_WALL=")]
        return walls[0] if running == "true" and walls else ""

    def exists(self) -> bool:
        """Return whether the agent's container runs, or may run. Docker is not asked where no pair was ever started."""
        try:
            return self._lock.exists() and bool(self._spec(self.agent))
        except EngineSilent:  # whoever asks the agent then says so
            return True
        except NotConfigured:  # no engine, so no container
            return False

    def _agent_command(self, image: str) -> list[str]:
        return [
            *("--user", "900:900", "--cap-drop", "ALL", "--network", self._settings.name, "--memory", "1g"),
            *self._volumes({"run": "/run/farmhand", "sandbox": "/run/sandbox:ro", "state": "/var/lib/farmhand"}),
            *("--env", f"FARMHAND_CONFIG={self._config()}", "--env", f"FARMHAND_PRICES={self._settings.prices}"),
            *(*_COMMON, image, "-m", "farmhand.cloud.agent"),
        ]

    def _worker_command(self, image: str) -> list[str]:
        network = self._settings.network
        # So many sandboxes at once: the agent keeps spares ready beside those that run.
        pids = _OWN_PIDS + _PIDS_A_SANDBOX * (self._settings.slots + _SPARES)
        return [
            *("--cap-drop", "ALL", *(word for name in LAUNCHER for word in ("--cap-add", name))),
            *("--network", network, "--memory", f"{self._settings.memory_mb}m", "--cpus", str(self._settings.cpus)),
            *("--memory-swap", f"{self._settings.memory_mb}m", "--pids-limit", str(pids)),
            *self._volumes({"run": "/run/farmhand:ro", "sandbox": "/run/sandbox"}),
            # In memory, so that no task can fill this machine's disk; it counts for the worker's memory.
            *("--tmpfs", f"/work:mode=0755,size={self._settings.memory_mb // 2}m,exec"),
            *("--env", f"FARMHAND_WALL={self._settings.wall}", "--env", f"FARMHAND_FIRST_UID={self._first_uid()}"),
            *(*_COMMON, image, "-m", "farmhand.cloud.launcher"),
        ]

    def _first_uid(self) -> int:
        """Return the first of the thousand users that are this pair's alone, above those of systems and below 2**31."""
        return 2_000_000_000 + zlib.crc32(self._settings.name.encode()) % 100_000 * 1000

    def _volumes(self, places: dict[str, str]) -> Iterator[str]:
        for part, where in places.items():
            yield from ("--volume", f"{self.volumes[part]}:{where}")

    def _config(self) -> str:
        values = {
            "upstream_url": self._settings.upstream_url,
            "state_dir": "/var/lib/farmhand",
            "runtime_dir": "/run/farmhand",
            "sandbox_dir": "/run/sandbox",
            "repositories": True,
            "slots_cli": self._settings.slots,
            "sandbox_spares": _SPARES,
            "prices_file": "/tmp/prices.toml" if self._settings.prices else "",  # noqa: S108  (the container's own)
        }
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())

    def _spec(self, name: str) -> str:
        """Return the digest of the command that a running container was started with, or ""."""
        wanted = '{{.State.Running}} {{index .Config.Labels "' + _SPEC + '"}}'
        found = docker("inspect", "--type", "container", "--format", wanted, name, fine="o such")
        running, _, spec = found.strip().partition(" ")
        return spec if running == "true" else ""

    def _remove_containers(self) -> None:
        for name in (self.agent, self.worker):
            docker("stop", "--time", str(_STOP_S), name, fine="o such container")
            docker("rm", "--force", "--volumes", name, fine="o such container")

    def _await_ready(self) -> None:
        """Wait until agent and launcher accept connections: a socket's file may be that of the containers before."""
        until = time.monotonic() + _READY_S
        probe = ["docker", "exec", "--user", "900:900", self.agent, "/usr/bin/python3", "-I", "-S", "-c", _PROBE]
        while not self._answers(probe):
            for name in (self.agent, self.worker):
                if time.monotonic() > until or not self._spec(name):
                    said = docker("logs", "--tail", "1", name, errors=True).strip() or "it says nothing"
                    raise NotConfigured(f"the container {name} does not start: {said}")
            time.sleep(0.1)
        self._ready.touch()

    def _answers(self, probe: Sequence[str]) -> bool:
        try:
            done = subprocess.run(probe, env=scrubbed(), capture_output=True, check=False, timeout=_READY_S)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other commands of this user from starting the same pair. Raise NotConfigured."""
        try:
            self._lock.parent.mkdir(parents=True, exist_ok=True)
            lock = self._lock.open("w")
        except OSError as error:
            hint = "set XDG_STATE_HOME to a directory that can be"
            raise NotConfigured(f"{self._lock} cannot be written: {error.strerror}", hint=hint) from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


_COMMON = (
    *("--init", "--read-only", "--security-opt", "no-new-privileges"),
    *("--tmpfs", "/tmp:mode=1777,size=512m,exec"),  # noqa: S108  (the container's own)
)


def _digest(command: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(command).encode()).hexdigest()[:16]


class ContainerTransport(ProcessTransport):
    """The bridge to the agent in the container `container`, started there as the agent's own user."""

    package = "docker.io"

    def __init__(self, container: str, name: str, connect_timeout_s: float) -> None:
        super().__init__(name, connect_timeout_s)
        self._container = container

    def argv(self) -> list[str]:
        """Return the docker command."""
        bridge = ("/usr/bin/python3", "-I", "-S", "/opt/farmhand/share/bridge.py", "/run/farmhand/agent.sock")
        return ["docker", "exec", "--interactive", "--user", "900:900", self._container, *bridge]

    def why(self, status: int, said: str) -> WireError | None:
        """Return the error for an exit status and stderr of docker, or None for success."""
        if status == 0:
            return None
        last = (said.strip().splitlines() or ["no reason given"])[-1]
        if "is not running" in last or "o such container" in last:
            return WireError("agent_missing", f"{self.name}: its containers do not run", "farmhand up --place docker")
        return WireError("unreachable", f"{self.name}: {last}", "see: docker ps")
