"""`farmhand doctor` and the gateway: none, one that runs, one that has ended; its servers, its secrets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from farmhand.cli import doctor
from farmhand.cli.checks import gateway as lines
from tests.support.gateway import FARMHAND, GatewayProcess
from tests.support.local_server import LLAMA, LocalServerPlay

OTHERS = [name for name in doctor.NAMES if name not in (*lines.NAMES, "environment")]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    async with GatewayProcess(tmp_path) as made:
        yield made


async def examine(gateway: GatewayProcess, **environ: str) -> dict[str, dict[str, Any]]:
    """The lines by name; hosts, which there are none of, count as another line."""
    skips = [part for name in OTHERS for part in ("--skip", name)]
    process = await asyncio.create_subprocess_exec(
        *(*FARMHAND, "doctor", "--json", *skips),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=gateway.environ | environ,
    )
    out, _ = await process.communicate()
    return {line["name"]: line for line in json.loads(out)["checks"]}


async def test_where_there_is_none_nothing_is_wrong(gateway: GatewayProcess) -> None:
    gateway.config.unlink()
    found = await examine(gateway)
    assert {found[name]["detail"] for name in lines.NAMES} == {"none is set up on this machine"}
    assert all(found[name]["ok"] for name in lines.NAMES)


async def test_one_that_runs_is_green_with_its_servers_and_their_context(gateway: GatewayProcess) -> None:
    async with LocalServerPlay(LLAMA).serve() as local:
        gateway.write(f'[local.one]\nurl = "{local.url}"\n')
        await gateway.start()
        await gateway.until_up("local:one")
        url = {"ANTHROPIC_BASE_URL": gateway.url, "ANTHROPIC_AUTH_TOKEN": gateway.token}
        found = await examine(gateway, **url)
        assert all(found[name]["ok"] for name in (*lines.NAMES, "environment")), found
        assert f"on 127.0.0.1:{gateway.port}, 0 turns open" in found["gateway"]["detail"]
        assert found["gateway-backends"]["detail"] == "local:one m, 4,096 tokens; subscription: off; metered: off"
        assert f"asks your gateway on 127.0.0.1:{gateway.port}" in found["environment"]["detail"]
        assert gateway.token not in json.dumps(found)


async def test_a_server_that_is_down_or_hides_its_context_is_red(gateway: GatewayProcess) -> None:
    async with LocalServerPlay({"/v1/models": {"data": [{"id": "m"}]}}).serve() as local:
        gateway.write(f'[local.one]\nurl = "{local.url}"\n[local.two]\nurl = "http://127.0.0.1:9"\n')
        await gateway.start()
        await gateway.until_up("local:one")
        line = (await examine(gateway))["gateway-backends"]
        assert line["ok"] is False
        assert "local:one (m): its context is not known" in line["detail"]
        assert "local:two: not running (connection refused, 127.0.0.1:9)" in line["detail"]
        assert "set context" in line["fix"]


async def test_one_that_has_ended_is_red_and_the_stale_address_is_named(gateway: GatewayProcess) -> None:
    await gateway.start()
    assert await gateway.stop() == 0
    found = await examine(gateway, ANTHROPIC_BASE_URL=gateway.url)
    assert found["gateway"]["ok"] is False
    assert "farmhand gateway serve" in found["gateway"]["fix"]
    assert found["gateway-backends"]["state"] == "left_out"
    assert f"nothing answers on 127.0.0.1:{gateway.port}; start the gateway" in found["environment"]["detail"]
    assert "unset ANTHROPIC_BASE_URL" in found["environment"]["fix"]
    unit = gateway.home / ".config/systemd/user/farmhand-gateway.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("")
    assert "systemctl --user start farmhand-gateway" in (await examine(gateway))["gateway"]["fix"]


async def test_secrets_that_others_can_read_are_red(gateway: GatewayProcess) -> None:
    await gateway.start()
    gateway.token_path.chmod(0o644)
    line = (await examine(gateway))["gateway-token"]
    assert (line["ok"], f"chmod 600 {gateway.token_path}" in line["fix"]) == (False, True)
    gateway.token_path.chmod(0o600)
    environment = gateway.config.with_name("gateway.env")
    environment.write_text("A_KEY=sk-ant-test-CANARY\n")
    environment.chmod(0o640)
    line = (await examine(gateway))["gateway-token"]
    assert (line["ok"], f"chmod 600 {environment}" in line["fix"]) == (False, True)
    assert "CANARY" not in json.dumps(line)
