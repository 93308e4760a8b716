"""Real clients, each set up by its recipe, through one gateway: with a local model, and without one.

docs/gateway.md has a table of what is seen here, and each row of it is checked.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.gateway import GatewayProcess, free_port
from tests.support.harness import aider, claude, codex, continue_cli, llm, opencode, pi
from tests.support.harness.run import Ran
from tests.support.llama_server import LlamaServer
from tests.support.local_server import END, LLAMA, SSE, LocalServerPlay, Play, delta
from tests.support.scripted_gguf import tool_call

pytestmark = pytest.mark.asyncio(loop_scope="module")
DOCS = (Path(__file__).parents[2] / "docs/gateway.md").read_text("utf-8")
PROMPT = "Make the file."
MADE = "printf scripted > made.txt"
SAID = ["The file ", "is ", "made."]
ADVICE = "Farmhand kept this turn from being paid for."
#: What advice is in each dialect, and how docs/gateway.md writes its name.
STATUS = {"messages": 402, "chat": 400, "responses": 400}
NAMES = {"messages": "Messages", "chat": "Chat", "responses": "Responses"}


@dataclass(frozen=True)
class Client:
    """A client: how it is asked, in which dialect it asks, and what a model says that works for it."""

    ask: Callable[[GatewayProcess, str, Path], Awaitable[Ran]]
    version: str
    dialect: str
    #: llama.cpp lets a call have what the tool's schema has, and in its order: another key would be replaced by chance.
    script: list[str]
    #: What it shows at the end.
    shows: str = "".join(SAID)
    #: The classes of the requests of one turn without a backend.
    asks: tuple[str, ...] = ("agent",)


BASH = tool_call("bash", {"command": MADE})
CLIENTS = {
    "claude": Client(claude.ask, claude.VERSION, "messages", tool_call("Bash", {"command": MADE})),
    "pi": Client(pi.ask, pi.VERSION, "chat", BASH),
    "pi, anthropic-messages": Client(partial(pi.ask, api="anthropic-messages"), pi.VERSION, "messages", BASH),
    "pi, openai-responses": Client(partial(pi.ask, api="openai-responses"), pi.VERSION, "responses", BASH),
    "codex": Client(codex.ask, codex.VERSION, "responses", tool_call("exec_command", {"cmd": MADE})),
    "opencode": Client(opencode.ask, opencode.VERSION, "chat", BASH, asks=("chat", "agent")),
    "Continue (cn)": Client(continue_cli.ask, continue_cli.VERSION, "chat", tool_call("Bash", {"command": MADE})),
    "aider": Client(
        aider.ask,
        aider.VERSION,
        "chat",
        ["made.txt\n", "```\n", "scripted", "\n```"],
        shows="Applied edit to made.txt",
        asks=("chat",),
    ),
    "llm": Client(llm.ask, llm.VERSION, "chat", SAID, asks=("chat",)),
}


class Shared:
    """A gateway for all tests of this file, and what it decided since it was last asked."""

    def __init__(self, gateway: GatewayProcess, port: int = 0) -> None:
        self.gateway = gateway
        #: The local server's.
        self.port = port
        self._seen: set[str] = set()

    async def decisions(self, least: int) -> list[dict[str, Any]]:
        """Every POST of a turn that passes the guard is one. The ledger is written a moment later."""
        headers = {"X-Farmhand-Control": "1"}
        for _ in range(600):
            _, _, found = await self.gateway.call("GET", "/farmhand/v1/decisions", headers=headers)
            new = [one for one in found["decisions"] if one["id"] not in self._seen]
            if len(new) >= least:
                break
            await asyncio.sleep(0.1)
        self._seen |= {one["id"] for one in new}
        return new


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alone(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shared]:
    """A gateway without a backend."""
    home = tmp_path_factory.mktemp("alone")
    async with GatewayProcess(home) as gateway:
        gateway.watch_connections()
        await gateway.start()
        yield Shared(gateway)
        assert gateway.connections() == []
        assert await gateway.stop() == 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def local(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shared]:
    """A gateway with the real llama.cpp, which each test starts with a script of its own."""
    home, port = tmp_path_factory.mktemp("local"), free_port()
    async with GatewayProcess(home, f'[local.real]\nurl = "http://127.0.0.1:{port}"\n') as gateway:
        gateway.watch_connections()
        await gateway.start()
        yield Shared(gateway, port)
        status, out, _ = await gateway.command("explain", "--last", "--json")
        assert (status, json.loads(out)["decision"]["backend"]) == (0, "local:real")
        connected = {line for line in gateway.connections() if "connect" in line}
        assert {line.partition("('")[2].rstrip(")") for line in connected} == {f"127.0.0.1', {port}"}
        assert await gateway.stop() == 0


@pytest.mark.parametrize("name", CLIENTS)
async def test_it_works_on_a_local_model(local: Shared, name: str, tmp_path: Path) -> None:
    client, work = CLIENTS[name], tmp_path / "work"
    async with LlamaServer(tmp_path).script(client.script, SAID).running(local.port):
        await local.gateway.until_up("local:real")
        ran = await client.ask(local.gateway, PROMPT, work)
        assert ran.status == 0, ran
        assert client.shows in ran.text
        if name != "llm":
            assert (work / "made.txt").read_text().strip() == "scripted"
        # A client with tools asks for the call, and for the answer to its result.
        asks = (*client.asks, "agent") if "agent" in client.asks else client.asks
        made = await local.decisions(len(asks))
        assert Counter(one["facts"]["work_class"] for one in made) == Counter(asks)
        assert {(one["backend"], one["facts"]["dialect"]) for one in made} == {("local:real", client.dialect)}


@pytest.mark.parametrize("name", CLIENTS)
async def test_advice_is_asked_for_once_and_shown(alone: Shared, name: str, tmp_path: Path) -> None:
    client, work = CLIENTS[name], tmp_path / "work"
    ran = await client.ask(alone.gateway, PROMPT, work)
    shown = " ".join(ran.text.split())
    assert ADVICE in shown, ran
    assert "Set up a local server in gateway.toml" in shown
    await _check(alone, name, client.version, client.dialect, client.asks)
    assert not (work / "made.txt").exists()


async def test_advice_is_on_the_screen_of_claude(alone: Shared, tmp_path: Path) -> None:
    """Its full screen, beside the request for a title."""
    ran = await claude.on_screen(alone.gateway, PROMPT, tmp_path / "work", "Set up a local server in gateway.toml")
    assert ADVICE in ran.out
    await _check(alone, "claude, full screen", claude.VERSION, "messages", ("chat", "agent"))


async def _check(alone: Shared, name: str, version: str, dialect: str, asks: tuple[str, ...]) -> None:
    """The requests are those of the table's row."""
    made = await alone.decisions(len(asks))
    assert Counter(one["facts"]["work_class"] for one in made) == Counter(asks)
    assert {(one["backend"], one["facts"]["dialect"]) for one in made} == {("", dialect)}
    posts = "1" if len(asks) == 1 else "2, one for a title"
    assert f"| {name} | {version} | {NAMES[dialect]} | {STATUS[dialect]} | {posts} | yes |" in DOCS


