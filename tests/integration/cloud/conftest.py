"""A batch in the double of AWS, and the loopback Messages API."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.fakeaws.client import FakeAws
from tests.support.fakeaws.fixtures import aws, aws_process  # noqa: F401  (fixtures)
from tests.support.messages_api import MessagesApi
from tests.support.shards import Site


@pytest.fixture
async def site(aws: FakeAws, api: MessagesApi) -> AsyncIterator[Site]:  # noqa: F811
    made = Site(aws, api.url)
    yield made
    await made.close()
