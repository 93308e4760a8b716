"""`farmhand mcp` started by the real claude, pi and codex, each set up by its own command, with a farm behind it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.integration.dispatch.conftest import Workstation
from tests.integration.dispatch.sshd import Sshd
from tests.support.claude import claude_binary
from tests.support.harness.run import LOCKS, Ran, run
from tests.support.messages_api import DEFAULT_KEY, MessagesApi
from tests.support.messages_api.rules import Rule, Step, ToolUse
from tests.support.node import installed, node

TASK = {"prompt": "Name a barn cat", "label": "cat"}
#: claude alone need not look for a tool first: docs/mcp.md.
CLAUDE_SERVER = json.dumps({"type": "stdio", "command": "farmhand", "args": ["mcp"], "alwaysLoad": True})
PI_MODEL: dict[str, Any] = {
    "id": "claude-sonnet-5-5",
    "name": "s",
    "contextWindow": 200000,
    "maxTokens": 4096,
    "input": ["text"],
}


@pytest.fixture
def farming(workstation: Workstation, farm: Sshd, api: MessagesApi) -> Workstation:
    """The workstation; whoever asks to "farm it out" is told to call the tool, and then says what it said."""
    call = Step(tool_use=ToolUse(name="mcp__farmhand__farm_task", input=TASK))
    api.state.rules.add(Rule(contains="farm it out", steps=[call, Step(text="The farm said: {tool_result}")]))
    return workstation


async def at(station: Workstation, *argv: str, **more: str) -> Ran:
    """Run a client in a directory of the operator's."""
    return await run([*argv], station.home, station.home / "work", station.environment | more)


def check(ran: Ran, api: MessagesApi) -> None:
    """The tool was called, and its answer came back."""
    assert ran.status == 0, ran
    assert "The farm said: " in ran.text, ran
    assert "claude-haiku-5-5 · US$ 0.0000" in ran.text, ran
    assert "Loopback answer to 15 bytes" in ran.text
    assert TASK["prompt"] in [json.loads(post.body)["messages"][-1]["content"] for post in api.posts]


async def test_claude_calls_it(farming: Workstation, api: MessagesApi) -> None:
    claude = str(claude_binary())
    quiet = {"DISABLE_AUTOUPDATER": "1", "IS_SANDBOX": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
    quiet |= {"ANTHROPIC_BASE_URL": api.url, "ANTHROPIC_API_KEY": DEFAULT_KEY, "MCP_CONNECT_TIMEOUT_MS": "120000"}
    added = await at(farming, claude, "mcp", "add-json", "-s", "user", "farmhand", CLAUDE_SERVER, **quiet)
    assert added.status == 0, added
    ran = await at(farming, claude, "-p", "--allowedTools", "mcp__farmhand__farm_task", "--", "farm it out", **quiet)
    check(ran, api)
    offered = {tool["name"] for post in api.posts for tool in json.loads(post.body).get("tools", [])}
    assert {"mcp__farmhand__farm_task", "mcp__farmhand__farm_batch", "mcp__farmhand__farm_result"} <= offered


async def test_pi_calls_it(farming: Workstation, api: MessagesApi) -> None:
    script = installed(LOCKS / "pi") / "node_modules/@earendil-works/pi-coding-agent/dist/bundle/cli.js"
    pi = (str(node((22, 19, 0))), str(script))
    added = await at(farming, *pi, "mcp", "add", "farmhand", "--exposure", "direct", "--", "farmhand", "mcp")
    assert added.status == 0, added
    provider = {"baseUrl": api.url, "api": "anthropic-messages", "apiKey": DEFAULT_KEY, "models": [PI_MODEL]}
    (farming.home / ".pi/agent/models.json").write_text(json.dumps({"providers": {"farm": provider}}))
    # It waits 10 s for a server at most, and goes on without it: this machine may be slower than that.
    for _ in range(5):
        lean = ("--offline", "--no-session", "--no-skills", "--no-context-files", "--system-prompt", "Work.")
        ran = await at(farming, *pi, "-p", *lean, "--provider", "farm", "--model", PI_MODEL["id"], "farm it out")
        if "The farm said" in ran.text:
            break
    check(ran, api)


@asynccontextmanager
async def responses() -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """What codex needs of a Responses API: it is told to call the tool, and then says what it said."""
    turns: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        turns.append(await request.json())
        said = [item["output"] for item in turns[-1]["input"] if item.get("type") == "function_call_output"]
        call = {"type": "function_call", "id": "f", "call_id": "c", "name": "farm_task", "namespace": "mcp__farmhand"}
        item: dict[str, Any] = call | {"arguments": json.dumps(TASK)}
        if said:
            content = [{"type": "output_text", "text": f"The farm said: {json.dumps(said[-1], ensure_ascii=False)}"}]
            item = {"type": "message", "id": "m", "role": "assistant", "content": content}
        usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": {"id": "r"}},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": {"id": "r", "usage": usage}},
        ]
        text = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
        return web.Response(text=text, content_type="text/event-stream")

    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/responses", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", turns
    finally:
        await runner.cleanup()


async def test_codex_calls_it(farming: Workstation, api: MessagesApi) -> None:
    (codex,) = (installed(LOCKS / "codex") / "node_modules/@openai").glob("codex-*/vendor/*/bin/codex")
    added = await at(farming, str(codex), "mcp", "add", "farmhand", "--", "farmhand", "mcp")
    assert added.status == 0, added
    config = farming.home / ".codex/config.toml"
    async with responses() as (url, turns):
        model = f'model = "m"\nmodel_provider = "p"\n[model_providers.p]\nname = "p"\nbase_url = "{url}"\n'
        model += 'wire_api = "responses"\nenv_key = "P_KEY"\n'
        server = "[mcp_servers.farmhand]\n"
        # docs/mcp.md: else it does not wait for the server.
        wait = f"{server}required = true\nstartup_timeout_sec = 120\n"
        config.write_text(model + config.read_text().replace(server, wait))
        lean = ("--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "-c", "project_doc_max_bytes=0")
        check(await at(farming, str(codex), "exec", *lean, "farm it out", P_KEY="x"), api)
    [offered] = [tool for tool in turns[0]["tools"] if tool.get("name") == "mcp__farmhand"]
    assert len(offered["tools"]) == 6
