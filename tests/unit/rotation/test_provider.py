"""Keys at the provider, against the loopback API: alive or dead, and set inactive through the Admin API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from farmhand.cli.checks import Check, station
from farmhand.core.errors import WireError
from farmhand.core.settings import Settings
from farmhand.rotation.provider import Provider, hint_fits, workspace_of
from tests.support.messages_api import DEFAULT_ADMIN_KEY, DEFAULT_KEY, MessagesApi
from tests.support.messages_api.admin_keys import PATH, key_id
from tests.support.rotation import new_key


@pytest.fixture
async def api() -> AsyncIterator[MessagesApi]:
    async with MessagesApi(keys=[DEFAULT_KEY, *map(new_key, range(250))]) as running:
        yield running


async def disable(provider: Provider, key: str) -> WireError | None:
    found: WireError | None = None
    try:
        await asyncio.to_thread(provider.disable, key)
    except WireError as error:
        found = error
    assert found is None or found.code == "retire_by_hand"
    assert key not in str(found)
    return found


async def test_alive_and_dead(api: MessagesApi) -> None:
    provider = Provider(api.url)
    await asyncio.to_thread(provider.alive, DEFAULT_KEY)
    assert await asyncio.to_thread(provider.dead, DEFAULT_KEY) is False
    assert await asyncio.to_thread(provider.dead, "sk-ant-test-unknown-0000000") is True
    with pytest.raises(WireError, match="does not know the new key"):
        await asyncio.to_thread(provider.alive, "sk-ant-test-unknown-0000000")
    with pytest.raises(WireError, match="cannot be asked"):
        await asyncio.to_thread(Provider("http://127.0.0.1:1").dead, DEFAULT_KEY)


async def test_one_key_of_many_pages_is_disabled(api: MessagesApi) -> None:
    provider = Provider(api.url, DEFAULT_ADMIN_KEY, api.url)
    assert await disable(provider, new_key(249)) is None
    assert api.state.keys == {DEFAULT_KEY, *map(new_key, range(249))}
    assert await asyncio.to_thread(provider.dead, new_key(249))
    assert await asyncio.to_thread(provider.dead, new_key(248)) is False


async def test_several_that_look_alike_are_left_alone(api: MessagesApi) -> None:
    twin = new_key(7).replace("000000000007", "999999990007")
    api.state.keys |= {twin}
    error = await disable(Provider(api.url, DEFAULT_ADMIN_KEY, api.url), twin)
    assert "several active keys that could be it" in str(error)
    assert {twin, new_key(7)} <= api.state.keys


@pytest.mark.parametrize(
    ("admin", "url", "why"),
    [
        (DEFAULT_KEY, "", "no Admin key"),
        (DEFAULT_ADMIN_KEY + "x", "", "answered 401: invalid x-api-key"),
        (DEFAULT_ADMIN_KEY, "http://192.0.2.1", "neither https nor on this machine"),
        (DEFAULT_ADMIN_KEY, "http://127.0.0.1:1", "cannot be asked"),
    ],
)
async def test_where_it_cannot_be_had(api: MessagesApi, admin: str, url: str, why: str) -> None:
    assert why in str(await disable(Provider(api.url, admin, url or api.url), DEFAULT_KEY))
    assert DEFAULT_KEY in api.state.keys


async def test_a_key_that_is_not_listed(api: MessagesApi) -> None:
    error = await disable(Provider(api.url, DEFAULT_ADMIN_KEY, api.url), "sk-ant-test-elsewhere-0123")
    assert "no active key that could be it" in str(error)


def test_hints() -> None:
    key = "sk-ant-api03-R2Dxxxxxxxxxxxxxxxxxxxigaa"
    assert hint_fits("sk-ant-api03-R2D...igaa", key)
    for wrong in ("", "...", "sk-ant-api03-R2D...", "...igaa", "sk-ant-api03-R2D...igab", key, f"{key}...{key}"):
        assert not hint_fits(wrong, key)


async def test_the_loopback_admin_api_is_strict(api: MessagesApi) -> None:
    import aiohttp

    headers = {"x-api-key": DEFAULT_ADMIN_KEY, "anthropic-version": "2023-06-01"}
    one = f"{PATH}/{key_id(DEFAULT_KEY)}"
    calls = [
        ("GET", f"{PATH}?limit=0", None, 400),
        ("GET", f"{PATH}?status=dead", None, 400),
        ("GET", f"{PATH}?page=1", None, 400),
        ("GET", f"{PATH}/apikey_unknown", None, 404),
        ("DELETE", one, None, 405),
        ("POST", PATH, {"name": "x"}, 405),
        ("POST", one, {"status": "dead"}, 400),
        ("POST", one, {"expires_at": "now"}, 400),
        ("POST", one, {"name": "renamed"}, 200),
        ("POST", one, {"status": "inactive"}, 200),
        ("POST", one, {"status": "active"}, 200),
        ("GET", one, None, 200),
    ]
    async with aiohttp.ClientSession(api.url, headers=headers) as session:
        for method, path, body, status in calls:
            async with session.request(method, path, json=body) as answer:
                assert answer.status == status, (method, path, await answer.text())
        async with session.get(one) as answer:
            shown = await answer.json()
        assert (shown["name"], shown["status"], shown["type"]) == ("renamed", "active", "api_key")
        assert DEFAULT_KEY not in str(shown)
        async with session.get(PATH, headers={"x-api-key": DEFAULT_KEY}) as answer:
            assert answer.status == 401


async def test_the_workspace_is_the_one_that_the_answer_names(
    api: MessagesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await asyncio.to_thread(workspace_of, DEFAULT_KEY, api.url) == "wrkspc_01JwQvzr7rXLA5AGx3HKfFUJ"
    for odd in ("", "default", "wrkspc_x\tred", "wrkspc_" + "x" * 65):
        monkeypatch.setattr("tests.support.messages_api.app.WORKSPACE", odd)
        assert await asyncio.to_thread(workspace_of, DEFAULT_KEY, api.url) == ""


@pytest.mark.parametrize(
    ("days", "state", "said"),
    [(None, "green", ""), (40, "green", "it ends on "), (3, "red", "it ends on "), (-1, "red", "it ends on ")],
)
async def test_doctor_says_when_the_key_ends(
    api: MessagesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int | None, state: str, said: str
) -> None:
    ends = None if days is None else (datetime.now(UTC) + timedelta(days=days)).isoformat().replace("+00:00", "Z")
    api.state.key_ring.learn(api.state.current_keys())
    api.state.key_ring.records[key_id(DEFAULT_KEY)].expires_at = ends
    found = await key_age(api, tmp_path, monkeypatch)
    assert (found.state, said in found.detail, "ends" in found.detail) == (state, True, bool(said))
    assert found.fix == ("farmhand rotate" if state == "red" else "")


async def test_what_the_admin_api_does_not_say_is_not_guessed(
    api: MessagesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.state.key_ring.learn(api.state.current_keys())
    api.state.key_ring.records[key_id(DEFAULT_KEY)].expires_at = "soon"
    found = await key_age(api, tmp_path, monkeypatch)
    assert (found.state, "the Admin API's end of the key is no time" in found.detail) == ("green", True)
    api.state.admin_keys = frozenset()
    found = await key_age(api, tmp_path, monkeypatch)
    assert (found.state, "cannot be asked: the Admin API answered 401" in found.detail) == ("green", True)


async def key_age(api: MessagesApi, home: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """The line of farmhand doctor."""
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    for name, key in (("key", DEFAULT_KEY), ("admin", DEFAULT_ADMIN_KEY)):
        (home / name).touch(0o600)
        (home / name).write_text(f"ANTHROPIC_API_KEY={key}\n")
    conf = Settings(key_source=f"file:{home}/key", admin_key_source=f"file:{home}/admin", admin_url=api.url)
    return await asyncio.to_thread(station.key_age, conf)
