"""The real claude and the real pi through the gateway: with a local model, and without one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.harness import claude, pi
from tests.support.harness.run import Ran
from tests.support.llama_server import LlamaServer
from tests.support.local_server import END, LLAMA, SSE, LocalServerPlay, delta
from tests.support.messages_api import DEFAULT_KEY, MessagesApi, Rule, Step
from tests.support.messages_api.rules import ToolUse
from tests.support.paid import VARIABLE, billed, charges
from tests.support.paid import settings as paid_settings
from tests.support.scripted_gguf import tool_call

Ask = Callable[[GatewayProcess, str, Path], Awaitable[Ran]]
#: Harness → how it is asked, and the name of its tool for the shell.
HARNESSES: dict[str, tuple[Ask, str]] = {"claude": (claude.ask, "Bash"), "pi": (pi.ask, "bash")}
PROMPT = "Make the file."


@pytest.mark.parametrize("harness", HARNESSES)
async def test_a_harness_works_a_tool_loop_on_a_local_model(tmp_path: Path, harness: str) -> None:
    ask, tool = HARNESSES[harness]
    # llama.cpp lets a call have what the tool's schema has, and in its order: another key would be replaced by chance.
    call = tool_call(tool, {"command": "printf scripted > made.txt"})
    server = LlamaServer(tmp_path).script(call, ["The file ", "is ", "made."])
    await server.start()
    try:
        async with GatewayProcess(tmp_path, f'[local.real]\nurl = "{server.url}"\n') as gateway:
            gateway.watch_connections()
            await gateway.start()
            await gateway.until_up("local:real")
            ran = await ask(gateway, PROMPT, tmp_path / "work")
            assert ran.status == 0, ran
            assert "The file is made." in ran.out
            assert (tmp_path / "work" / "made.txt").read_text() == "scripted"
            turns = (await gateway.status())["turns"]
            assert [(row["work_class"], row["backend"], row["outcome"]) for row in turns] == [
                ("agent", "local:real", "done")
            ]
            assert turns[0]["turns"] == 2  # the call, and the answer to its result
            status, out, _ = await gateway.command("explain", "--last", "--json")
            assert (status, json.loads(out)["decision"]["backend"]) == (0, "local:real")
            address = server.url.removeprefix("http://").replace(":", "', ")
            connected = [line for line in gateway.connections() if "connect" in line]
            assert {line.partition("('")[2].rstrip(")") for line in connected} == {address}
            await gateway.stop()
    finally:
        await server.stop()


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


@pytest.mark.parametrize("harness", HARNESSES)
async def test_without_a_local_model_a_turn_is_asked_once_and_nobody_is_paid(tmp_path: Path, harness: str) -> None:
    ask, _ = HARNESSES[harness]
    async with GatewayProcess(tmp_path) as gateway:
        gateway.watch_connections()
        await gateway.start()
        ran = await ask(gateway, PROMPT, tmp_path / "work")
        assert "Farmhand kept this turn from being paid for." in ran.text
        assert "Set up a local server in gateway.toml" in ran.text
        # Every POST of a turn that passes the guard is counted.
        turns = (await gateway.status())["turns"]
        assert [(row["outcome"], row["turns"]) for row in turns] == [("advice", 1.0)]
        assert gateway.connections() == []
        assert list((tmp_path / "work").iterdir()) == []
        await gateway.stop()


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
