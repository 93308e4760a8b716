"""The loopback Messages API of a farm: a background process on the gateway of its network, with a random key."""

from __future__ import annotations

import secrets
import socket
import sys
from pathlib import Path

from tests.support.farm import files
from tests.support.farm.background import Background
from tests.support.farm.control import ApiControl


class LoopbackApi:
    """What it writes is in `state`: the operator's key source, the address, the log. It runs in the checkout `root`."""

    def __init__(self, state: Path, root: Path) -> None:
        self.key_file = state / "repos.env"
        self.requests = state / "requests.jsonl"
        self._root = root
        self._url = state / "api.url"
        self._process = Background(state / "api.pid", state / "api.log")

    @property
    def key(self) -> str:
        """The throw-away key, which only this API accepts."""
        return self.key_file.read_text(encoding="ascii").strip().partition("=")[2]

    @property
    def control(self) -> ApiControl:
        """Its control client."""
        return ApiControl(self._url.read_text(encoding="ascii").strip())

    def start(self, gateway: str, *options: str, loopback: bool = False) -> None:
        """Make the key and start it, unless it runs at this address already; with `loopback` at 127.0.0.1 as well."""
        if not self.key_file.exists():
            files.write(self.key_file, f"ANTHROPIC_API_KEY=sk-ant-test-demo-{secrets.token_hex(16)}\n", mode=0o600)
        if self._url.exists() and f"//{gateway}:" not in self._url.read_text(encoding="ascii"):
            self._process.stop()
            self._url.unlink()
        if self._process.pid() is None:
            port = self._port(gateway)
            also = ("--also", f"127.0.0.1:{port}") if loopback else ()
            listen = ("--listen", f"{gateway}:{port}", *also)
            argv = [sys.executable, "-m", "tests.support.messages_api", *listen, *options]
            said = self._process.start(argv, cwd=self._root, first_line="listening on ")
            files.write(self._url, said.removeprefix("listening on ") + "\n")
        self.control.keys(self.key)

    def stop(self) -> None:
        """End it, if it runs."""
        self._process.stop()

    def _port(self, gateway: str) -> int:
        """The port it had before, so that the agents' settings stay true; else a free one."""
        if self._url.exists():
            return int(self._url.read_text(encoding="ascii").strip().rpartition(":")[2])
        with socket.socket() as probe:
            probe.bind((gateway, 0))
            return int(probe.getsockname()[1])
