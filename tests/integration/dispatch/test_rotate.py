"""`farmhand rotate` over real ssh to two real agents, while tasks come in without a pause."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from farmhand.core.keys import fingerprint
from farmhand.core.keysource import read_key
from tests.integration.dispatch.conftest import Done, Workstation, entry
from tests.integration.dispatch.sshd import Sshd, bridge_to
from tests.support.forked import ForkedAgent
from tests.support.messages_api import DEFAULT_KEY, MessagesApi

#: Lines of a rotation's own account at which it is killed, in their order.
STEPS = ("staged", "switching", "switched", "verified", "drained", "retiring", "dead", "retired")
PER_SECOND = 20
#: `farmhand` that is killed where it says a line: from outside it would come too late on a busy machine.
DYING = """
import os, signal, sys
from farmhand.cli import main

line, stderr = sys.argv.pop(1), sys.stderr

class Dying:
    said = ""

    def write(self, text):
        self.said += text
        return stderr.write(text)

    def flush(self):
        stderr.flush()
        if line in self.said.splitlines():
            os.kill(os.getpid(), signal.SIGKILL)

sys.stderr = Dying()
main()
"""


@dataclass
class Farm:
    """A workstation with two hosts."""

    station: Workstation
    agents: dict[str, ForkedAgent]
    api: MessagesApi
    api_log: Path
    keys: list[str] = field(default_factory=list)

    def new_key(self) -> str:
        """A key that the API takes and that stands nowhere else on this machine."""
        key = f"sk-ant-test-{uuid.uuid4().hex}"
        self.keys.append(key)
        self.api.state.keys = self.api.state.current_keys() | {key}
        return key

    def key(self) -> str:
        """The key in use."""
        return read_key(f"file:{self.station.home}/repos.env")

    async def rotate(self, *options: str, key: str | None = None) -> Done:
        """`farmhand rotate`, the new key on stdin."""
        done = await self.station.run(
            "farmhand", "rotate", *options, stdin=None if key is None else f"{key}\n".encode()
        )
        for secret in self.keys:
            assert secret not in done.err + done.out.decode()
        return done

    async def killed_at(self, line: str, *options: str, key: str | None = None) -> bool:
        """The same, killed as soon as it says `line`. False: it ended without that."""
        process = await self.station.start(
            "python", "-c", DYING, f"farmhand: {line}", "rotate", *options, stdin=asyncio.subprocess.PIPE
        )
        await process.communicate(f"{key}\n".encode() if key else b"")
        return process.returncode == -signal.SIGKILL


@pytest.fixture
async def farm(tmp_path: Path, workstation: Workstation) -> AsyncIterator[Farm]:
    log = tmp_path / "api.jsonl"
    async with MessagesApi(latency_ms=50, log_file=log) as api:
        agents, servers = {}, {}
        for name in ("farm1", "farm2"):
            directory = tmp_path / name
            directory.mkdir()
            agents[name] = ForkedAgent(directory, api.url, idle_s=5.0)
            await agents[name].start()
            (directory / "sshd").mkdir()
            servers[name] = Sshd(directory / "sshd", bridge_to(agents[name].socket))
            servers[name].start()
        workstation.write_hosts(**{name: entry(server) for name, server in servers.items()})
        workstation.rotate_with(api)
        yield Farm(workstation, agents, api, log, [DEFAULT_KEY])
        for server in servers.values():
            server.stop()
        for agent in agents.values():
            await agent.stop()


class Load:
    """Tasks that come in at a steady rate, each with the key that its client has just read, as claude-cheap does."""

    def __init__(self, farm: Farm) -> None:
        self.farm = farm
        self.sent: dict[str, list[str]] = {name: [] for name in farm.agents}
        self.failures: list[str] = []
        self._random = random.Random(7)  # noqa: S311  (pauses, not secrets)
        self._clients: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled."""
        begin = time.monotonic()
        for number in range(1_000_000):
            name = ("farm1", "farm2")[number % 2]
            client = asyncio.create_task(self._client(name, f"t{number}"))
            self._clients.add(client)
            client.add_done_callback(self._clients.discard)
            await asyncio.sleep(max(0.0, begin + (number + 1) / PER_SECOND - time.monotonic()))

    async def _client(self, name: str, task_id: str) -> None:
        key = {"X-Farmhand-Key": self.farm.key()}
        await asyncio.sleep(self._random.random() * 0.3)  # from reading the key to being heard
        self.sent[name].append(task_id)
        try:
            await self.farm.agents[name].submit({"id": task_id, "prompt": "hello", "batch": "load"}, key=key)
        except (AssertionError, OSError, aiohttp.ClientError) as error:
            self.failures.append(f"{task_id}: {error!r}")

    async def ended(self) -> None:
        """Wait for those that are on their way."""
        await asyncio.gather(*self._clients)


async def watch(keys: list[str]) -> list[str]:
    """Until cancelled: every process of this machine that has one of the keys in its arguments or its environment."""
    found: list[str] = []
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            for process in Path("/proc").glob("[0-9]*"):
                for what in ("cmdline", "environ"):
                    with contextlib.suppress(OSError):
                        text = (process / what).read_bytes()
                        found += [f"{process}/{what}" for key in keys[1:] if key.encode() in text]
            await asyncio.sleep(1.0)
    return found


