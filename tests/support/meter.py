"""A meter on its own, served on 127.0.0.1 in front of the loopback Messages API. Its clock moves when it sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import anthropic

from farmhand.core.task import Usage
from farmhand.meter.grants import Grant, Key
from farmhand.meter.http_server import MeterServer
from farmhand.meter.meter import Meter, RetryPolicy
from farmhand.meter.upstream import Upstream
from tests.support.messages_api import DEFAULT_KEY, MessagesApi

MODEL = "claude-haiku-5-5"
BODY = {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}
HEADERS = {"anthropic-version": "2023-06-01"}


def total(grant: Grant) -> Usage:
    """The sum over all charges of a grant."""
    found = Usage()
    for charge in grant.charges:
        found.add(charge.usage)
    return found


@dataclass
class Served:
    """A meter on 127.0.0.1 with one live token."""

    meter: Meter
    grant: Grant
    token: str
    url: str
    waits: list[float]

    @property
    def usage(self) -> Usage:
        """The sum over all charges."""
        return total(self.grant)

    async def post(
        self, path: str = "/v1/messages", *, token: str | None = None, body: object = BODY, host: str | None = None
    ) -> tuple[int, str]:
        headers = HEADERS | {"x-api-key": self.token if token is None else token} | ({"host": host} if host else {})
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url + path, json=body, headers=headers) as answer,
        ):
            return answer.status, await answer.text()

    def sdk(self) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(base_url=self.url, api_key=self.token, max_retries=0)


@asynccontextmanager
async def serve_meter(api: MessagesApi) -> AsyncIterator[Served]:
    """A meter in front of `api`, in this process."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    def clock() -> float:
        return sum(waits)

    upstream = Upstream(api.url, idle_s=5.0)
    meter = Meter(upstream, clock=clock, sleep=sleep, retry=RetryPolicy(attempts=4))
    door = MeterServer(meter)
    listening = await asyncio.get_running_loop().create_server(door, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()[:2]
    grant = Grant(task_id="t", key=Key(DEFAULT_KEY), model=MODEL)
    yield Served(meter, grant, meter.grants.issue(grant), f"http://{host}:{port}", waits)
    listening.close()
    await door.close(0.1)
    upstream.close()
