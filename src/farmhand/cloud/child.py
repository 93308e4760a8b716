"""The daemon as a child of the container's first program, as in the place `docker`, and the launcher beside it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from farmhand.cloud.agent import PARENT
from farmhand.cloud.ending import ContainerEnds, StopClock, say
from farmhand.core.errors import WireError
from farmhand.core.shard import EXIT_BUG, EXIT_CONFIG, EXIT_LEFT, UPSTREAM, AgentOptions
from farmhand.wire.client import Client
from farmhand.wire.transport import UnixTransport

#: Seconds for the daemon to answer after its start, and to end after SIGTERM.
READY_S = 60.0
_END_S = 5.0
#: Seconds for the launcher to listen, in the other container.
LAUNCHER_S = 60.0
#: jada-agent's exit status for its settings.
_NOT_CONFIGURED = 3
#: All that the daemon needs of this process's environment: neither a credential, nor the way to the task role's.
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "SSL_CERT_FILE")


class ContainerPaths:
    """Where the container's volumes are; below `root` in tests."""

    def __init__(self, root: str = "") -> None:
        self.run = Path(f"{root}/run/farmhand")
        self.sandbox = Path(f"{root}/run/sandbox")
        self.state = Path(f"{root}/var/lib/farmhand")

    @property
    def agent_socket(self) -> Path:
        """Return the daemon's socket."""
        return self.run / "agent.sock"

    @property
    def launcher_socket(self) -> Path:
        """Return the launcher's socket, which is in the other container."""
        return self.sandbox / "task.sock"


class AgentChild:
    """The daemon, running with `options`. `credential` is its setting of that name."""

    def __init__(
        self, options: AgentOptions, paths: ContainerPaths, *, repositories: bool, credential: str = "key"
    ) -> None:
        self._transport = UnixTransport(str(paths.agent_socket), name="the agent")
        prices = str(Path(tempfile.gettempdir(), "prices.toml")) if options.prices else ""
        values = {
            "state_dir": str(paths.state),
            "runtime_dir": str(paths.run),
            "sandbox_dir": str(paths.sandbox),
            "repositories": repositories,
            "slots_api": options.slots_api,
            "slots_cli": 1 if credential == "plan" else options.slots_cli,
            # A container ends with its order: a sandbox that waits for a next task would be in the way.
            "sandbox_spares": 0 if repositories else min(1, options.slots_cli),
            "drain_s": 0,
            "credential": credential,
            "prices_file": prices,
        }
        if upstream := os.environ.get(UPSTREAM):
            values["upstream_url"] = upstream
        config = "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
        environ = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environ |= {"FARMHAND_CONFIG": config, "FARMHAND_PRICES": options.prices, PARENT: str(os.getpid())}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "farmhand.cloud.agent"],
            env=environ,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def transport(self) -> UnixTransport:
        """Return the way to the daemon."""
        return self._transport

    @property
    def lives(self) -> bool:
        """Return whether the daemon runs."""
        return self._process.poll() is None

    def await_ready(self, clock: StopClock) -> str:
        """Wait until the daemon answers, and return the name of its ledger. Raise ContainerEnds."""
        until = time.monotonic() + READY_S
        while True:
            try:
                with Client(self._transport) as client:
                    return str((client.status().get("ledger") or {}).get("id") or "")
            except WireError as error:
                said = str(error)
            if (status := self._process.poll()) is not None:
                code = EXIT_CONFIG if status == _NOT_CONFIGURED else EXIT_BUG
                raise ContainerEnds(code, f"the agent did not start: exit status {status}; its reason is above")
            if time.monotonic() > until:
                raise ContainerEnds(EXIT_BUG, f"the agent did not start within {READY_S:g} s: {said}")
            if clock.pause(0.05):
                raise ContainerEnds(EXIT_LEFT, "stopped before the agent was ready")

    def renew_key(self, value: str, name: str) -> None:
        """Give the daemon the token in the place of the one that it knows by `name`; a failure is in the log."""
        try:
            with Client(self._transport) as client:
                client.put_key(value, renews=name)
        except WireError as error:
            say(f"the agent does not take the renewed token: {error}")

    def stop(self, within_s: float = _END_S) -> None:
        """End the daemon."""
        self._process.terminate()
        try:
            self._process.wait(max(0.1, within_s))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class LauncherWatch:
    """The launcher behind `path`, in the worker container; None stands for a shard that needs none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def gone(self) -> bool:
        """Return whether the launcher does not listen."""
        if self._path is None:
            return False
        with socket.socket(socket.AF_UNIX) as line:
            try:
                line.connect(str(self._path))
            except OSError:
                return True
        return False

    def await_ready(self, attempt: int, clock: StopClock) -> None:
        """Wait until the launcher listens. Raise ContainerEnds."""
        until = time.monotonic() + LAUNCHER_S
        while self.gone():
            if clock.pause(0.1):
                raise ContainerEnds(EXIT_LEFT, "stopped before the worker container was ready")
            if time.monotonic() > until:
                code = EXIT_LEFT if attempt == 1 else EXIT_BUG
                raise ContainerEnds(code, f"the worker container does not listen after {LAUNCHER_S:g} s")