async def rotate_killed_everywhere(farm: Farm) -> None:
    """One rotation, killed at each of its steps and taken up again."""
    key, killed = farm.new_key(), 0
    state_file = farm.station.home / ".local" / "state" / "farmhand" / "rotation" / "state.json"
    for line in STEPS:
        begun = state_file.exists() and json.loads(state_file.read_text())["step"] not in ("retired", "rolled_back")
        killed += await (farm.killed_at(line, "--resume") if begun else farm.killed_at(line, key=key))
    assert killed == len(STEPS)
    state = json.loads((await farm.rotate("--status", "--json")).out)
    if state["unfinished"]:
        assert (await farm.rotate("--resume")).status == 0
    assert farm.key() == key


async def test_ten_rotations_under_load(farm: Farm, tmp_path: Path) -> None:
    load = Load(farm)
    running = asyncio.create_task(load.run())
    watching = asyncio.create_task(watch(farm.keys))
    retired: list[tuple[str, float]] = []
    for number in range(10):
        old = farm.key()
        if number == 3:
            dead = f"sk-ant-test-{uuid.uuid4().hex}"
            farm.keys.append(dead)
            done = await farm.rotate(key=dead)
            assert done.status == 3, done.err
            assert "does not know the new key (401)" in done.err
            assert farm.key() == old
            continue
        if number == 6:
            await rotate_killed_everywhere(farm)
        else:
            key = farm.new_key()
            done = await farm.rotate("--json", key=key)
            assert done.status == 0, done.err
            assert json.loads(done.out)["step"] == "retired"
            assert farm.key() == key
        assert old not in farm.api.state.keys
        retired.append((old, time.time()))
    assert len(retired) == 9
    running.cancel()
    await load.ended()
    watching.cancel()
    assert await watching == []
    assert load.failures == []
    for name, agent in farm.agents.items():
        results: list[dict[str, object]] = []
        after = 0
        while True:
            page = await agent.get(f"/v1/results?batch=load&after={after}&limit=1000&wait_s=10")
            results += page["results"]
            after = page["next"]
            if not page["unfinished"] and not page["results"]:
                break
        assert sorted(str(result["id"]) for result in results) == sorted(load.sent[name]), "lost, or never sent"
        assert [r for r in results if (r["state"], r["attempts"], r["uncertain"]) != ("succeeded", 1, 0)] == []
    entries = [json.loads(line) for line in farm.api_log.read_text().splitlines()]
    asked = [e for e in entries if e["path"] == "/v1/messages"]
    assert {e["status"] for e in asked} == {200}
    for old, at in retired:
        assert [e for e in entries if e["time"] > at and e["headers"].get("x-api-key") == old] == []
    for name in farm.agents:
        for path in (tmp_path / name).rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert not [key for key in farm.keys if key.encode() in content], path
    # On the workstation only the key source has it, and in the end only the one that is in use.
    for path in farm.station.home.rglob("*"):
        if path.is_file() and path.name != "repos.env":
            assert not [key for key in farm.keys if key.encode() in path.read_bytes()], path
    assert (farm.station.home / "repos.env").read_text() == f"ANTHROPIC_API_KEY={farm.key()}\n"


async def test_two_at_once(farm: Farm) -> None:
    farm.api.state.latency_s = 1.0
    first = await farm.station.start("farmhand", "rotate", stdin=asyncio.subprocess.PIPE)
    assert first.stdin is not None
    assert first.stderr is not None
    first.stdin.write(f"{farm.new_key()}\n".encode())
    first.stdin.close()
    await first.stderr.readline()
    os.kill(first.pid, signal.SIGSTOP)
    try:
        second = await farm.rotate(key=farm.new_key())
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert second.status == 5
    assert second.err == f"farmhand: another rotation of this key runs (process {first.pid}) (wait until it ends)\n"
    await first.communicate()
    assert first.returncode == 0


async def test_status_resume_and_abort_say_where_it_stands(farm: Farm) -> None:
    status = await farm.rotate("--status")
    assert status.out.decode().splitlines()[0] == f"key in use: {fingerprint(DEFAULT_KEY)}, here for 0 days at least"
    assert (await farm.rotate("--resume")).status == 2
    assert (await farm.rotate("--abort")).out == b"no rotation goes on: nothing to take back\n"
    assert await farm.killed_at("switched", key=farm.new_key())
    status = await farm.rotate("--status")
    assert "--resume, or back with --abort" in status.out.decode()
    again = await farm.rotate(key=farm.new_key())
    assert again.status == 2
    assert "finish it with --resume, or take it back with --abort" in again.err
    aborted = await farm.rotate("--abort")
    assert aborted.status == 0, aborted.err
    assert aborted.out.decode() == f"back to the old key {fingerprint(DEFAULT_KEY)}\n"
    assert farm.key() == DEFAULT_KEY
