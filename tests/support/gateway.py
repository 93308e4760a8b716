"""The gateway as a process of its own, with settings, token and ledger below one directory."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import Process
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.schemas import check_said

FARMHAND = (sys.executable, "-c", "from farmhand.cli import main; main()")
#: Python runs it at its start: each address that the process connects to, and each name that it looks up, is a line.
_WATCH = """
import sys
def note(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        with open({path!r}, "a") as file:
            print(event, args[1] if event == "socket.connect" else args[:2], file=file)
sys.addaudithook(note)
"""


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class GatewayProcess:
    """`farmhand gateway serve`. `settings` is gateway.toml without `listen`."""

    def __init__(self, home: Path, settings: str = "") -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home / "gateway.log"
        self.config = home / ".config" / "farmhand" / "gateway.toml"
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.write(settings)
        self.environ = {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        self._watch: dict[str, str] = {}
        self._process: Process | None = None

    def write(self, settings: str) -> None:
        """Put other settings into the file."""
        self.config.write_text(f'listen = "127.0.0.1:{self.port}"\n{settings}')
        self.config.chmod(0o600)

    @property
    def token_path(self) -> Path:
        """The file with the token."""
        return self.home / ".local/state/farmhand/gateway.token"

    @property
    def token(self) -> str:
        """What clients send."""
        return self.token_path.read_text().strip()

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def database(self) -> Path:
        """The ledger."""
        return self.home / ".local/state/farmhand/gateway.db"

    async def __aenter__(self) -> GatewayProcess:
        return self

    async def __aexit__(self, *error: object) -> None:
        if self.running:
            await self.stop(signal.SIGKILL)

    async def start(self) -> GatewayProcess:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(*FARMHAND, "gateway", "serve"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environ | self._watch,
            )
        for _ in range(1200):
            if self._process.returncode is not None:
                break
            try:
                await self.call("GET", "/health")
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
            else:
                return self
        raise AssertionError(f"the gateway did not start: {self.log.read_text()}")

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self._process.wait()

    def memory(self) -> int:
        """The memory that it has now, in bytes."""
        found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def cpu_s(self) -> float:
        """The CPU time that it has used, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def watch_connections(self) -> None:
        """Before the start: note what the process connects to."""
        directory = self.home / "watch"
        directory.mkdir()
        (directory / "sitecustomize.py").write_text(_WATCH.format(path=str(directory / "connections")))
        self._watch = {"PYTHONPATH": str(directory)}

    def connections(self) -> list[str]:
        """What was noted so far."""
        path = self.home / "watch" / "connections"
        return path.read_text().splitlines() if path.exists() else []

    def hang_up(self) -> None:
        """Let it read its settings again."""
        os.kill(self.pid, signal.SIGHUP)

    async def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """(status, headers, answer) of one request with the token; JSON is decoded."""
        known = {"authorization": f"Bearer {self.token}"} if self.token_path.exists() else {}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, json=body, headers=known | (headers or {})) as answer,
        ):
            found = {name.lower(): value for name, value in answer.headers.items()}
            text = await answer.text()
            return answer.status, found, json.loads(text) if "json" in found.get("content-type", "") else text

    async def status(self) -> dict[str, Any]:
        """What `farmhand gateway status --json` asks for."""
        status, _, found = await self.call("GET", "/farmhand/v1/status", headers={"X-Farmhand-Control": "1"})
        assert status == 200, found
        answer: dict[str, Any] = found
        return answer

    async def until_up(self, backend: str) -> None:
        """Wait until the gateway sees a local server."""
        for _ in range(1200):
            states = {state["name"]: state for state in (await self.status())["states"]}
            if states[backend]["closed"] is None:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{backend} is not up: {states}")

    async def until_listed(self, backend: str) -> None:
        """Wait until the settings in force have this backend."""
        for _ in range(1200):
            names = [state["name"] for state in (await self.status())["states"]]
            if backend in names:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{backend} is not listed: {names}")

    async def command(self, *arguments: str) -> tuple[int, str, str]:
        """(exit status, stdout, stderr) of `farmhand gateway …` beside it."""
        return await self.farmhand("gateway", *arguments)

    async def farmhand(self, *arguments: str) -> tuple[int, str, str]:
        """(exit status, stdout, stderr) of `farmhand …` beside it."""
        process = await asyncio.create_subprocess_exec(
            *(*FARMHAND, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environ,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        check_said(arguments, out)
        return process.returncode, out.decode(), err.decode()
