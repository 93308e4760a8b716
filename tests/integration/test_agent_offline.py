"""A farm host without network: the tasks of a batch wait for it, a task that somebody waits for fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.integration.dispatch.sshd import free_port
from tests.support.agent import Agent
from tests.support.messages_api import MessagesApi


async def test_a_batch_outlives_an_outage(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    agent = Agent(tmp_path, f"http://{address}", idle_s=1.0, drain_s=0.0, attempts=1)
    await agent.start()
    try:
        await agent.submit({"id": "mine", "prompt": "x"}, {"id": "batched", "prompt": "x", "batch": "b"})
        failed = await agent.wait_state("mine", "failed")
        assert failed["error"]["code"] == "connection"
        for _ in range(600):
            if (await agent.get("/v1/tasks/batched"))["task"]["attempts"] > 1:
                break
            await asyncio.sleep(0.1)
        async with MessagesApi(address):
            done = await agent.result("batched")
        assert done["state"] == "succeeded"
    finally:
        await agent.stop()
