"""The guard and the real gateway: what real shells and the doctor say of it while it runs, and after it has ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from farmhand.billing import Report, find
from tests.support.gateway import GatewayProcess
from tests.support.shells import Home

SHELLS = {"bash": ".bashrc", "zsh": ".zshrc", "fish": ".config/fish/config.fish"}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    async with GatewayProcess(tmp_path / "home") as made:
        yield made


@pytest.fixture
def home(gateway: GatewayProcess) -> Home:
    made = Home(gateway.home)
    made.stub()
    return made


def recipe(gateway: GatewayProcess, shell: str) -> str:
    """The lines of `farmhand gateway connect claude`, as an operator would put them into a start-up file."""
    values = {"ANTHROPIC_BASE_URL": gateway.url, "ANTHROPIC_AUTH_TOKEN": f"$(cat {gateway.token_path})"}
    if shell == "fish":
        return "".join(f"set -gx {name} {value.replace('$(', '(')}\n" for name, value in values.items())
    return "".join(f'export {name}="{value}"\n' for name, value in values.items())


async def ask(home: Home) -> Report:
    environ = {"PATH": home.environment["PATH"], "HOME": str(home.path), "LANG": "C.UTF-8"}
    return await asyncio.to_thread(find, home.path, environ, home.project, ask=False, limit_s=60.0)


async def test_in_real_shells_it_is_ours_while_it_runs_and_stale_afterwards(
    gateway: GatewayProcess, home: Home
) -> None:
    await gateway.start()
    home.put({file: recipe(gateway, shell) for shell, file in SHELLS.items()})
    found = await ask(home)
    asked = {verdict.kind: verdict for verdict in found.verdicts}
    for kind in ("bash interactive", "zsh interactive", "fish interactive"):
        assert (asked[kind].billed, asked[kind].gateway) == ("gateway", gateway.url.removeprefix("http://")), found
    assert not found.metered
    assert found.reaching == []
    assert await gateway.stop() == 0
    found = await ask(home)
    line = found.line()
    for file in SHELLS.values():
        assert f"ANTHROPIC_BASE_URL in {home.path / file}:1 (nothing answers on 127.0.0.1:{gateway.port}" in line
    assert "farmhand gateway serve" in line
    assert gateway.token not in line + json.dumps(found.as_dict())


async def test_in_the_cli_s_settings_it_is_ours_while_it_runs_and_stale_afterwards(
    gateway: GatewayProcess, home: Home
) -> None:
    await gateway.start()
    env = {"ANTHROPIC_BASE_URL": gateway.url, "ANTHROPIC_AUTH_TOKEN": gateway.token}
    home.put({".bashrc": "# nothing\n", ".claude/settings.json": json.dumps({"env": env}, indent=1)})
    found = await ask(home)
    assert {verdict.billed for verdict in found.verdicts if verdict.shell == "bash"} == {"gateway"}
    assert await gateway.stop() == 0
    assert f"settings.json:3 (nothing answers on 127.0.0.1:{gateway.port}" in (await ask(home)).line()
