"""What the Claude Code plugin adds to a session, part by part, and what farming 20 files saves it.

The first table compares the first requests of two sessions of the real CLI that say the same, without and with the
plugin. The second is from the test of 20 files, which also checks what it measures. Bytes are of the requests' bodies;
tokens are the loopback API's estimate by bytes.

    python -m benchmarks.plugin
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from typing import Any

from benchmarks.ground import ROOT, check
from tests.support.claude import claude_binary
from tests.support.farm.run import run
from tests.support.messages_api import DEFAULT_KEY, MessagesApi
from tests.support.messages_api.catalog import MODELS
from tests.support.messages_api.usage import tokens

TEST = "tests/integration/dispatch/test_plugin.py::test_a_session_farms_twenty_files_and_every_dollar_is_seen"
MODEL = "claude-opus-5-5"
_REMINDED = {"pluginConfigs": {"farmhand@inline": {"options": {"reminder": True}}}}
_ENVIRON = {
    "ANTHROPIC_API_KEY": DEFAULT_KEY,
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    # The first request waits for the tools.
    **{"MCP_CONNECTION_NONBLOCKING": "0", "MCP_CONNECT_TIMEOUT_MS": "120000", "MCP_TIMEOUT": "120000"},
}
#: Of whom a line of a request's text is, by what is in it.
_LINES = {
    "the server's instructions": ("## plugin:farmhand", "Farmhand runs "),
    "the skill, in the list of skills": ("- farmhand:",),
    "the reminder, if it is on, with each prompt": ("give them to farm_batch",),
}


async def _body(*options: str) -> dict[str, Any]:
    """The body of a session's first request."""
    with tempfile.TemporaryDirectory() as home:
        async with MessagesApi() as api:
            environ = {"PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}", "HOME": home, "ANTHROPIC_BASE_URL": api.url}
            process = await asyncio.create_subprocess_exec(
                *(str(claude_binary()), "-p", "Hello", "--model", MODEL, *options),
                env=_ENVIRON | environ,
                cwd=home,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
            )
            await process.wait()
            body: dict[str, Any] = json.loads(api.posts[0].body)
            return body


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def _parts(body: dict[str, Any]) -> dict[str, int]:
    """The bytes of the body's parts that are the plugin's."""
    contents = [message["content"] for message in body["messages"]]
    blocks = [block for one in contents for block in ([{"text": one}] if isinstance(one, str) else one)]
    lines = {line for block in blocks for line in block.get("text", "").splitlines()}
    tools = [tool for tool in body["tools"] if "_farmhand__" in tool["name"]]
    found = {f"descriptions and schemas of the {len(tools)} tools": _size(tools)}
    for name, words in _LINES.items():
        found[name] = sum(_size(line) for line in lines if any(word in line for word in words))
    return found


def overhead() -> None:
    """Print what each part adds to a request."""
    plugin = ("--plugin-dir", str(ROOT / "plugin"), "--settings", json.dumps(_REMINDED))
    without, with_it = asyncio.run(_body()), asyncio.run(_body(*plugin))
    print("| part | bytes | tokens, about |\n|---|---|---|")
    for name, size in (_parts(with_it) | {"all": _size(with_it) - _size(without)}).items():
        print(f"| {name} | {size:,} | {tokens(size, MODELS[MODEL]):,} |")


def saving() -> None:
    """Print what 20 files cost a session that reads them itself, and one that farms them."""
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", TEST]
    ran = check(run(argv, env=os.environ | {"FARMHAND_FIGURES": "1"}, cwd=ROOT, timeout_s=600.0))
    figures = json.loads(ran.stdout.partition("plugin: ")[2].splitlines()[0])
    print("\n| 20 files | tokens, about | US$ |\n|---|---|---|")
    for name, what in (
        ("alone", "a session that reads them itself"),
        ("session", "a session that farms them"),
        ("farm", "the 20 tasks on the farm"),
    ):
        print(f"| {what} | {figures[name]['tokens']:,} | {figures[name]['usd']} |")


if __name__ == "__main__":
    overhead()
    saving()
