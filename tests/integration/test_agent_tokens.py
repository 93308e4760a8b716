"""The daemon on bearer tokens: those of a federation, renewed under running tasks, and of a plan, with the real CLI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from farmhand.core.keys import fingerprint
from tests.integration.test_engine_cli import bash, sandboxes
from tests.support.agent import KEY, Agent
from tests.support.claude import claude_binary
from tests.support.forked import ForkedAgent
from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi, Rule, Step
from tests.support.sandboxes import Sandboxes

__all__ = ["sandboxes"]
FIRST, SECOND = "sk-ant-oat01-test-of-the-first-00000000", "sk-ant-oat01-test-of-the-second-0000000"
BEARER = {"X-Farmhand-Key": FIRST}
NAME = fingerprint(FIRST)


@pytest.fixture
async def bearer(tmp_path: Path, api: MessagesApi) -> AsyncIterator[Agent]:
    api.state.keys = frozenset({FIRST, SECOND, DEFAULT_KEY})
    daemon = ForkedAgent(tmp_path, api.url, idle_s=5.0, drain_s=5.0, credential="bearer")
    await daemon.start()
    yield daemon
    await daemon.stop()


@pytest.fixture
async def plan(tmp_path: Path, api: MessagesApi, sandboxes: Sandboxes) -> AsyncIterator[Agent]:
    api.state.keys = frozenset({FIRST})
    about = {"claude_path": str(claude_binary()), "sandbox_spares": 0, "slots_cli": 1, "credential": "plan"}
    daemon = ForkedAgent(tmp_path, api.url, idle_s=6.0, **about)
    await daemon.start()
    yield daemon
    await daemon.stop()


def sent(api: MessagesApi) -> list[dict[str, str]]:
    return [{name.lower(): value for name, value in post.headers.items()} for post in api.posts]


async def renew(agent: Agent, token: str, name: str = NAME) -> tuple[int, dict[str, object]]:
    status, answer = await agent.call("PUT", f"/v1/key?renews={name}", headers={"X-Farmhand-Key": token})
    return status, answer


async def test_a_bearer_goes_with_its_beta_and_never_beside_a_key(bearer: Agent, api: MessagesApi) -> None:
    await bearer.submit({"id": "one", "prompt": "hello"}, key=BEARER)
    assert (await bearer.result("one"))["state"] == "succeeded"
    [headers] = sent(api)
    assert headers["authorization"] == f"Bearer {FIRST}"
    assert "oauth-2025-04-20" in headers["anthropic-beta"].split(",")
    assert "x-api-key" not in headers
    status, answer = await bearer.call("PUT", "/v1/key", headers=KEY)
    assert (status, answer["error"]["code"]) == (400, "bad_key")
    assert "that is an API key" in answer["error"]["message"]


async def test_a_token_is_swapped_under_running_tasks_and_no_request_is_lost(bearer: Agent, api: MessagesApi) -> None:
    api.state.latency_s = 0.3
    tasks = [{"id": f"t{n}", "prompt": "hello"} for n in range(64)]
    await bearer.submit(*tasks, key=BEARER)
    await asyncio.sleep(0.4)
    assert (await renew(bearer, SECOND))[0] == 200
    # From now on the old one is refused: also requests that are on their way with it.
    api.state.keys = frozenset({SECOND})
    for task in tasks:
        result = await bearer.result(task["id"])
        assert (result["state"], result["attempts"]) == ("succeeded", 1)
    assert {headers["authorization"] for headers in sent(api)} == {f"Bearer {FIRST}", f"Bearer {SECOND}"}
    [key] = (await bearer.get("/v1/status"))["keys"]
    assert key["fingerprint"] == NAME


async def test_a_refused_token_s_tasks_go_on_when_it_is_renewed(bearer: Agent, api: MessagesApi) -> None:
    api.state.keys = frozenset({SECOND})
    await bearer.submit({"id": "one", "prompt": "hello"}, key=BEARER)
    await bearer.wait_state("one", "awaiting_key")
    status, answer = await renew(bearer, SECOND)
    assert (status, answer["fingerprint"], answer["tasks_resumed"]) == (200, NAME, 1)
    assert (await bearer.result("one"))["state"] == "succeeded"


@pytest.mark.parametrize("name", ["nothing", "0" * 11, "' OR 1"])
async def test_what_is_renewed_is_named_by_its_fingerprint(bearer: Agent, name: str) -> None:
    from urllib.parse import quote

    assert (await renew(bearer, SECOND, quote(name)))[0] == 400


async def test_a_metered_key_is_not_renewed(agent: Agent) -> None:
    status, answer = await agent.call("PUT", f"/v1/key?renews={NAME}", headers=KEY)
    assert (status, answer["error"]["code"]) == (400, "bad_key")


async def test_the_real_cli_runs_on_a_plan_s_token_that_its_sandbox_never_has(plan: Agent, api: MessagesApi) -> None:
    script = "env; cat /proc/$PPID/environ | tr '\\0' '\\n'; find $HOME -name '.credentials.json'"
    api.rule(Rule(contains="dump", steps=[bash(script), Step(text="{tool_result}")]))
    await plan.submit({"id": "one", "prompt": "dump", "tools": ["Bash"]}, key=BEARER)
    result = await plan.result("one")
    assert result["state"] == "succeeded", result
    assert "CLAUDE_CODE_OAUTH_TOKEN=jt-" in result["text"]
    assert "ANTHROPIC_API_KEY" not in result["text"]
    assert "sk-ant" not in result["text"]
    for headers in sent(api):
        assert headers["authorization"] == f"Bearer {FIRST}"
        assert "oauth-2025-04-20" in headers["anthropic-beta"].split(",")
        assert headers["anthropic-beta"].count("oauth-2025-04-20") == 1
        assert "x-api-key" not in headers
        assert headers["user-agent"].startswith("claude-cli/")
    assert "asks for the beta" not in plan.log.read_text()
    assert result["usage"]["requests"] == 2


@pytest.mark.parametrize("model", ["haiku", "sonnet", "opus"])
async def test_the_cli_says_who_it_is_as_the_api_wants_it_of_a_plan(plan: Agent, api: MessagesApi, model: str) -> None:
    """The API sees by the system prompt that it is Claude Code: sudocode#15, claude-code#24198."""
    await plan.submit({"id": "one", "prompt": "hello", "engine": "cli", "model": model}, key=BEARER)
    assert (await plan.result("one"))["state"] == "succeeded"
    system = json.loads(api.posts[0].body)["system"]
    text = system if isinstance(system, str) else "\n".join(block["text"] for block in system)
    assert "Claude" in text


async def test_the_engine_api_never_runs_on_a_plan(plan: Agent, api: MessagesApi) -> None:
    status, answer = await plan.call(
        "POST", "/v1/tasks", headers=BEARER, body={"tasks": [{"id": "one", "prompt": "hello"}]}
    )
    assert (status, answer["error"]["code"]) == (403, "subscription_cli_only")
    assert not api.posts


async def test_the_plan_s_own_limit_ends_the_task_with_the_api_s_words(plan: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="status", status=401, message="OAuth token has expired", count=-1))
    await plan.submit({"id": "one", "prompt": "hello", "engine": "cli"}, key=BEARER)
    task = await plan.wait_state("one", "awaiting_key")
    assert task["attempts"] == 0
    [wait] = (await plan.get("/v1/status"))["waiting"]
    assert "OAuth token has expired" in wait["detail"]
