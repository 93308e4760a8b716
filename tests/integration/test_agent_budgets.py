"""Budgets of a task, a batch and the host's day: what does not fit is refused, and says which budget it was."""

from __future__ import annotations

from pathlib import Path

from tests.support.agent import KEY, Agent, wait_batch
from tests.support.forked import ForkedAgent
from tests.support.messages_api import MessagesApi


async def test_a_task_that_may_cost_more_than_it_may_is_not_sent(agent: Agent, api: MessagesApi) -> None:
    result = await agent.run(id="one", prompt="hello", max_usd=0.000001)
    assert (result["state"], result["error"]["code"]) == ("failed", "budget")
    assert "the task one" in result["error"]["message"]
    assert api.posts == []
    assert (await agent.run(id="two", prompt="hello", max_usd=1))["state"] == "succeeded"


async def test_a_batch_spends_no_more_than_its_budget(agent: Agent, api: MessagesApi) -> None:
    status, answer = await agent.call("PUT", "/v1/batches/b", body={"max_usd": 0.0002, "concurrency": None})
    assert (status, answer["batch"]["max_usd"]) == (200, 0.0002)
    await agent.submit(*({"id": f"t{n}", "prompt": f"hello {n}", "batch": "b", "max_tokens": 100} for n in range(60)))
    await agent.get("/v1/results?batch=b&wait_s=0.1")
    for _ in range(200):
        batch = (await agent.get("/v1/batches/b"))["batch"]
        if not batch["queued"] + batch["running"]:
            break
        await agent.get(f"/v1/results?batch=b&after={batch['last_done']}&wait_s=0.2")
    assert 0 < batch["cost_usd"] <= 0.0002
    assert batch["succeeded"] > 0
    assert batch["failed"] > 0
    failed = (await agent.get("/v1/tasks?batch=b&state=failed&limit=1"))["tasks"][0]
    assert failed["error"]["code"] == "budget"
    assert "the batch b" in failed["error"]["message"]
    # Raised, it lets new tasks run.
    await agent.call("PUT", "/v1/batches/b", body={"max_usd": 1})
    assert (await agent.run(id="more", prompt="hello", batch="b"))["state"] == "succeeded"


async def test_a_day_s_budget_refuses_new_tasks_once_it_is_spent(tmp_path: Path, api: MessagesApi) -> None:
    agent = ForkedAgent(tmp_path, api.url)
    await agent.start()
    spent = (await agent.run(id="one", prompt="hello"))["cost_usd"]
    await agent.stop()
    agent = ForkedAgent(tmp_path, api.url, budget_day_usd=spent)
    await agent.start()
    try:
        status, answer = await agent.call(
            "POST", "/v1/tasks", headers=KEY, body={"tasks": [{"id": "x", "prompt": "x"}]}
        )
        assert (status, answer["error"]["code"]) == (403, "budget")
        assert "budget of the day" in answer["error"]["message"]
        day = (await agent.get("/v1/status"))["budget_day"]
        assert day["limit_usd"] == day["spent_usd"] == spent
        assert day["reserved_usd"] == 0
    finally:
        await agent.stop()


async def test_waiting_tasks_fail_when_the_day_s_budget_does_not_suffice(tmp_path: Path, api: MessagesApi) -> None:
    agent = ForkedAgent(tmp_path, api.url, budget_day_usd=0.000001)
    await agent.start()
    try:
        await agent.submit(*({"id": f"t{n}", "prompt": "hello", "batch": "b"} for n in range(3)))
        await wait_batch(agent, "b", failed=3)
        error = (await agent.result("t0"))["error"]
        assert error["code"] == "budget"
        needs = error["budget"].pop("needs_usd")
        assert error["budget"] == {"of": "day", "limit_usd": 0.000001, "spent_usd": 0}
        assert f"may cost up to {needs}" in error["message"]
        assert api.posts == []
    finally:
        await agent.stop()
