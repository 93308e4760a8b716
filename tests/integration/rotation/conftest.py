"""Two agents and a workstation that knows both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.agent import Agent
from tests.support.forked import ForkedAgent
from tests.support.messages_api import MessagesApi
from tests.support.rotation import Station


@pytest.fixture
async def agents(tmp_path: Path, api: MessagesApi) -> AsyncIterator[dict[str, Agent]]:
    found: dict[str, Agent] = {}
    for name in ("farm1", "farm2"):
        (tmp_path / name).mkdir()
        found[name] = ForkedAgent(tmp_path / name, api.url, idle_s=5.0, drain_s=5.0)
        await found[name].start()
    yield found
    for agent in found.values():
        await agent.stop()


@pytest.fixture
def station(tmp_path: Path, api: MessagesApi, agents: dict[str, Agent]) -> Station:
    return Station(tmp_path / "station", api, agents)
