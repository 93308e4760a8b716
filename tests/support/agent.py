"""The real daemon in a temporary directory, and a plain HTTP client of its socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from tests.support.messages_api import DEFAULT_KEY, MessagesApi

WIRE = {"X-Farmhand-Wire": "1"}
KEY = {"X-Farmhand-Key": DEFAULT_KEY}
#: To read the system's certificates is a fourth of a daemon's start, and the loopback API needs none.
NO_CERTIFICATES = {"SSL_CERT_FILE": os.devnull}


def bodies(api: MessagesApi) -> list[dict[str, Any]]:
    """What the API was asked, oldest first."""
    return [json.loads(post.body) for post in api.posts]


class Process(Protocol):
    """What an agent needs of its process."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def send_signal(self, number: int, /) -> None: ...
    async def wait(self) -> int: ...


class Agent:
    """`jada-agent serve` as a process of its own. Start it, kill it, start it again; the directory stays."""

    def __init__(self, directory: Path, upstream_url: str, **settings: Any) -> None:
        self.directory = directory
        self.socket = directory / "run" / "agent.sock"
        self.config = directory / "config.toml"
        self.log = directory / "agent.log"
        self._process: Process | None = None
        for name in ("run", "state"):
            (directory / name).mkdir(mode=0o755, exist_ok=True)
        values = {
            "upstream_url": upstream_url,
            "state_dir": str(directory / "state"),
            "runtime_dir": str(directory / "run"),
            **settings,
        }
        self.config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def dead_by(self) -> int | None:
        """How the daemon ended; below 0: the signal that ended it. None while it runs."""
        return None if self._process is None else self._process.returncode

    async def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = await self.spawn()
        for _ in range(2400):
            if self._process.returncode is not None:
                break
            try:
                await self.get("/v1/status")
            except (OSError, aiohttp.ClientError):
                await asyncio.sleep(0.05)
            else:
                return
        raise AssertionError(f"the agent did not start: {self.log.read_text()}")

    async def spawn(self) -> Process:
        """A new process of it."""
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "farmhand.agent.main",
                "serve",
                "--config",
                str(self.config),
                stderr=log,
                stdout=log,
                env=os.environ | NO_CERTIFICATES,
            )

    async def wait(self) -> int:
        """Wait until it ends by itself; returns the exit status."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self._process.wait()

    async def call(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, body: Any = None
    ) -> tuple[int, Any]:
        """(status, decoded answer) of one request; `body` is sent as JSON, bytes as they are."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket))) as session,
            session.request(method, f"http://agent{path}", data=data, headers=WIRE | (headers or {})) as answer,
        ):
            text = await answer.text()
            if "ndjson" in answer.content_type:
                return answer.status, [json.loads(line) for line in text.splitlines()]
            return answer.status, json.loads(text) if "json" in answer.content_type else text

    async def get(self, path: str) -> Any:
        """The answer to a GET that must succeed."""
        status, answer = await self.call("GET", path)
        assert status == 200, answer
        return answer

    async def submit(self, *tasks: dict[str, Any], key: dict[str, str] | None = None) -> list[dict[str, str]]:
        """Send tasks with the default key; returns their ids and states."""
        status, answer = await self.call(
            "POST", "/v1/tasks", headers=KEY if key is None else key, body={"tasks": tasks}
        )
        assert status == 200, answer
        states: list[dict[str, str]] = answer["tasks"]
        return states

    async def result(self, task_id: str) -> dict[str, Any]:
        """The result of a task, once it has one."""
        events = await self.get(f"/v1/tasks/{task_id}/events")
        final: dict[str, Any] = events[-1]["result"]
        return final

    async def run(self, **task: Any) -> dict[str, Any]:
        """Send one task and wait for its result."""
        await self.submit(task)
        return await self.result(task["id"])

    async def wait_state(self, task_id: str, state: str) -> dict[str, Any]:
        """Poll until the task is in `state`."""
        for _ in range(2400):
            task: dict[str, Any] = (await self.get(f"/v1/tasks/{task_id}"))["task"]
            if task["state"] == state:
                return task
            await asyncio.sleep(0.05)
        raise AssertionError(f"{task_id} is {task['state']}, not {state}")


async def follow_until(agent: Agent, task_id: str, state: str) -> dict[str, Any]:
    """The event that says the task is in `state`, from the task's stream of events."""
    async with (
        asyncio.timeout(120),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(agent.socket))) as session,
        session.get(f"http://agent/v1/tasks/{task_id}/events", headers=WIRE) as answer,
    ):
        async for line in answer.content:
            event: dict[str, Any] = json.loads(line)
            if event.get("state") == state:
                return event
    raise AssertionError(f"{task_id} was never {state}")


async def wait_batch(agent: Agent, name: str, **counts: int) -> dict[str, Any]:
    """Poll until the batch has these counts."""
    batch: dict[str, Any] = {}
    for _ in range(2400):
        batch = (await agent.get(f"/v1/batches/{name}"))["batch"]
        if all(batch[state] == count for state, count in counts.items()):
            return batch
        await asyncio.sleep(0.05)
    raise AssertionError(batch)
