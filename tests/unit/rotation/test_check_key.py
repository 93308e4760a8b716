"""The free call that shows whether a key is accepted, against the loopback API."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from farmhand.core.errors import FarmhandError, NotConfigured, Refused, WireError
from farmhand.rotation.provider import Provider, check_key
from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi
from tests.support.messages_api.faults import Kind


async def check(key: str, url: str) -> FarmhandError | None:
    got: FarmhandError | None = None
    try:
        await asyncio.to_thread(check_key, key, url)
    except FarmhandError as error:
        got = error
    assert key not in str(got)
    assert "\n" not in str(got)
    return got


async def test_a_key_that_is_accepted_and_one_that_is_not() -> None:
    async with MessagesApi() as api:
        assert await check(DEFAULT_KEY, f"{api.url}/") is None
        refused = await check("sk-ant-test-unknown-000000000", api.url)
        assert isinstance(refused, NotConfigured)
        assert refused.code == "bad_key"
        [(first, _), (second, _)] = [(entry.path, entry.query) for entry in api.state.log.entries()]
        assert (first, second) == ("/v1/models", "/v1/models")


@pytest.mark.parametrize(
    ("status", "kind"), [(402, Refused), (403, Refused), (302, FarmhandError), (500, FarmhandError)]
)
async def test_other_answers(status: int, kind: type[FarmhandError]) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status, headers={"location": "/elsewhere"})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        got = await check(DEFAULT_KEY, f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()
    assert type(got) is kind
    assert asked == ["/v1/models"]


@pytest.mark.parametrize("kind", ["credit", "usage_limit", "workspace_limit", "spend_limit"])
async def test_an_account_without_money_does_not_serve_the_key_whatever_the_status(kind: Kind) -> None:
    async with MessagesApi() as api:
        api.fault(Fault(kind=kind, path="/v1/models", count=2))
        refused = await check(DEFAULT_KEY, api.url)
        assert isinstance(refused, Refused)
        assert refused.exit_code == 5
        assert "(402)" in refused.message
        assert "Console" in refused.hint
        with pytest.raises(WireError) as dead:
            await asyncio.to_thread(Provider(api.url).alive, DEFAULT_KEY)
        assert dead.value.code == "dead_key"


@pytest.mark.parametrize("status", [408, 429, 520, 529])
async def test_what_passes_says_nothing_about_the_key(status: int) -> None:
    async with MessagesApi() as api:
        api.fault(Fault(kind="status", status=status, path="/v1/models", raw="[" * 50_000, count=2))
        passing = await check(DEFAULT_KEY, api.url)
        assert passing is not None
        assert (type(passing), passing.code) == (FarmhandError, "api_unreachable")
        with pytest.raises(WireError) as unknown:
            await asyncio.to_thread(Provider(api.url).alive, DEFAULT_KEY)
        assert unknown.value.code == "api_unreachable"


async def test_nobody_there_and_no_url() -> None:
    nobody = await check(DEFAULT_KEY, "http://127.0.0.1:1")
    assert nobody is not None
    assert (nobody.code, "Connection refused" in nobody.message) == ("api_unreachable", True)
    assert isinstance(await check(DEFAULT_KEY, "file:///etc/passwd"), NotConfigured)
