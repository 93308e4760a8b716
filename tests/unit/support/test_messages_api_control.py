"""The control endpoints, the log, and the server as a process of its own."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.messages_api import DEFAULT_KEY, MessagesApi

ROOT = Path(__file__).parents[3]
HEADERS = {"x-api-key": DEFAULT_KEY, "anthropic-version": "2023-06-01"}
ASK: Any = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
async def api() -> AsyncIterator[MessagesApi]:
    async with MessagesApi() as running:
        yield running


async def post(api: MessagesApi) -> tuple[int, bytes]:
    async with aiohttp.ClientSession(api.url, headers=HEADERS) as session:
        response = await session.post("/v1/messages", json=ASK)
        return response.status, await response.read()


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


async def test_requests_are_held_and_go_on_at_the_pace_that_is_set(api: MessagesApi) -> None:
    await control(api, "PUT", "latency", {"per_s": 8})
    started = time.monotonic()
    answers = await asyncio.gather(*(post(api) for _ in range(6)))
    assert time.monotonic() - started >= 6 / 8
    assert {status for status, _ in answers} == {200}
    await control(api, "PUT", "latency", {"per_s": 0.01})
    await control(api, "PUT", "latency", {})
    async with asyncio.timeout(120):  # at the last pace it would be ten minutes
        await asyncio.gather(*(post(api) for _ in range(6)))


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
    async with asyncio.timeout(120):
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
    assert await asyncio.wait_for(process.wait(), 120) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["path"] for line in lines] == ["/v1/messages", "/"]
    assert not socket.exists()


async def test_process_with_limits_and_a_batch_plan() -> None:
    process, url = await start("--limits", '{"requests": 1}', "--batch-plan", '{"after_ms": null, "in_flight": 3}')
    async with aiohttp.ClientSession(url, headers=HEADERS) as session:
        assert [(await session.post("/v1/messages", json=ASK)).status for _ in range(2)] == [200, 429]
        assert (await (await session.get("/_control/batches/plan")).json())["in_flight"] == 3
        batch = {"requests": [{"custom_id": "a", "params": ASK}]}
        assert (await session.post("/v1/messages/batches", json=batch)).status == 200
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 120) == 0  # with a batch under way


async def test_limits_that_are_none() -> None:
    process, line = await start("--limits", '{"requests": 0}')
    assert (line, await process.wait()) == ("", 2)
    assert process.stderr is not None
    assert "argument --limits: Expected `int` >= 1" in (await process.stderr.read()).decode()


async def test_sigterm_ends_it_with_a_request_under_way() -> None:
    process, url = await start("--latency-ms", "60000")
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        asking = asyncio.create_task(session.post(f"{url}/v1/messages", json=ASK))
        await asyncio.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 120) == 0
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


async def test_it_answers_many_at_once(api: MessagesApi) -> None:
    async with aiohttp.ClientSession(headers=HEADERS, connector=aiohttp.TCPConnector(limit=20)) as session:

        async def one() -> int:
            async with session.post(f"{api.url}/v1/messages", json=ASK) as response:
                await response.read()
                return response.status

        assert set(await asyncio.gather(*(one() for _ in range(400)))) == {200}
