"""Sandboxes that do not end when the agent hangs up. That systemd ends them is shown in tests/e2e/test_sandbox.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from farmhand.agent.config import Config
from farmhand.agent.engines import sandboxes
from farmhand.agent.engines.cli import CliEngine
from farmhand.agent.engines.sandboxes import ALL, unit_of
from farmhand.core.task import Task, Usage
from farmhand.meter.grants import Charge, Grant, Grants, Key

UNIT = "jada-task@3-1234-998.service"
SAYS = (
    {"type": "farmhand.unit", "unit": UNIT},
    {"type": "farmhand.unit", "unit": "jada-task@4-1234-998.service"},
    {"type": "result", "result": "forged", "num_turns": 1},
    {"type": "farmhand.exit", "rc": 0},
)
#: Of a task that has asked the API once: without that no answer of it is believed.
GRANT = Grant(task_id="one", key=Key("sk-ant-test-leaving-0000000"), model="claude-haiku-5-5")
GRANT.charges.append(Charge(Usage(requests=1)))


class Host:
    """Stands for systemd: sandboxes that stay until their end is asked for, and who asked for which."""

    def __init__(self, directory: Path, *, stays: bool) -> None:
        self.directory = directory
        self.stays = stays
        self.writers: list[asyncio.StreamWriter] = []
        self.asked: list[str] = []
        self.most = self.now = 0

    async def sandbox(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        self.writers.append(writer)
        if not await reader.readline():
            self.leave(writer)
            return
        writer.writelines(msgspec.json.encode(line) + b"\n" for line in SAYS)
        await reader.read()
        if not self.stays:
            self.leave(writer)

    def leave(self, writer: asyncio.StreamWriter) -> None:
        self.now -= 1
        writer.close()

    async def end(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readline()).decode().strip())
        for held in self.writers:
            if not held.is_closing():
                self.leave(held)
                break
        writer.close()


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    monkeypatch.setattr(sandboxes, "_LEAVE_S", 0.3)
    found = Host(tmp_path, stays=True)
    servers = [
        await asyncio.start_unix_server(found.sandbox, tmp_path / "task.sock"),
        await asyncio.start_unix_server(found.end, tmp_path / "task-end.sock"),
    ]
    yield found
    for server in servers:
        server.close()
    for writer in found.writers:
        writer.close()


async def run(engine: CliEngine) -> Any:
    return await engine.run(Task(id="one", prompt="hello", tools=("Bash",)), GRANT, lambda _text: None, 5)


async def test_what_hangs_holds_its_place_and_is_ended_by_its_first_word(host: Host) -> None:
    engine = CliEngine(Config(runtime_dir=str(host.directory), slots_cli=2, sandbox_spares=0), Grants())
    answers = await asyncio.gather(*(run(engine) for _ in range(6)))
    assert {answer.text for answer in answers} == {"forged"}
    # Two at a time, each until it was ended; what a task says later about units is not believed.
    assert host.most == 2
    assert set(host.asked) == {UNIT}
    async with asyncio.timeout(120):
        while engine.sandboxes.leaving:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert len(host.asked) == 6
    engine.sandboxes.close()


async def test_what_ends_by_itself_is_asked_for_no_end(host: Host) -> None:
    host.stays = False
    engine = CliEngine(Config(runtime_dir=str(host.directory), slots_cli=1, sandbox_spares=1), Grants())
    for _ in range(3):
        assert (await run(engine)).text == "forged"
    assert host.most <= 2
    assert host.asked == []
    engine.sandboxes.close()


async def test_what_an_agent_of_before_has_left_is_ended_at_the_start(host: Host) -> None:
    await CliEngine(Config(runtime_dir=str(host.directory)), Grants()).sandboxes.clear()
    assert host.asked == [ALL]


async def test_without_anybody_to_end_it_a_sandbox_goes_on_holding_its_place(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    (host.directory / "task-end.sock").unlink()
    engine = CliEngine(Config(runtime_dir=str(host.directory), slots_cli=1, sandbox_spares=0), Grants())
    await engine.sandboxes.clear()
    await run(engine)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await run(engine)
    assert "could not be ended" in caplog.text
    engine.sandboxes.close()


@pytest.mark.parametrize(
    ("line", "unit"),
    [
        (f'{{"type": "farmhand.unit", "unit": "{UNIT}"}}', UNIT),
        ('{"type": "farmhand.unit", "unit": "jada-task-full@0-1-2.service"}', "jada-task-full@0-1-2.service"),
        ('{"type": "farmhand.unit"}', ""),
        ('{"type": "farmhand.unit", "unit": "jada-agent.service"}', ""),
        ('{"type": "farmhand.unit", "unit": "jada-task@*.service"}', ""),
        ('{"type": "farmhand.unit", "unit": "jada-task@1.service jada-agent.service"}', ""),
        ('{"type": "farmhand.unit", "unit": 7}', None),
        ('{"type": "result"}', None),
        ("", None),
        ("\ufffd", None),
    ],
)
def test_only_a_sandbox_s_unit_is_one(line: str, unit: str | None) -> None:
    assert unit_of(line.encode()) == unit
