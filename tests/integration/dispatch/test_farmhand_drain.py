"""farmhand_drain and its action plugin, through ansible, on the real daemon."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.dispatch.conftest import Done, Workstation
from tests.support.agent import Agent
from tests.support.forked import ForkedAgent
from tests.support.messages_api import DEFAULT_KEY, MessagesApi


@pytest.fixture
async def agent(tmp_path: Path, api: MessagesApi) -> AsyncIterator[Agent]:
    """An agent that runs one task at a time, and bears a slow API."""
    daemon = ForkedAgent(tmp_path, api.url, slots_api=1, idle_s=60.0, drain_s=0.0)
    await daemon.start()
    yield daemon
    await daemon.stop()


async def drain(station: Workstation, inventory: Path, agent: Agent, arguments: str, *options: str) -> Done:
    """`ansible farm -m farmhand_drain -a ARGUMENTS`."""
    station.environment["ANSIBLE_CALLBACK_RESULT_FORMAT"] = "json"
    given = f"{arguments} socket={agent.socket}"
    return await station.run("ansible", "-i", str(inventory), "farm", "-m", "farmhand_drain", "-a", given, *options)


def answer(done: Done) -> dict[str, Any]:
    """The result that ansible printed for the one host."""
    text = done.out.decode()
    value: dict[str, Any] = json.loads(text[text.index("=> {") + 3 :])
    return value


async def in_service(agent: Agent) -> bool:
    """Whether the agent says that it takes new tasks; a drained one is seen to refuse one."""
    if (await agent.get("/v1/status"))["state"] == "running":
        return True
    status, said = await agent.call("POST", "/v1/tasks", body={"tasks": [{"id": "new", "prompt": "x"}]})
    assert (status, said["error"]["code"]) == (503, "draining")
    return False


async def test_out_of_service_and_back_each_once(workstation: Workstation, local_farm: Path, agent: Agent) -> None:
    checked = await drain(workstation, local_farm, agent, "wait_s=5", "--check", "--diff")
    assert answer(checked)["changed"] is True
    assert b"-drain: off" in checked.out
    assert b"+drain: queue" in checked.out
    assert await in_service(agent)

    first = await drain(workstation, local_farm, agent, "wait_s=5")
    assert (first.status, answer(first)["changed"], answer(first)["empty"]) == (0, True, True)
    assert not await in_service(agent)
    again = await drain(workstation, local_farm, agent, "wait_s=5", "--diff")
    assert (again.status, answer(again)["changed"], answer(again)["empty"]) == (0, False, True)
    assert b"-drain" not in again.out

    back = await drain(workstation, local_farm, agent, "mode=off")
    assert (answer(back)["changed"], answer(back)["before"]) == (True, "queue")
    assert await in_service(agent)
    assert answer(await drain(workstation, local_farm, agent, "mode=off", "--check"))["changed"] is False


async def test_a_queue_is_finished_with_the_key_from_the_controller(
    workstation: Workstation, local_farm: Path, agent: Agent
) -> None:
    await agent.submit({"id": "a", "prompt": "a"}, {"id": "b", "prompt": "b"}, key={})
    done = await drain(workstation, local_farm, agent, "wait_s=30", "-vvv")
    assert done.status == 0, done.out.decode() + done.err
    assert DEFAULT_KEY not in done.out.decode() + done.err
    for name in ("a", "b"):
        assert (await agent.get(f"/v1/tasks/{name}"))["task"]["state"] == "succeeded"


async def test_without_a_key_what_is_left_is_said_at_once(
    workstation: Workstation, local_farm: Path, agent: Agent
) -> None:
    await agent.submit({"id": "a", "prompt": "a"}, key={})
    (workstation.home / "repos.env").unlink()
    done = await drain(workstation, local_farm, agent, "wait_s=3600")
    assert done.status == 2
    message = answer(done)["msg"]
    assert "1 awaiting a key" in message
    assert "repos.env" in message
    assert "\n" not in message
    # The host stays out of service, and drains without the queue.
    rest = await drain(workstation, local_farm, agent, "mode=running wait_s=10")
    assert (rest.status, answer(rest)["left"]["awaiting_key"]) == (0, 1)


async def test_what_runs_may_end_and_what_is_queued_stays(
    workstation: Workstation, local_farm: Path, agent: Agent, api: MessagesApi
) -> None:
    api.state.event_s = 3.0
    await agent.submit({"id": "runs", "prompt": "x"}, {"id": "waits", "prompt": "y"})
    await agent.wait_state("runs", "running")
    late = await drain(workstation, local_farm, agent, "mode=running wait_s=0.1")
    assert late.status == 2
    assert answer(late)["msg"] == "not empty: 1 running, 1 queued after 0.1 s"
    assert b"farm1: 1 running, 1 queued; " in late.out
    api.state.event_s = 0.0
    done = await drain(workstation, local_farm, agent, "mode=running wait_s=60")
    assert (done.status, answer(done)["changed"], answer(done)["left"]["queued"]) == (0, False, 1)
    assert (await agent.get("/v1/tasks/runs"))["task"]["state"] == "succeeded"
    await drain(workstation, local_farm, agent, "mode=off")
    await agent.wait_state("waits", "succeeded")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [("mode=gently", "one of: off, queue, running"), ("wait_s=soon", "wait_s"), ("colour=red", "colour")],
)
async def test_failures_are_one_line(
    workstation: Workstation, local_farm: Path, agent: Agent, arguments: str, words: str
) -> None:
    done = await drain(workstation, local_farm, agent, arguments)
    assert done.status == 2
    assert words in answer(done)["msg"]
    assert "Traceback" not in done.out.decode() + done.err


async def test_a_host_without_agent(workstation: Workstation, local_farm: Path, agent: Agent) -> None:
    await agent.stop()
    done = await drain(workstation, local_farm, agent, "wait_s=5")
    assert answer(done)["error"]["code"] in {"agent_down", "agent_missing"}
