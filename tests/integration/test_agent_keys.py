"""Keys that the API refuses: their tasks wait, no attempt is burnt, and any key that works lets them go on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.agent import KEY, Agent, follow_until, wait_batch
from tests.support.forked import ForkedAgent
from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi

OTHER = "sk-ant-test-other-1111111111111111"
BAD = {"X-Farmhand-Key": "sk-ant-test-revoked-2222222222222"}


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(kind="status", status=401), "authentication_error"),
        (Fault(kind="status", status=402), "billing_error"),
        (Fault(kind="spend_limit"), "spend_limit"),
    ],
    ids=["401", "402", "spend_limit"],
)
async def test_a_refused_key_parks_its_task_and_says_why(
    agent: Agent, api: MessagesApi, fault: Fault, code: str
) -> None:
    api.fault(fault)
    await agent.submit({"id": "one", "prompt": "hello"})
    event = await follow_until(agent, "one", "awaiting_key")
    assert event["reason"] == code
    assert event["message"]
    assert event["hint"]
    task = await agent.wait_state("one", "awaiting_key")
    assert (task["attempts"], task["error"]) == (0, None)
    assert len(api.posts) == 1
    status = await agent.get("/v1/status")
    assert status["key"] is None
    [key] = status["keys"]
    assert (key["state"], key["queued"]) == ("refused", 1)
    [wait] = status["waiting"]
    assert (wait["reason"], wait["tasks"]) == ("key_refused", 1)
    # Brought again, as after topping up, it is tried again.
    assert (await agent.call("PUT", "/v1/key", headers=KEY))[1]["tasks_resumed"] == 1
    result = await agent.result("one")
    assert (result["state"], result["attempts"]) == ("succeeded", 1)


async def test_a_refused_key_parks_the_whole_queue_after_few_requests(tmp_path: Path, api: MessagesApi) -> None:
    agent = ForkedAgent(tmp_path, api.url, slots_api=4)
    await agent.start()
    try:
        await agent.submit(*({"id": f"t{n}", "prompt": "hello", "batch": "b"} for n in range(200)), key=BAD)
        await wait_batch(agent, "b", awaiting_key=200)
        assert len(api.posts) <= 8
        before = len(api.posts)
        # The same key again is tried by one task at a time.
        await agent.call("PUT", "/v1/key", headers=BAD)
        await wait_batch(agent, "b", awaiting_key=200)
        assert len(api.posts) == before + 1
        await agent.call("PUT", "/v1/key", headers=KEY)
        batch = await wait_batch(agent, "b", succeeded=200)
        assert batch["uncertain"] == 0
        assert all(task["attempts"] == 1 for task in (await agent.get("/v1/tasks?batch=b&limit=200"))["tasks"])
    finally:
        await agent.stop()


async def test_tasks_of_another_key_are_not_held_up(tmp_path: Path, api: MessagesApi) -> None:
    api.state.keys = frozenset({DEFAULT_KEY, OTHER})
    agent = ForkedAgent(tmp_path, api.url, slots_api=1)
    await agent.start()
    try:
        await agent.submit(*({"id": f"good{n}", "prompt": "hello", "batch": "good"} for n in range(5)))
        await agent.submit(*({"id": f"bad{n}", "prompt": "hello", "batch": "bad"} for n in range(5)), key=BAD)
        await wait_batch(agent, "good", succeeded=5)
        await wait_batch(agent, "bad", awaiting_key=5)
        await agent.submit({"id": "other", "prompt": "hello"}, key={"X-Farmhand-Key": OTHER})
        assert (await agent.result("other"))["state"] == "succeeded"
        await wait_batch(agent, "bad", succeeded=5)
    finally:
        await agent.stop()


async def test_a_key_that_is_replaced_while_it_is_refused_lets_its_task_go_on(agent: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="slow", delay_s=0.5))
    await agent.submit({"id": "one", "prompt": "hello"}, key=BAD)
    await agent.wait_state("one", "running")
    await agent.call("PUT", "/v1/key", headers=KEY)
    assert (await agent.result("one"))["state"] == "succeeded"


async def test_parked_tasks_are_there_after_a_crash(agent: Agent) -> None:
    await agent.submit({"id": "one", "prompt": "hello"}, key=BAD)
    await agent.wait_state("one", "awaiting_key")
    await agent.stop(signal.SIGKILL)
    await agent.start()
    [wait] = (await agent.get("/v1/status"))["waiting"]
    assert wait["reason"] == "no_key"
    await agent.call("PUT", "/v1/key", headers=KEY)
    result = await agent.result("one")
    assert (result["state"], result["attempts"], result["uncertain"]) == ("succeeded", 1, 0)
