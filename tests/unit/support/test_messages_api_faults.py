"""Scripted faults of the loopback Messages API."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import anthropic
import pytest

from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi

HEADERS = {"x-api-key": DEFAULT_KEY, "anthropic-version": "2023-06-01"}
PATH = "/v1/messages"
ASK: Any = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    ("status", "type_"),
    [
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
async def test_status(api: MessagesApi, client: anthropic.AsyncAnthropic, status: int, type_: str) -> None:
    api.fault(Fault(kind="status", status=status))
    with pytest.raises(anthropic.APIStatusError) as caught:
        await client.messages.create(**ASK)
    error: Any = caught.value
    assert (error.status_code, error.body["error"]["type"]) == (status, type_)
    await client.messages.create(**ASK)  # once only


async def test_retry_after(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    api.fault(Fault(kind="status", status=429, retry_after=7))
    with pytest.raises(anthropic.RateLimitError) as caught:
        await client.messages.create(**ASK)
    assert caught.value.response.headers["retry-after"] == "7"
    assert "anthropic-ratelimit-requests-reset" in caught.value.response.headers


async def test_spend_limit(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    api.fault(Fault(kind="spend_limit"))
    with pytest.raises(anthropic.RateLimitError) as caught:
        await client.messages.create(**ASK)
    body: Any = caught.value.body
    assert body["error"]["details"] == {"error_code": "enforced_spend_limit_reached"}
    assert "retry-after" not in caught.value.response.headers


async def test_narrowed_skipped_and_counted(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    api.fault(Fault(kind="status", status=500, match="unlucky", skip=1, count=2), Fault(kind="slow", model="other"))
    seen = []
    for text in ("fine", "unlucky", "unlucky", "fine", "unlucky", "unlucky"):
        try:
            await client.messages.create(**ASK | {"messages": [{"role": "user", "content": text}]})
            seen.append("ok")
        except anthropic.InternalServerError:
            seen.append("500")
    assert seen == ["ok", "ok", "500", "ok", "500", "ok"]
    assert [fault.kind for fault in api.state.faults.pending()] == ["slow"]


@asynccontextmanager
async def asking(api: MessagesApi, **changes: Any) -> AsyncIterator[aiohttp.ClientResponse]:
    async with (
        aiohttp.ClientSession(api.url, headers=HEADERS) as session,
        session.post(PATH, json=ASK | changes) as got,
    ):
        yield got


async def post(api: MessagesApi, **changes: Any) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession(headers=HEADERS) as session,
        session.post(f"{api.url}/v1/messages", json=ASK | changes) as response,
    ):
        return response.status, await response.read()


@pytest.mark.parametrize("stream", [True, False])
async def test_cut(api: MessagesApi, stream: bool) -> None:
    api.fault(Fault(kind="cut", after_events=4))
    with pytest.raises(aiohttp.ClientPayloadError):
        await post(api, stream=stream)


async def test_cut_lets_the_first_events_through(api: MessagesApi) -> None:
    api.fault(Fault(kind="cut", after_events=4))
    got = b""
    async with (
        aiohttp.ClientSession(headers=HEADERS) as session,
        session.post(f"{api.url}/v1/messages", json=ASK | {"stream": True}) as response,
    ):
        try:
            async for part in response.content.iter_any():
                got += part
        except aiohttp.ClientPayloadError:
            got += b"CUT"
    assert got.endswith(b"CUT")
    assert got.count(b"event: ") == 4


@pytest.mark.parametrize("stream", [True, False])
async def test_reset(api: MessagesApi, stream: bool) -> None:
    api.fault(Fault(kind="reset"))
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await post(api, stream=stream)
    assert (await post(api))[0] == 200


async def test_garbage(api: MessagesApi) -> None:
    api.fault(Fault(kind="garbage"), Fault(kind="garbage"))
    status, raw = await post(api)
    assert (status, raw[:6]) == (200, b"<html>")
    assert (await post(api, stream=True))[1].endswith(b"data: {this is no JSON\n\n")


async def test_error_within_a_stream(api: MessagesApi) -> None:
    api.fault(Fault(kind="stream_error", after_events=3), Fault(kind="stream_error"))
    _, raw = await post(api, stream=True)
    *events, last = raw.decode().strip().split("\n\n")
    assert len(events) == 3
    assert last.startswith("event: error\n")
    assert json.loads(last.split("data: ")[1])["error"]["type"] == "overloaded_error"
    assert (await post(api))[0] == 529


async def test_slow_and_latency(api: MessagesApi) -> None:
    api.fault(Fault(kind="slow", delay_s=0.2))
    api.state.latency_s = 0.1
    started = time.monotonic()
    await post(api)
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("stream", [True, False])
async def test_stalled_until_the_client_goes(api: MessagesApi, stream: bool) -> None:
    api.fault(Fault(kind="stalled"))
    async with (
        aiohttp.ClientSession(headers=HEADERS) as session,
        session.post(f"{api.url}/v1/messages", json=ASK | {"stream": stream}) as response,
    ):
        assert response.status == 200
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(response.read(), 0.2)
    async with asyncio.timeout(120):
        while not api.posts[-1].aborted:  # noqa: ASYNC110 - the log is data, it has no event to wait for
            await asyncio.sleep(0.01)


async def test_events_are_paced(api: MessagesApi) -> None:
    api.state.event_s = 0.02
    times = []
    async with (
        aiohttp.ClientSession(headers=HEADERS) as session,
        session.post(f"{api.url}/v1/messages", json=ASK | {"stream": True}) as response,
    ):
        async for _ in response.content.iter_any():
            times.append(time.monotonic())
    assert len(times) >= 8
    assert times[-1] - times[0] >= 0.1
