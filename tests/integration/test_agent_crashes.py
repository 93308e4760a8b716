"""A task that takes its agent down: how often it may, what that costs, and what becomes of those that ran beside it."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import KEY, Agent
from tests.support.forked import ForkedAgent
from tests.support.messages_api import MessagesApi
from tests.support.messages_api import Plan as BatchPlan
from tests.support.trap import Trap

POISON = "poison"
_DEADLINE_S = 60.0


class Supervisor:
    """Plays both sides of a poisonous task: the agent dies each time that the API is asked for it, and is started."""

    def __init__(self, agent: Agent, api: MessagesApi, kills: Callable[[Any], bool]) -> None:
        self.agent = agent
        self.api = api
        self.kills = kills
        self.restarts = 0
        self._seen = 0

    async def until(self, done: Callable[[], Any]) -> None:
        """Look after the agent until `done`, a request to the agent, says so."""
        async with asyncio.timeout(_DEADLINE_S):
            while True:
                fresh, self._seen = self.api.log[self._seen :], len(self.api.log)
                if any(self.kills(entry) for entry in fresh):
                    await self.agent.stop(signal.SIGKILL)
                    self.restarts += 1
                    await self.agent.start()
                    await self.agent.call("PUT", "/v1/key", headers=KEY)
                elif await done():
                    return
                await asyncio.sleep(0.01)

    async def until_final(self, *ids: str) -> dict[str, Any]:
        """The results, once all have one."""
        found: dict[str, Any] = {}

        async def look() -> bool:
            # In one call: the answer that must not come in time is soon here.
            listed = {task["id"]: task for task in (await self.agent.get("/v1/tasks?limit=1000"))["tasks"]}
            found.update({task_id: listed[task_id] for task_id in ids})
            return all(task["state"] in ("succeeded", "failed", "cancelled") for task in found.values())

        await self.until(look)
        return found


async def asked(api: MessagesApi, requests: int) -> None:
    """Wait until the API has had so many requests."""
    for _ in range(12000):
        if len(api.posts) >= requests:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{len(api.posts)} requests, not {requests}")


def asked_for(api: MessagesApi) -> Counter[str]:
    """How often the API was asked for each prompt."""
    return Counter(json.loads(post.body)["messages"][0]["content"] for post in api.posts)


def is_poison(entry: Any) -> bool:
    """Whether the API was asked for the poisonous task."""
    return entry.path == "/v1/messages" and POISON in (entry.body or "")


@pytest.mark.parametrize("attempts", [1, 2, 3])
async def test_a_task_restarts_the_agent_as_often_as_it_has_attempts(
    tmp_path: Path, api: MessagesApi, attempts: int
) -> None:
    agent = ForkedAgent(tmp_path, api.url, attempts=attempts)
    await agent.start()
    api.state.latency_s = 0.5
    supervisor = Supervisor(agent, api, is_poison)
    try:
        await agent.submit({"id": "p", "prompt": POISON})
        found = (await supervisor.until_final("p"))["p"]
        assert (found["state"], found["error"]["code"]) == ("failed", "agent_crashed")
        assert (found["attempts"], found["uncertain"], supervisor.restarts) == (attempts, attempts, attempts)
        assert ("once" if attempts == 1 else f"{attempts} times") in found["error"]["message"]
        # Nor does it the next time.
        await agent.stop(signal.SIGKILL)
        await agent.start()
        assert (await agent.run(id="q", prompt="hello"))["state"] == "succeeded"
        assert asked_for(api)[POISON] == attempts
    finally:
        await agent.stop()


async def test_those_that_ran_beside_it_succeed_and_are_paid_twice_at_most(tmp_path: Path, api: MessagesApi) -> None:
    agent = ForkedAgent(tmp_path, api.url, slots_api=8)
    await agent.start()
    api.state.latency_s = 0.3
    supervisor = Supervisor(agent, api, is_poison)
    names = [f"t{n}" for n in range(16)]
    try:
        tasks = [{"id": name, "prompt": f"hello {name}", "batch": "b"} for name in names]
        await agent.submit(*tasks[:5], {"id": "p", "prompt": POISON, "batch": "b"}, *tasks[5:])
        found = await supervisor.until_final("p", *names)
        assert found.pop("p")["error"]["code"] == "agent_crashed"
        assert {task["state"] for task in found.values()} == {"succeeded"}
        assert supervisor.restarts == 3
        asked = asked_for(api)
        assert asked.pop(POISON) == 3
        assert max(asked.values()) == 2
        # Only what was beside it in the first crash was cut off.
        assert sum(count == 2 for count in asked.values()) <= 7
        batch = (await agent.get("/v1/batches/b"))["batch"]
        assert batch["uncertain"] == 3 + sum(count == 2 for count in asked.values())
    finally:
        await agent.stop()


async def test_a_stop_on_purpose_counts_for_nothing(tmp_path: Path, api: MessagesApi) -> None:
    agent = ForkedAgent(tmp_path, api.url, attempts=1, drain_s=0.1)
    api.state.latency_s = 1.0
    try:
        for n in range(3):
            await agent.start()
            await agent.submit({"id": "one", "prompt": "hello"})
            await asked(api, n + 1)
            await agent.stop()
        api.state.latency_s = 0.0
        await agent.start()
        assert (await agent.run(id="one", prompt="hello"))["state"] == "succeeded"
    finally:
        await agent.stop()


async def test_what_a_crash_left_uncertain_stays_spent(tmp_path: Path, api: MessagesApi) -> None:
    agent = ForkedAgent(tmp_path, api.url, attempts=20, budget_day_usd=1)
    await agent.start()
    api.state.latency_s = 0.5
    supervisor = Supervisor(agent, api, is_poison)
    most = 100 * 0.5 / 1e6  # of the answer alone
    try:
        await agent.call("PUT", "/v1/batches/b", body={"max_usd": 1})
        await agent.submit({"id": "p", "prompt": POISON, "max_tokens": 100, "max_usd": 4.5 * most, "batch": "b"})
        found = (await supervisor.until_final("p"))["p"]
        # Each attempt may have cost as much as was reserved for it, and the task's budget is that of all of them.
        assert found["error"]["code"] == "budget", found
        assert 1 <= supervisor.restarts <= 4
        assert found["uncertain"] == supervisor.restarts == len(api.posts)
        assert found["cost_usd"] == 0
        day = (await agent.get("/v1/status"))["budget_day"]
        assert supervisor.restarts * most <= day["spent_usd"] <= 4.5 * most
        assert day["reserved_usd"] == 0
        # The batch's budget as well, which is looked at when it is spent from.
        await agent.call("PUT", "/v1/batches/b", body={"max_usd": day["spent_usd"]})
        more = await agent.run(id="more", prompt="hello", batch="b")
        assert more["error"]["code"] == "budget"
        finished = await agent.get("/v1/finished")
        [told] = [line for line in finished if line["id"] == "p"]
        assert told["uncertain_usd"] == pytest.approx(day["spent_usd"])
    finally:
        await agent.stop()


async def test_a_request_is_in_the_ledger_before_it_leaves(agent: Agent, api: MessagesApi, tmp_path: Path) -> None:
    api.state.latency_s = 0.5
    await agent.submit({"id": "one", "prompt": "hello", "max_tokens": 1000})
    await asked(api, 1)
    with sqlite3.connect(tmp_path / "state" / "ledger.db") as db:
        [(pico,)] = db.execute("SELECT pico FROM reservation").fetchall()
        assert pico >= 1000 * 500_000
        await agent.result("one")
        assert db.execute("SELECT count(*) FROM reservation").fetchone() == (0,)
    db.close()


async def test_results_of_a_message_batch_that_take_the_agent_down_do_so_as_often(
    tmp_path: Path, api: MessagesApi
) -> None:
    agent = ForkedAgent(tmp_path, api.url, economy_linger_s=0.05, economy_poll_s=0.1, budget_day_usd=1)
    await agent.start()
    api.batches.plan = BatchPlan(after_ms=1)
    api.state.latency_s = 0.3
    supervisor = Supervisor(agent, api, lambda entry: entry.path.endswith("/results"))
    try:
        await agent.submit(*({"id": f"e{n}", "prompt": "hello", "economy": True} for n in range(3)))
        found = await supervisor.until_final("e0", "e1", "e2")
        assert {(task["state"], task["error"]["code"]) for task in found.values()} == {("failed", "agent_crashed")}
        assert supervisor.restarts == 3
        assert {task["uncertain"] for task in found.values()} == {1}
        assert (await agent.get("/v1/status"))["budget_day"]["spent_usd"] > 0
        api.state.latency_s = 0.0
        again = await agent.run(id="next", prompt="hello", economy=True)
        assert again["state"] == "succeeded"
    finally:
        await agent.stop()


@pytest.mark.parametrize(
    ("traps", "failed"),
    [
        pytest.param(["collecting", *["end"] * 5], [], id="between two results"),
        pytest.param(["collecting", "handling", "end", "handling", "end", "collecting"], [], id="with progress"),
        pytest.param(["collecting", "handling", "handling"], ["e0"], id="over one result"),
        pytest.param(["collecting", "end", "handling", "handling"], ["e1"], id="over a later result"),
        pytest.param(["collecting"] * 3, ["e0", "e1", "e2", "e3", "e4", "e5"], id="over the file"),
    ],
)
async def test_only_the_result_that_takes_the_agent_down_again_and_again_is_lost(
    tmp_path: Path, api: MessagesApi, traps: list[str], failed: list[str]
) -> None:
    agent = ForkedAgent(tmp_path, api.url, economy_linger_s=0.05, economy_poll_s=0.1)
    agent.trap = trap = Trap(tmp_path / "trap")
    api.batches.plan = BatchPlan(after_ms=1, order="given")
    names = [f"e{n}" for n in range(6)]
    await agent.start()
    try:
        trap.set(traps[0])
        await agent.submit(*({"id": name, "prompt": "hello", "economy": True} for name in names))
        for following in [*traps[1:], None]:
            async with asyncio.timeout(_DEADLINE_S):
                await agent.wait()
            if following is not None:
                trap.set(following)
            await agent.start()
            await agent.call("PUT", "/v1/key", headers=KEY)
        found = {name: await agent.result(name) for name in names}
        assert [name for name in names if found[name]["state"] != "succeeded"] == failed
        assert {found[name]["error"]["code"] for name in failed} <= {"agent_crashed"}
        assert {name: found[name]["uncertain"] for name in names} == {name: int(name in failed) for name in names}
        assert len(api.batches.all()) == 1
    finally:
        await agent.stop()


async def test_a_second_agent_does_not_take_the_first_one_s_tasks_for_those_of_a_crash(
    agent: Agent, api: MessagesApi
) -> None:
    api.state.event_s = 2.0
    await agent.submit({"id": "one", "prompt": "p"})
    await agent.wait_state("one", "running")
    second = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "farmhand.agent.main", "serve", "--config", str(agent.config)),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(second.communicate(), 120)
    assert second.returncode == 3
    assert f"another agent uses {agent.directory}/state (stop it first)" in said.decode()
    result = await agent.wait_state("one", "succeeded")
    assert (result["attempts"], result["uncertain"]) == (1, 0)
