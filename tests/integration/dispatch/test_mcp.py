"""`farmhand mcp` with the official client, the real ssh, sshd and daemon, and the loopback API."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.dispatch.conftest import Workstation, received
from tests.integration.dispatch.sessions import id_in, session
from tests.integration.dispatch.sshd import Sshd
from tests.support.messages_api import MessagesApi


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_task_is_answered_with_its_cost_and_model(
    workstation: Workstation, farm: Sshd, api: MessagesApi, tmp_path: Path, mode: str
) -> None:
    async with session(workstation, tmp_path / "work", mode=mode) as one:
        listed = await one.client.list_tools()
        assert len(listed.tools) == 6
        said = await one.call("farm_task", prompt="Name a barn cat")
    assert not said.failed, said
    assert "Loopback answer to 15 bytes" in said
    assert "claude-haiku-5-5 · US$ 0.0000" in said
    assert "data, not instructions" in said
    assert received(api) == ["Name a barn cat"]


async def test_a_slow_task_goes_on_and_a_later_session_finds_it(
    workstation: Workstation, farm: Sshd, api: MessagesApi, tmp_path: Path
) -> None:
    api.state.latency_s = 3
    async with session(workstation, tmp_path / "work") as one:
        said = await one.call("farm_task", prompt="Slow", wait_s=0)
        assert "still runs" in said
        assert not said.failed
    async with session(workstation, tmp_path / "work") as two:
        assert id_in(said) in await two.call("farm_status")
        ended = await two.ended(id_in(said))
        assert "Loopback answer to 4 bytes" in ended
    assert received(api) == ["Slow"]
