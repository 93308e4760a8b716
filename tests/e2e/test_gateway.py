"""The real claude through the gateway, as it is. test_gateway_clients.py has all clients, with small prompts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.support.gateway import GatewayProcess
from tests.support.harness import claude
from tests.support.local_server import END, LLAMA, SSE, LocalServerPlay, delta
from tests.support.messages_api import DEFAULT_KEY, MessagesApi, Rule, Step
from tests.support.messages_api.rules import ToolUse
from tests.support.paid import VARIABLE, billed, charges
from tests.support.paid import settings as paid_settings

PROMPT = "Make the file."


async def test_all_that_claude_sends_by_itself_can_be_carried(tmp_path: Path) -> None:
    """Its own system prompt and all its tools: 17,000 tokens, which the scripted model would read for minutes."""

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + delta("Carried.") + END)
        await writer.drain()

    async with LocalServerPlay(LLAMA, play).serve() as local:
        settings = f'[local.play]\nurl = "{local.url}"\ncontext = 200000\n'
        async with GatewayProcess(tmp_path, settings) as gateway:
            await gateway.start()
            await gateway.until_up("local:play")
            ran = await claude.ask(gateway, PROMPT, tmp_path / "work", ())
            assert (ran.status, ran.out.strip()) == (0, "Carried."), ran
            turns = (await gateway.status())["turns"]
            assert {(row["backend"], row["outcome"]) for row in turns} == {("local:play", "done")}
            body = json.loads(local.turns[0])
            assert len(body["tools"]) > 5
            assert len(local.turns[0]) > 30_000
            assert b"x-anthropic-billing-header" not in b"".join(local.turns)


async def test_claude_works_a_tool_loop_that_is_paid_for_within_its_limits(tmp_path: Path) -> None:
    """Its own limit of output is too dear for a turn: it is told one that fits, and asks again with that."""
    steps = [
        Step(tool_use=ToolUse(name="Bash", input={"command": "printf paid > made.txt", "description": "Make it"})),
        Step(text="The file is made."),
    ]
    more = 'max_usd_per_turn = "0.01"'
    async with MessagesApi() as api, GatewayProcess(tmp_path, paid_settings(api, more=more)) as gateway:
        api.rule(Rule(contains=PROMPT, steps=steps))
        gateway.environ[VARIABLE] = DEFAULT_KEY
        await gateway.start()
        ran = await claude.ask(gateway, PROMPT, tmp_path / "work")
        assert (ran.status, "The file is made." in ran.out) == (0, True), ran
        assert (tmp_path / "work" / "made.txt").read_text() == "paid"
        turns = {row["outcome"]: row["turns"] for row in (await gateway.status())["turns"]}
        await gateway.stop()
        posts = [entry for entry in api.posts if entry.path == "/v1/messages"]
        assert {entry.status for entry in posts} == {200}
        assert turns["done"] == len(posts)
        assert turns.get("refused", 0) >= 1
        assert all(json.loads(entry.body)["max_tokens"] < 20_000 for entry in posts)
        rows = charges(gateway.database)
        assert sum(row["pico"] for row in rows) == sum(billed(entry) for entry in posts)
        assert {row["held"] for row in rows} == {0}
