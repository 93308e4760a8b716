"""The Claude Code plugin in the real CLI, on a made-up login: installed and removed by the CLI's own commands.

The loopback API stands for the provider, of the session (the login) as of the farm (the key). No model decides here:
what it would decide by, the descriptions of tools and skill, is read from the requests; the call itself is scripted.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from farmhand.core.money import pico, usd
from farmhand.core.prices import price_table
from farmhand.core.task import Usage
from tests.integration.dispatch.conftest import CHECKOUT, Workstation
from tests.integration.dispatch.sshd import Sshd
from tests.integration.dispatch.test_cost import cost
from tests.integration.dispatch.test_subscription import TOKEN, log_in
from tests.support.agent import Agent
from tests.support.claude import claude_binary
from tests.support.messages_api import DEFAULT_KEY, MessagesApi, Rule, Step, Windows
from tests.support.messages_api.log import Entry
from tests.support.messages_api.rules import ToolUse

TOOLS = "mcp__plugin_farmhand_farmhand__"
FILES = 20
ASKED = f"Summarise these {FILES} files in one sentence each"
#: What the CLI (2.1.330) itself leaves of any plugin: empty registers, and a copy that it deletes days later.
KEPT: dict[str, Any] = {
    "plugins": None,
    "plugins/cache": None,
    "plugins/data": None,
    "plugins/marketplaces": None,
    "plugins/installed_plugins.json": {"version": 2, "plugins": {}},
    "plugins/known_marketplaces.json": {},
    "settings.json": {"enabledPlugins": {}, "extraKnownMarketplaces": {}, "pluginConfigs": {}},
}


class Operator:
    """A workstation with a claude, a login and, in a directory with a space, the part of the checkout that counts."""

    def __init__(self, station: Workstation, api: MessagesApi, directory: Path) -> None:
        self.station = station
        self.config = station.home / ".claude"
        self.work = directory / "work"
        self.work.mkdir()
        self.checkout = directory / "Änderung 2/farmhand"
        for name in (".claude-plugin", "plugin"):
            shutil.copytree(CHECKOUT / name, self.checkout / name)
        station.environment |= {
            "ANTHROPIC_BASE_URL": api.url,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            # However busy the machine is, the first request waits for the tools.
            **{"MCP_CONNECTION_NONBLOCKING": "0", "MCP_CONNECT_TIMEOUT_MS": "120000", "MCP_TIMEOUT": "120000"},
        }
        log_in(station)

    async def claude(self, *arguments: str, path: str = "", status: int = 0) -> str:
        """Run the real CLI to its end, and return what it printed."""
        process = await asyncio.create_subprocess_exec(
            str(claude_binary()),
            *arguments,
            env=self.station.environment | ({"PATH": path} if path else {}),
            cwd=self.work,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 240)
        assert process.returncode == status, output.decode()
        return output.decode()

    async def install(self, *options: str) -> None:
        """Install the plugin as docs/plugin.md says."""
        await self.claude("plugin", "marketplace", "add", str(self.checkout))
        await self.claude("plugin", "install", "farmhand@farmhand", *options)

    async def remove(self) -> None:
        """Remove it as docs/plugin.md says."""
        await self.claude("plugin", "uninstall", "farmhand@farmhand")
        await self.claude("plugin", "marketplace", "remove", "farmhand")

    def tree(self) -> dict[str, bytes | None]:
        """The CLI's files, with their content; without its own backups."""
        found = {str(path.relative_to(self.config)): path for path in sorted(self.config.rglob("*"))}
        return {
            name: path.read_bytes() if path.is_file() else None
            for name, path in found.items()
            if not name.startswith("backups")
        }


@pytest.fixture
def operator(workstation: Workstation, api: MessagesApi, tmp_path: Path) -> Operator:
    api.state.keys = frozenset({DEFAULT_KEY, TOKEN})
    return Operator(workstation, api, tmp_path)


def of_login(entry: Entry) -> bool:
    """Whether a request carries the login and no key; else it carries the key and no login."""
    headers = {name.lower(): value for name, value in entry.headers.items()}
    found = (headers.get("authorization"), headers.get("x-api-key"))
    assert found in {(f"Bearer {TOKEN}", None), (None, DEFAULT_KEY)}
    return found[1] is None


def paid(entries: list[Entry]) -> tuple[int, int]:
    """All tokens of these requests, and what they cost by the price table, in pico-dollars."""
    tokens, whole = 0, 0
    for entry in entries:
        counted = {name: count for name, count in entry.usage.items() if isinstance(count, int)}
        tokens += sum(counted.values())
        kept = entry.usage["cache_creation"]["ephemeral_1h_input_tokens"]
        usage = Usage(**counted, cache_creation_1h_input_tokens=kept)
        whole += price_table().cost(entry.model, usage) or 0
    return tokens, whole


