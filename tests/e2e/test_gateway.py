"""The real claude through the gateway, as it is. test_gateway_clients.py has all clients, with small prompts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.support.gateway import GatewayProcess
from tests.support.harness import claude
from tests.support.local_server import END, LLAMA, SSE, LocalServerPlay, delta

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
