"""The loopback Messages API on a free port, and the official SDK as its client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anthropic
import pytest

from tests.support.messages_api import DEFAULT_KEY, MessagesApi


@pytest.fixture
async def api() -> AsyncIterator[MessagesApi]:
    async with MessagesApi() as running:
        yield running


@pytest.fixture
async def client(api: MessagesApi) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key=DEFAULT_KEY, base_url=api.url, max_retries=0) as sdk:
        yield sdk
