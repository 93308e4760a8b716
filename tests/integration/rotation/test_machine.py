"""The state machine with real daemons: each step, what goes wrong at it, and the way back."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from farmhand.core.errors import WireError
from farmhand.core.keys import fingerprint
from farmhand.rotation.machine import Unfinished
from tests.support.agent import Agent
from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi
from tests.support.rotation import Station, new_key

NEW = new_key(1)
OLD_PRINT, NEW_PRINT = fingerprint(DEFAULT_KEY), fingerprint(NEW)


@pytest.fixture(autouse=True)
def both_keys(api: MessagesApi) -> None:
    api.state.keys = frozenset({DEFAULT_KEY, NEW})


async def key_of(agent: Agent) -> str | None:
    key: str | None = (await agent.get("/v1/status"))["key"]
    return key


def rotate(station: Station, **more: object) -> bool:
    machine = station.machine(**more)
    return machine.stage(NEW) and machine.advance()


async def test_from_the_first_step_to_the_last(
    station: Station, agents: dict[str, Agent], api: MessagesApi, tmp_path: Path
) -> None:
    before = station.key_file.read_text()
    assert await asyncio.to_thread(rotate, station)
    assert station.key_file.read_text() == before.replace(DEFAULT_KEY, NEW)
    assert station.key_file.stat().st_mode & 0o777 == 0o600
    assert api.state.keys == {NEW}
    for agent in agents.values():
        status = await agent.get("/v1/status")
        assert [entry["fingerprint"] for entry in status["keys"]] == [NEW_PRINT]
        assert status["finished"]["succeeded"] == 1, "the canary"
    about = await asyncio.to_thread(station.machine().status)
    assert (about["step"], about["old"], about["new"]) == ("retired", OLD_PRINT, NEW_PRINT)
    # Again: nothing to do.
    assert await asyncio.to_thread(rotate, station) is False
    said = "\n".join(station.said)
    assert DEFAULT_KEY not in said
    assert NEW not in said
    for path in tmp_path.rglob("*"):
        if path.is_file() and path not in (station.key_file, station.admin_file):
            assert b"sk-ant-" not in path.read_bytes(), path


async def test_a_dead_new_key_changes_nothing(station: Station, agents: dict[str, Agent], api: MessagesApi) -> None:
    api.state.keys = frozenset({DEFAULT_KEY})
    before = station.key_file.read_bytes()
    with pytest.raises(WireError, match="does not know the new key") as caught:
        await asyncio.to_thread(rotate, station)
    assert caught.value.code == "dead_key"
    assert station.key_file.read_bytes() == before
    assert (await asyncio.to_thread(station.machine().status))["step"] == "none"


async def test_a_new_key_that_the_messages_api_refuses_is_rolled_back_and_no_task_fails(
    station: Station, agents: dict[str, Agent], api: MessagesApi
) -> None:
    before = station.key_file.read_bytes()
    await agents["farm1"].submit({"id": "first", "prompt": "hello"})
    machine = station.machine()
    await asyncio.to_thread(machine.stage, NEW)
    await asyncio.to_thread(machine.advance, "switched")
    assert await key_of(agents["farm1"]) == NEW_PRINT
    api.state.keys = frozenset({DEFAULT_KEY})  # free calls took it; the Messages API does not
    await agents["farm1"].submit({"id": "second", "prompt": "hello"})
    assert (await agents["farm1"].result("second"))["state"] == "succeeded", "on the key in reserve"
    with pytest.raises(WireError, match="the API refused the new key") as caught:
        await asyncio.to_thread(machine.advance)
    assert caught.value.code == "rotation_failed"
    assert station.key_file.read_bytes() == before
    for agent in agents.values():
        assert await key_of(agent) == OLD_PRINT
        assert (await agent.get("/v1/status"))["awaiting_key"] == 0
    assert (await asyncio.to_thread(station.machine().status))["step"] == "rolled_back"
    with pytest.raises(WireError, match="no rotation goes on"):
        await asyncio.to_thread(station.machine().advance)


async def test_who_still_brings_the_old_key_runs_on_the_new_one(
    station: Station, agents: dict[str, Agent], api: MessagesApi
) -> None:
    agent = agents["farm1"]
    await agent.submit({"id": "early", "prompt": "hello"})
    await agent.result("early")
    assert await asyncio.to_thread(rotate, station)
    posts = len(api.posts)
    await agent.submit({"id": "late", "prompt": "hello"})  # with the old key, which is dead
    assert (await agent.result("late"))["state"] == "succeeded"
    status, answer = await agent.call("PUT", "/v1/key", headers={"X-Farmhand-Key": DEFAULT_KEY})
    assert (status, answer["fingerprint"]) == (200, NEW_PRINT)
    assert [post.headers["x-api-key"] for post in api.posts[posts:]] == [NEW]


async def test_attempts_on_the_old_key_end_before_it_is_retired(
    station: Station, agents: dict[str, Agent], api: MessagesApi
) -> None:
    api.fault(Fault(kind="slow", delay_s=2.0))
    await agents["farm2"].submit({"id": "slow", "prompt": "hello"})
    await agents["farm2"].wait_state("slow", "running")
    machine = station.machine()
    await asyncio.to_thread(machine.stage, NEW)
    await asyncio.to_thread(machine.advance, "verified")
    [entry] = [e for e in (await agents["farm2"].get("/v1/status"))["keys"] if e["fingerprint"] == OLD_PRINT]
    assert (entry["state"], entry["running"]) == ("superseded", 1)
    with pytest.raises(Unfinished, match="1 at farm2"):
        await asyncio.to_thread(station.machine(drain_s=0.0).advance)
    await asyncio.to_thread(station.machine().advance)
    result = await agents["farm2"].result("slow")
    assert (result["state"], result["attempts"]) == ("succeeded", 1)


async def test_a_host_that_cannot_be_reached_keeps_the_old_key_alive(
    station: Station, agents: dict[str, Agent], api: MessagesApi
) -> None:
    await agents["farm2"].stop(signal.SIGKILL)
    with pytest.raises(Unfinished, match="these hosts may hold it: farm2") as caught:
        await asyncio.to_thread(rotate, station)
    assert caught.value.code == "hosts_unreached"
    assert DEFAULT_KEY in api.state.keys
    assert (await asyncio.to_thread(station.machine().status))["hosts"]["farm2"]["state"] == "unreached"
    await agents["farm2"].start()
    assert await asyncio.to_thread(station.machine().advance)
    assert await key_of(agents["farm2"]) == NEW_PRINT
    assert api.state.keys == {NEW}


async def test_force_retires_it_all_the_same(station: Station, agents: dict[str, Agent], api: MessagesApi) -> None:
    await agents["farm2"].stop(signal.SIGKILL)
    assert await asyncio.to_thread(rotate, station, force=True)
    assert api.state.keys == {NEW}


async def test_no_host_at_all_rolls_back(station: Station, agents: dict[str, Agent], api: MessagesApi) -> None:
    before = station.key_file.read_bytes()
    for agent in agents.values():
        await agent.stop(signal.SIGKILL)
    with pytest.raises(WireError, match="no farm host could be reached"):
        await asyncio.to_thread(rotate, station)
    assert station.key_file.read_bytes() == before


async def test_without_an_admin_key_the_last_step_is_by_hand(
    station: Station, agents: dict[str, Agent], api: MessagesApi
) -> None:
    with pytest.raises(Unfinished, match="still works: admin_key_source is not set") as caught:
        await asyncio.to_thread(rotate, station, admin_key_source="")
    assert "https://platform.claude.com/settings/keys" in caught.value.hint
    assert OLD_PRINT in str(caught.value)
    api.state.keys = frozenset({NEW})  # what the operator does in the Console
    assert await asyncio.to_thread(station.machine(admin_key_source="").advance)
    assert DEFAULT_KEY not in station.key_file.read_text()


async def test_an_admin_api_that_refuses_is_said(station: Station, agents: dict[str, Agent], api: MessagesApi) -> None:
    api.state.admin_keys = frozenset()
    with pytest.raises(Unfinished, match="the Admin API answered 401"):
        await asyncio.to_thread(rotate, station)
    # The old key lives, so there is a way back.
    assert await asyncio.to_thread(station.machine(admin_key_source="").abort)
    assert await key_of(agents["farm1"]) == OLD_PRINT


@pytest.mark.parametrize("step", ["staged", "switched", "verified", "drained"])
async def test_abort_from(station: Station, agents: dict[str, Agent], api: MessagesApi, step: str) -> None:
    before = station.key_file.read_bytes()
    machine = station.machine()
    await asyncio.to_thread(machine.stage, NEW)
    await asyncio.to_thread(machine.advance, step)
    with pytest.raises(WireError, match="finish it with --resume, or take it back with --abort"):
        await asyncio.to_thread(machine.stage, new_key(2))
    assert await asyncio.to_thread(station.machine().abort)
    assert station.key_file.read_bytes() == before
    for agent in agents.values():
        assert await key_of(agent) == OLD_PRINT
    # And --status says so of each host.
    assert {about["state"] for about in station.machine().status()["hosts"].values()} == {"back"}
    assert await asyncio.to_thread(station.machine().abort) is False
    assert await asyncio.to_thread(rotate, station), "and again, with the same key"


async def test_a_key_source_that_somebody_changes_meanwhile_keeps_what_they_wrote(
    station: Station, agents: dict[str, Agent]
) -> None:
    machine = station.machine()
    await asyncio.to_thread(machine.stage, NEW)
    station.write_key_file(station.key_file.read_text().replace(DEFAULT_KEY, new_key(9)))
    with pytest.raises(WireError, match="a third key"):
        await asyncio.to_thread(machine.advance)
    assert f"ANTHROPIC_API_KEY={new_key(9)}" in station.key_file.read_text()
    assert NEW not in station.key_file.read_text()