#: Switches of codex that its recipe sets → what the refusal says if they are set otherwise.
SWITCHES = {
    "agents.enabled=true": ("is a group of tools", "Codex: [agents] enabled = false"),
    'web_search="live"': ("is a tool that runs at the provider", 'Codex: web_search = \\"disabled\\"'),
}


@asynccontextmanager
async def playing(home: Path, play: Play) -> AsyncIterator[tuple[GatewayProcess, LocalServerPlay]]:
    """A gateway before a local server that behaves as the real one does only by chance."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(LocalServerPlay(dict(LLAMA), play).serve())
        settings = f'[local.play]\nurl = "{server.url}"\ncontext = 200000\n'
        gateway = await stack.enter_async_context(GatewayProcess(home, settings))
        await gateway.start()
        await gateway.until_up("local:play")
        yield gateway, server


async def test_codex_is_told_which_switch_a_refusal_is_about(tmp_path: Path) -> None:
    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + delta("Carried.") + END)
        await writer.drain()

    async with playing(tmp_path, play) as (gateway, server):
        for switch, words in SWITCHES.items():
            ran = await codex.ask(gateway, PROMPT, tmp_path / "work", (*codex.LEAN, "-c", switch))
            assert ran.status != 0
            assert [one for one in words if one not in ran.text] == [], ran
        assert server.turns == []


async def test_codex_knows_a_prompt_that_is_too_long(tmp_path: Path) -> None:
    """By the error's code: it asks once, and says what to do in its own words."""

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        error = {"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 15024, "n_ctx": 4096}
        body = json.dumps({"error": error | {"message": "it is too large"}}).encode()
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()

    async with playing(tmp_path, play) as (gateway, server):
        ran = await codex.ask(gateway, PROMPT, tmp_path / "work")
        assert "ran out of room in the model's context window" in ran.text, ran
        assert len(server.turns) == 1


async def test_a_client_that_asks_again_after_a_crash_is_told_so(tmp_path: Path) -> None:
    """A server error is worth another request. By then the server is known to be gone, so that is advice: the end."""

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        local.answers.clear()
        writer.close()

    async with playing(tmp_path, play) as (gateway, server):
        ran = await opencode.ask(gateway, PROMPT, tmp_path / "work")
        assert ADVICE in ran.text, ran
        assert "local play: answers HTTP 404" in ran.text
        assert len(server.turns) <= 2  # the title's, and the turn's own if it came before that had failed
