"""A farm host without network, or whose API is down: tasks of a batch wait, a task that somebody waits for fails."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from tests.integration.dispatch.sshd import free_port
from tests.support.agent import Agent
from tests.support.forked import ForkedAgent
from tests.support.messages_api import Fault, MessagesApi


async def test_a_batch_outlives_an_outage(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    agent = ForkedAgent(tmp_path, f"http://{address}", idle_s=1.0, drain_s=0.0, attempts=1)
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


async def test_a_batch_outlives_an_api_that_is_down_and_the_status_says_so(tmp_path: Path, api: MessagesApi) -> None:
    """More refusals than the meter tries again: somebody's own task fails for them, those of a batch go on."""
    for status in (503, 529):
        api.fault(Fault(kind="status", status=status, match=f"met {status}", count=9))
    api.fault(Fault(kind="status", status=529, match="mine", count=-1))
    agent = ForkedAgent(tmp_path, api.url, attempts=1)
    await agent.start()
    try:
        tasks = [{"id": f"b-{status}", "prompt": f"met {status}", "batch": "b"} for status in (503, 529)]
        await agent.submit(*tasks, {"id": "mine", "prompt": "mine"})
        met = time.time()
        for _ in range(2400):
            wait = await said_to_wait_for(agent, "api_error")
            if wait is not None and wait["tasks"] == 3:
                break
            await asyncio.sleep(0.05)
        assert wait is not None
        assert wait["detail"] == "the API's last answer: Overloaded"
        assert wait["until"] is None or wait["until"] >= met
        failed = await agent.wait_state("mine", "failed")
        assert failed["error"]["code"] == "overloaded_error"
        for task in tasks:
            done = await agent.result(str(task["id"]))
            assert (done["state"], done["error"]) == ("succeeded", None)
        assert await said_to_wait_for(agent, "api_error") is None
    finally:
        await agent.stop()


async def said_to_wait_for(agent: Agent, reason: str) -> dict[str, Any] | None:
    """What the status says of the tasks that wait for this reason."""
    waiting: list[dict[str, Any]] = (await agent.get("/v1/status"))["waiting"]
    return next((wait for wait in waiting if wait["reason"] == reason), None)


async def test_a_host_that_is_to_send_nothing_puts_back_what_the_api_does_not_answer(
    tmp_path: Path, api: MessagesApi
) -> None:
    api.fault(Fault(kind="status", status=529, count=-1))
    agent = ForkedAgent(tmp_path, api.url)
    await agent.start()
    try:
        await agent.submit({"id": "batched", "prompt": "x", "batch": "b"})
        await agent.wait_state("batched", "running")
        await agent.call("PUT", "/v1/drain", body={"mode": "running"})
        await agent.wait_state("batched", "queued")
        sent = len(api.posts)
        api.state.faults.clear()
        await asyncio.sleep(1.0)
        assert len(api.posts) == sent
        await agent.call("PUT", "/v1/drain", body={"mode": "off"})
        assert (await agent.result("batched"))["state"] == "succeeded"
    finally:
        await agent.stop()


async def test_a_task_whose_time_is_over_says_what_the_api_said(tmp_path: Path, api: MessagesApi) -> None:
    """Also one that was never sent, since another's refusal asked to wait."""
    api.fault(Fault(kind="status", status=529, retry_after=30, message="Overloaded", count=-1))
    agent = ForkedAgent(tmp_path, api.url)
    await agent.start()
    try:
        for number in (1, 2):
            await agent.submit({"id": f"t{number}", "prompt": "x", "timeout_s": 1.0})
            failed = await agent.wait_state(f"t{number}", "failed")
            assert failed["error"]["message"] == "the task ran longer than 1 s (the API's last answer: Overloaded)"
            assert failed["error"]["hint"] == "the API is overloaded: try again later"
        assert len(api.posts) == 1
    finally:
        await agent.stop()
