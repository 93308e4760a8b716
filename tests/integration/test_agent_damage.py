"""A ledger whose pages are damaged, at the start and under the running agent: no more work, one line, status 65."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest

from farmhand.agent.store.damage import EXIT_DAMAGED
from tests.integration.test_agent_crashes import asked
from tests.support.agent import KEY, Agent
from tests.support.forked import ForkedAgent
from tests.support.messages_api import MessagesApi

PAGE = 4096


def flip(ledger: Path, *, step: int = 1) -> None:
    """Damage every `step`th page behind the first, of the file and of what is not in it yet."""
    with sqlite3.connect(ledger) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    with ledger.open("r+b", buffering=0) as file:
        for page in range(1, ledger.stat().st_size // PAGE, step):
            file.seek(page * PAGE)
            begin = file.read(PAGE)
            file.seek(page * PAGE)
            file.write(bytes(byte ^ 0x5A for byte in begin))


async def filled(tmp_path: Path, api: MessagesApi) -> Agent:
    """An agent that has run a few tasks."""
    agent = ForkedAgent(tmp_path, api.url)
    await agent.start()
    await agent.submit(*({"id": f"t{n}", "prompt": f"hello {n} " + "x" * 9000} for n in range(20)))
    for n in range(20):
        await agent.result(f"t{n}")
    return agent


async def refuses_to_start(agent: Agent) -> str:
    """The one line that it says instead."""
    before = len(agent.log.read_text())
    process = await agent.spawn()
    async with asyncio.timeout(120):
        assert await process.wait() == EXIT_DAMAGED
    said = agent.log.read_text()[before:].strip()
    assert said.count("\n") == 0, said
    assert "ledger.db is damaged: " in said
    assert "docs/operations.md" in said
    return said


async def test_a_damaged_page_is_found_at_the_start(tmp_path: Path, api: MessagesApi) -> None:
    agent = await filled(tmp_path, api)
    await agent.stop()
    flip(tmp_path / "state" / "ledger.db", step=7)
    first = await refuses_to_start(agent)
    # The second time by the note of the first, without looking at the whole file again.
    assert await refuses_to_start(agent) == first


@pytest.mark.parametrize("what", ["write", "read", "tasks under way"])
async def test_a_page_that_is_damaged_under_the_running_agent_ends_it(
    tmp_path: Path, api: MessagesApi, what: str
) -> None:
    agent = await filled(tmp_path, api)
    if what == "tasks under way":
        api.state.latency_s = 3.0
        await agent.submit(*({"id": f"long{n}", "prompt": "wait"} for n in range(4)))
        await asked(api, 24)
    flip(tmp_path / "state" / "ledger.db")
    paid = len(api.posts)
    told = None
    try:
        for n in range(30):
            if what == "read":
                told = await agent.call("GET", f"/v1/tasks/t{n % 20}")
            else:
                told = await agent.call(
                    "POST", "/v1/tasks", headers=KEY, body={"tasks": [{"id": f"n{n}", "prompt": "hello " + "y" * 9000}]}
                )
            await asyncio.sleep(0.02)
    except OSError:
        pass
    async with asyncio.timeout(120):
        assert await agent.wait() == EXIT_DAMAGED
    log = agent.log.read_text()
    assert "Traceback" not in log, log
    assert log.count("is damaged: ") == 1, log
    # Nothing was begun for what could not be recorded any more.
    assert len(api.posts) <= paid + 1
    assert told is None or told[0] in (200, 503, 507), told
    await refuses_to_start(agent)


async def test_moved_aside_it_makes_room_for_a_new_one(tmp_path: Path, api: MessagesApi) -> None:
    agent = await filled(tmp_path, api)
    await agent.stop()
    state = tmp_path / "state"
    flip(state / "ledger.db")
    await refuses_to_start(agent)
    (tmp_path / "aside").mkdir()
    for file in state.glob("ledger.db*"):
        shutil.move(file, tmp_path / "aside")
    assert (state / "ledger.damaged").exists()
    await agent.start()
    assert not (state / "ledger.damaged").exists()
    assert (await agent.run(id="new", prompt="hello"))["state"] == "succeeded"
    await agent.stop(signal.SIGTERM)