async def test_the_plugin_is_valid_and_leaves_as_it_came(operator: Operator) -> None:
    for part in (".", "plugin"):
        report = await operator.claude("plugin", "validate", str(operator.checkout / part), "--strict")
        assert "Validation passed" in report
    before = operator.tree()
    await operator.install("--config", "reminder=true")
    [listed] = json.loads(await operator.claude("plugin", "list", "--json"))
    assert (listed["id"], listed["enabled"], listed.get("errors")) == ("farmhand@farmhand", True, None)
    (operator.config / "plugins/data/farmhand-farmhand").mkdir(parents=True, exist_ok=True)
    (operator.config / "plugins/data/farmhand-farmhand/limit").touch()
    await operator.remove()
    after = operator.tree()
    [orphan] = [name for name in after if name.endswith("/.orphaned_at")]
    copy = str(Path(orphan).parents[2])
    assert copy == "plugins/cache/farmhand"
    left = {name: what for name, what in after.items() if not name.startswith(copy) and name not in before}
    assert {name: what and json.loads(what) for name, what in left.items()} == KEPT
    assert before.items() <= after.items()


@pytest.fixture
def project(operator: Operator, farm: Sshd, local_farm: Path, agent: Agent) -> Path:
    """A checkout of the operator's own, whose inventory has the farm's host; 20 files to work on."""
    directory = operator.work.parent / "project"
    directory.mkdir()
    for path in CHECKOUT.iterdir():
        if path.name not in (".git", ".cache", "inventory"):
            (directory / path.name).symlink_to(path)
    (directory / "inventory").mkdir()
    (directory / "inventory/farm.ini").write_text(f"{local_farm.read_text().strip()} farmhand_socket={agent.socket}\n")
    (operator.station.config_dir / "config.toml").write_text(f'project_dir = "{directory}"\n')
    for number in range(FILES):
        text = f"Report {number}. " + f"Stable {number} has {number + 3} cows, which eat hay. " * 80
        (operator.work / f"report-{number:02}.txt").write_text(text)
    return directory


async def farmed(operator: Operator, api: MessagesApi) -> tuple[list[Entry], str]:
    """Have a session with the plugin farm the files out; its requests, and its answer."""
    given = {"prompt": "Summarise in one sentence.", "files": ["report-*.txt"], "wait_s": 600}
    steps = [Step(tool_use=ToolUse(name=f"{TOOLS}farm_batch", input=given)), Step(text="All of them: {tool_result}")]
    api.rule(Rule(contains=ASKED, steps=steps))
    answer = await operator.claude("-p", ASKED, "--allowedTools", f"{TOOLS}farm_batch")
    api.state.rules.clear()
    return list(api.posts), answer


async def alone(operator: Operator, api: MessagesApi) -> list[Entry]:
    """Have a session without the plugin read the same files itself; its requests."""
    files = sorted(str(path) for path in operator.work.glob("report-*.txt"))
    reads = [ToolUse(name="Read", input={"file_path": file}) for file in files]
    api.rule(Rule(contains=ASKED, steps=[Step(tool_use=reads), Step(text="All of them.")]))
    await operator.claude("-p", ASKED, "--allowedTools", "Read")
    api.state.rules.clear()
    found = list(api.posts)
    api.state.log.clear()
    return found


def offered(entry: Entry) -> dict[str, str]:
    """The farm's tools that a request offers the model, with their descriptions."""
    tools = json.loads(entry.body)["tools"]
    return {tool["name"].removeprefix(TOOLS): tool["description"] for tool in tools if tool["name"].startswith(TOOLS)}


def lines(entry: Entry) -> list[str]:
    """The lines of text in a request's messages."""
    found = []
    for message in json.loads(entry.body)["messages"]:
        content = message["content"]
        blocks = [{"text": content}] if isinstance(content, str) else content
        found += [line for block in blocks for line in str(block.get("text", "")).splitlines()]
    return found


