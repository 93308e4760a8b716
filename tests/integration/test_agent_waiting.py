"""What the events of a task say that it waits for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.agent import WIRE, Agent
from tests.support.forked import ForkedAgent
from tests.support.messages_api import Fault, MessagesApi


@asynccontextmanager
async def events(agent: Agent, task_id: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The events of a task as they come."""
    async with (
        asyncio.timeout(120),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(agent.socket))) as session,
        session.get(f"http://agent/v1/tasks/{task_id}/events", headers=WIRE) as answer,
    ):
        yield (json.loads(line) async for line in answer.content)


async def waits(agent: Agent, task_id: str, **wanted: Any) -> dict[str, Any]:
    """The first event that says so."""
    async with events(agent, task_id) as coming:
        async for event in coming:
            if event["type"] == "waiting" and wanted.items() <= event.items():
                return event
    raise AssertionError(f"{task_id} never waited for {wanted}")


@pytest.fixture
async def narrow(tmp_path: Path, api: MessagesApi) -> AsyncIterator[Agent]:
    """An agent with one slot of each engine."""
    daemon = ForkedAgent(tmp_path, api.url, idle_s=30.0, drain_s=0.0, slots_api=1, slots_cli=1, sandbox_spares=0)
    await daemon.start()
    yield daemon
    await daemon.stop()


async def test_the_place_in_the_queue(narrow: Agent, api: MessagesApi) -> None:
    api.state.event_s = 30.0
    await narrow.submit(*({"id": f"t{number}", "prompt": "x"} for number in range(4)))
    await narrow.wait_state("t0", "running")
    assert (await waits(narrow, "t1", reason="slots"))["ahead"] == 0
    async with events(narrow, "t3") as coming:
        assert [await anext(coming) for _ in range(2)] == [
            {"type": "state", "state": "queued"},
            {"type": "waiting", "reason": "slots", "ahead": 2},
        ]
        await narrow.submit({"id": "first", "prompt": "x", "priority": 1})
        assert await anext(coming) == {"type": "waiting", "reason": "slots", "ahead": 3}
        await narrow.call("PUT", "/v1/drain", body={"mode": "running"})
        assert await anext(coming) == {"type": "waiting", "reason": "draining"}
        await narrow.call("PUT", "/v1/drain", body={"mode": "off"})
        for task_id in ("first", "t1", "t2"):
            await narrow.call("DELETE", f"/v1/tasks/{task_id}")
        assert await anext(coming) == {"type": "waiting", "reason": "slots", "ahead": 0}


@pytest.mark.parametrize("status", [529, 429])
async def test_a_refusal_of_the_api_and_when_it_is_asked_again(narrow: Agent, api: MessagesApi, status: int) -> None:
    api.fault(Fault(kind="status", status=status, retry_after=5))
    await narrow.submit({"id": "one", "prompt": "hello"})
    event = await waits(narrow, "one", reason="api_error", status=status)
    assert 0 < event["in_s"] <= 7
    api.state.event_s = 2.0
    await waits(narrow, "one", reason="")
    assert (await narrow.result("one"))["state"] == "succeeded"


async def test_a_sandbox_that_starts(narrow: Agent) -> None:
    server = await asyncio.start_unix_server(lambda *_: None, narrow.directory / "run" / "task.sock")
    async with server:
        await narrow.submit({"id": "one", "prompt": "x", "engine": "cli"})
        await waits(narrow, "one", reason="sandbox")
        await narrow.call("DELETE", "/v1/tasks/one")
