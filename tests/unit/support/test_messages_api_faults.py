"""Scripted faults, the control endpoints, the log, and the server as a process of its own."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import pytest
from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi

ROOT = Path(__file__).parents[3]
HEADERS = {"x-api-key": DEFAULT_KEY, "anthropic-version": "2023-06-01"}
PATH = "/v1/messages"
ASK: Any = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
async def api() -> AsyncIterator[MessagesApi]:
    async with MessagesApi() as running:
        yield running


@pytest.fixture
async def client(api: MessagesApi) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key=DEFAULT_KEY, base_url=api.url, max_retries=0) as sdk:
        yield sdk


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
    async with asyncio.timeout(5):
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


async def test_log(api: MessagesApi) -> None:
    raw = json.dumps(ASK).encode()
    async with aiohttp.ClientSession(headers=HEADERS | {"content-type": "application/json"}) as session:
        await session.post(f"{api.url}/v1/messages?beta=true", data=raw)
        await session.post(f"{api.url}/v1/messages", data=b"\xff")
        async with session.get(f"{api.url}/_control/log?after=0") as response:
            first, second = (await response.json())["entries"]
    assert (first["method"], first["path"], first["query"]) == ("POST", "/v1/messages", "beta=true")
    assert (first["body"], first["sha256"]) == (raw.decode(), hashlib.sha256(raw).hexdigest())
    assert {name.lower(): value for name, value in first["headers"].items()}["x-api-key"] == DEFAULT_KEY
    assert (first["status"], first["model"]) == (200, "claude-haiku-4-5")
    assert first["usage"]["output_tokens"] > 1
    assert (second["status"], second["body_base64"]) == (400, "/w==")


async def control(api: MessagesApi, method: str, name: str, value: Any = None) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{api.url}/_control/{name}", json=value) as response,
    ):
        return response.status, await response.text()


async def test_control(api: MessagesApi) -> None:
    assert await control(api, "POST", "faults", {"kind": "status", "status": 529}) == (
        200,
        (await control(api, "GET", "faults"))[1],
    )
    assert (await post(api))[0] == 529
    rule = {"contains": "hello", "steps": [{"text": "scripted"}]}
    assert (await control(api, "POST", "rules", [rule]))[0] == 200
    assert b"scripted" in (await post(api))[1]
    await control(api, "DELETE", "rules")
    assert b"scripted" not in (await post(api))[1]
    assert json.loads((await control(api, "PUT", "keys", ["sk-ant-test-second"]))[1]) == ["sk-ant-test-second"]
    assert (await post(api))[0] == 401
    assert (await control(api, "PUT", "latency", {"ms": 5, "event_ms": 1}))[0] == 200
    assert (api.state.latency_s, api.state.event_s) == (0.005, 0.001)
    await control(api, "DELETE", "log")
    assert api.log == []
    await control(api, "POST", "reset")
    assert (await post(api))[0] == 200


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("POST", "faults", {"kind": "fire"}),
        ("POST", "rules", {"contains": 1}),
        ("PUT", "keys", {}),
        ("GET", "log?after=x", None),
    ],
)
async def test_control_says_what_is_wrong(api: MessagesApi, method: str, name: str, value: Any) -> None:
    status, text = await control(api, method, name, value)
    assert status == 400
    assert text.startswith("/_control/")


async def test_keys_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# accepted\nsk-ant-test-first\n")
    async with MessagesApi(keys=(), keys_file=file) as api:
        assert (await post(api))[0] == 401
        file.write_text(f"sk-ant-test-first\n{DEFAULT_KEY}\n")
        assert (await post(api))[0] == 200
        file.unlink()
        assert (await post(api))[0] == 401


async def start(*arguments: str) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.messages_api", *arguments,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(20):
        line = (await process.stdout.readline()).decode()
    return process, line.removeprefix("listening on ").strip()


async def test_process_on_a_unix_socket_with_a_log_file(tmp_path: Path) -> None:
    socket, log = tmp_path / "api.sock", tmp_path / "log.jsonl"
    process, url = await start("--listen", f"unix:{socket}", "--log", str(log))
    assert url == f"http+unix://{socket}"
    async with aiohttp.ClientSession(headers=HEADERS, connector=aiohttp.UnixConnector(str(socket))) as session:
        async with session.post("http://api/v1/messages", json=ASK) as response:
            assert response.status == 200
            await response.read()
        async with session.head("http://api/") as response:
            assert response.status == 200
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 10) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["path"] for line in lines] == ["/v1/messages", "/"]
    assert not socket.exists()


async def test_sigterm_ends_it_with_a_request_under_way() -> None:
    process, url = await start("--latency-ms", "60000")
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        asking = asyncio.create_task(session.post(f"{url}/v1/messages", json=ASK))
        await asyncio.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
        with pytest.raises(aiohttp.ClientConnectionError):
            await asking


async def test_address_in_use(api: MessagesApi) -> None:
    process, line = await start("--listen", api.url.removeprefix("http://"))
    assert line == ""
    assert await process.wait() == 1
    assert process.stderr is not None
    error = (await process.stderr.read()).decode()
    assert error.startswith("messages_api: cannot listen on 127.0.0.1:")
    assert error.count("\n") == 1


async def test_it_keeps_up(api: MessagesApi) -> None:
    count = 400
    async with aiohttp.ClientSession(headers=HEADERS, connector=aiohttp.TCPConnector(limit=20)) as session:

        async def one() -> int:
            async with session.post(f"{api.url}/v1/messages", json=ASK) as response:
                await response.read()
                return response.status

        started = time.monotonic()
        assert set(await asyncio.gather(*(one() for _ in range(count)))) == {200}
    assert count / (time.monotonic() - started) > 150  # client and server share this one process