async def test_a_session_farms_twenty_files_and_every_dollar_is_seen(
    operator: Operator, project: Path, api: MessagesApi, capsys: pytest.CaptureFixture[str]
) -> None:
    without = await alone(operator, api)
    await operator.install()
    requests, answer = await farmed(operator, api)
    session, tasks = [one for one in requests if of_login(one)], [one for one in requests if not of_login(one)]
    # The login pays for the session, and the key for the tasks.
    assert (len(session), len(tasks)) == (2, FILES)
    assert {one.model for one in tasks} == {"claude-haiku-5-5"}
    assert all(f"Report {number}." in "".join(one.body for one in tasks) for number in range(FILES))
    # It answers from the results, and the files were never in it.
    assert answer.startswith("All of them: ")
    assert answer.count("Loopback answer to") == FILES
    assert "which eat hay" not in session[0].body
    # By these words a model decides: what the tools and the skill are for, and what not.
    assert set(offered(session[0])) == {
        f"farm_{name}" for name in ("batch", "cancel", "cost", "result", "status", "task")
    }
    assert "many easy, self-contained tasks" in offered(session[0])["farm_batch"]
    [skill] = [line for line in lines(session[0]) if line.startswith("- farmhand:")]
    assert "easy items" in skill
    assert "Not for design questions, decisions" in skill
    assert all(DEFAULT_KEY not in one.body for one in session)
    # Farm and session are priced as the API counted, to the pico-dollar.
    found = await cost(operator.station)
    farm_tokens, farm_pico = paid(tasks)
    session_tokens, session_pico = paid(session)
    alone_tokens, alone_pico = paid(without)
    assert pico(Decimal(found["spent"]["total_usd"])) == farm_pico
    assert found["whole"]["tasks"] == FILES
    assert pico(Decimal(found["interactive"]["estimate_usd"])) == session_pico + alone_pico
    # What the plugin adds to the first request, and what farming takes from the session: docs/plugin.md.
    added = session[0].size - without[0].size
    assert added < 8000
    assert session_tokens < alone_tokens
    figures = {
        "added_bytes": added,
        "session": {"tokens": session_tokens, "usd": str(usd(session_pico))},
        "farm": {"tokens": farm_tokens, "usd": str(usd(farm_pico))},
        "alone": {"tokens": alone_tokens, "usd": str(usd(alone_pico))},
    }
    with capsys.disabled():
        print(f"plugin: {json.dumps(figures)}") if os.environ.get("FARMHAND_FIGURES") else None


async def test_a_reached_limit_offers_the_farm_and_no_hook_holds_a_session_up(
    operator: Operator, api: MessagesApi
) -> None:
    await operator.install("--config", "reminder=true")
    api.state.windows = Windows(five_hour=1.0, resets_at=int(time.time()) + 3600)
    shown = ("--output-format", "stream-json", "--verbose")
    said = await operator.claude("-p", "Go on", *shown, status=1)
    assert "You've hit your 5-hour limit" in said
    assert "Your plan is at its limit" not in said
    said = await operator.claude("-p", "Go on", *shown, status=1)
    assert "! farmhand batch tasks.jsonl --out answers.jsonl" in said
    # The reminder is one line of the prompt's, once a prompt.
    [line] = [line for line in lines(api.posts[-1]) if "give them to farm_batch" in line]
    assert len(line) < 200
    # Where farmhand is not installed a session goes on as ever, and nothing is offered.
    api.state.windows = None
    bare = operator.work / "bin"
    bare.mkdir()
    for name in ("sh", "bash", "cat", "rm", "find", "head", "touch", "tr", "git"):
        (bare / name).symlink_to(shutil.which(name) or "/bin/false")
    answered = await operator.claude("-p", "x" * 100_000, path=str(bare))
    assert answered.startswith("Loopback answer to 100000 bytes")
    assert not offered(api.posts[-1])


async def test_the_cases_for_the_cli_s_own_evaluation_tell_both_apart(operator: Operator, api: MessagesApi) -> None:
    """A model that is scripted to farm everything passes one and fails the other: they are ready for a real one."""
    farm = ToolUse(name=f"{TOOLS}farm_batch", input={"prompt": "x", "files": ["none-*.txt"]})
    for asked in ("Summarise each of the 20 files", "Which design would you choose"):
        api.rule(Rule(contains=asked, steps=[Step(tool_use=farm), Step(text="Done.")]))
    options = ("--mocks", "off", "--ablation", "none", "--runs", "1", "--trust-plugin", "--no-publish")
    report = operator.work / "report.json"
    plugin = str(operator.checkout / "plugin")
    await operator.claude(
        "plugin", "eval", plugin, *options, "--allow-tools", farm.name, "--json", str(report), status=1
    )
    cases = {case["name"]: case["aggregates"]["score"] for case in json.loads(report.read_text())["cases"]}
    assert cases == {"easy-items": 1, "design-question": 0}
