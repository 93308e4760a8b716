"""The real daemon against the loopback Messages API, both in this test's own temporary directory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.agent import Agent
from tests.support.forked import ForkedAgent
from tests.support.messages_api import MessagesApi
from tests.support.meter import Served, serve_meter


@pytest.fixture
async def api() -> AsyncIterator[MessagesApi]:
    async with MessagesApi() as running:
        yield running


@pytest.fixture
async def agent(tmp_path: Path, api: MessagesApi) -> AsyncIterator[Agent]:
    daemon = ForkedAgent(tmp_path, api.url, idle_s=5.0, drain_s=5.0)
    await daemon.start()
    yield daemon
    await daemon.stop()


@pytest.fixture
async def served(api: MessagesApi) -> AsyncIterator[Served]:
    async with serve_meter(api) as running:
        yield running
