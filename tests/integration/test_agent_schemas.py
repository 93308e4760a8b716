"""Schemas that mean harm, and answers that are too hard to check, against the real agent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import KEY, Agent
from tests.support.messages_api import DEFAULT_KEY, MessagesApi, Rule, Step
from tests.support.messages_api.rules import ToolUse

EVIL = {"type": "string", "pattern": "^(a+)+$"}


def workers(agent: Agent) -> list[int]:
    """The processes that check for the agent."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            mine = int((path.parent / "stat").read_text().rpartition(")")[2].split()[1]) == agent.pid
            if mine and b"core/schemas/worker.py" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def has_no_key(pid: int) -> None:
    """Look through all of a process's memory."""
    regions = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for region in regions:
            if "r" in region[1] and region[-1] not in ("[vvar]", "[vsyscall]", "[vvar_vclock]"):
                start, end = (int(part, 16) for part in region[0].split("-"))
                memory.seek(start)
                assert DEFAULT_KEY.encode() not in (memory.read(end - start) or b"")


def answers(api: MessagesApi, value: Any) -> None:
    api.rule(Rule(contains="hard", steps=[Step(tool_use=ToolUse(name="answer", input=value))]))


async def test_an_answer_that_takes_for_ever_is_paid_for_once_and_holds_up_nobody(
    agent: Agent, api: MessagesApi
) -> None:
    answers(api, {"answer": "a" * 40 + "!"})
    await agent.submit({"id": "one", "prompt": "hard", "schema": EVIL})
    result = asyncio.create_task(agent.result("one"))
    while not result.done():
        other = await agent.run(id=f"other-{len(api.posts)}", prompt="easy")
        assert other["state"] == "succeeded"
    one = await result
    assert (one["state"], one["error"]["code"], one["attempts"]) == ("failed", "schema_limit", 1)
    assert one["usage"]["requests"] == 1
    assert "10 s" in one["error"]["message"]
    assert one["error"]["hint"]


async def test_an_agent_with_nothing_to_check_has_no_process_for_it_and_none_has_the_key(
    agent: Agent, api: MessagesApi
) -> None:
    await agent.call("PUT", "/v1/key", headers=KEY)
    await agent.run(id="plain", prompt="hello")
    assert workers(agent) == []
    result = await agent.run(id="one", prompt="hello", schema={"type": "object", "properties": {"n": {}}})
    assert result["state"] == "succeeded"
    [worker, *_] = workers(agent)
    await asyncio.to_thread(has_no_key, worker)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"pattern": "("}, "'(' is not a 'regex'"),
        ({"$ref": "#/$defs/none"}, "not in it"),
        ({"required": [{"n": number} for number in range(4000)]}, "not a JSON Schema"),
        ({"description": "x" * 300_000}, "the limit is"),
        ({"type": "nothing"}, "not a JSON Schema"),
    ],
    ids=["pattern", "reference", "list", "long", "none"],
)
async def test_a_schema_that_cannot_be_used_is_refused_before_anything_is_paid(
    agent: Agent, api: MessagesApi, schema: dict[str, Any], says: str
) -> None:
    status, answer = await agent.call(
        "POST", "/v1/tasks", headers=KEY, body={"tasks": [{"id": "one", "prompt": "p", "schema": schema}]}
    )
    assert (status, answer["error"]["code"]) == (400, "invalid_schema")
    assert says in answer["error"]["message"]
    assert not api.posts


async def test_the_agent_ends_with_a_check_under_way(agent: Agent, api: MessagesApi) -> None:
    answers(api, {"answer": "a" * 40 + "!"})
    await agent.submit({"id": "one", "prompt": "hard", "schema": EVIL})
    for _ in range(2400):
        if api.posts and (busy := workers(agent)):
            break
        await asyncio.sleep(0.05)
    async with asyncio.timeout(120):
        assert await agent.stop() == 0
    for _ in range(2400):
        if not any(Path(f"/proc/{pid}").exists() for pid in busy):
            break
        await asyncio.sleep(0.05)
    else:
        raise AssertionError(busy)
