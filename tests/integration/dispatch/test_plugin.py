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

from farmhand.core.money import PICO_PER_USD, pico, usd
from farmhand.core.prices import price_table
from farmhand.core.task import Usage
from tests.integration.dispatch.conftest import CHECKOUT, Workstation
from tests.integration.dispatch.sshd import Sshd
from tests.integration.dispatch.test_cost import cost
from tests.integration.dispatch.test_subscription import TOKEN, log_in
from tests.support.claude import claude_binary
from tests.support.messages_api import DEFAULT_KEY, MessagesApi, Rule, Step, Windows
from tests.support.messages_api.log import Entry
from tests.support.messages_api.rules import ToolUse

TOOLS = "mcp__plugin_farmhand_farmhand__"
FILES = 20
ASKED = f"Summarise these {FILES} files in one sentence each"
#: What the CLI (2.1.330) itself leaves of any plugin: empty registers, and a copy that it deletes days later.
KEPT = {
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
        }
        log_in(station)

    async def claude(self, *arguments: str, path: str = "") -> str:
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
        assert process.returncode == 0 or "limit" in output.decode(), output.decode()
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
        """The CLI's files, with their content."""
        found = sorted(self.config.rglob("*"))
        return {str(path.relative_to(self.config)): path.read_bytes() if path.is_file() else None for path in found}


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
        names = (name for name in Usage.__struct_fields__ if isinstance(entry.usage.get(name), int))
        usage = Usage(**{name: entry.usage[name] for name in names})
        tokens += sum(entry.usage[name] for name in entry.usage if name.endswith("_tokens"))
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
    after = {name: what for name, what in operator.tree().items() if not name.startswith("backups")}
    [orphan] = [name for name in after if name.endswith("/.orphaned_at")]
    copy = str(Path(orphan).parents[2])
    assert copy == "plugins/cache/farmhand"
    left = {name: what for name, what in after.items() if not name.startswith(copy) and name not in before}
    assert {name: what and json.loads(what) for name, what in left.items()} == KEPT
    assert before.items() <= after.items()
