"""When no farm host answers: the spool, its delivery, other hosts, and the question on a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.dispatch.conftest import BIN, CHECKOUT, Done, Workstation, agent_knows, entry, received
from tests.integration.dispatch.sshd import Sshd, bridge_to, free_port
from tests.integration.dispatch.test_claude_cheap_terminal import read_terminal
from tests.support.agent import Agent
from tests.support.forked import ForkedAgent
from tests.support.messages_api import DEFAULT_KEY, MessagesApi


def down(farm: Sshd) -> dict[str, object]:
    """An entry of hosts.json that nobody answers at."""
    return entry(farm) | {"port": free_port()}


def spooled(workstation: Workstation) -> list[Path]:
    return sorted((workstation.home / ".local/state/farmhand/spool/waiting").glob("*.json"))


async def queue(workstation: Workstation, *arguments: str) -> str:
    """Run claude-cheap while no host answers; the id that it tells."""
    done = await workstation.run("claude-cheap", *arguments)
    assert (done.status, done.out, done.err.count("\n")) == (4, b"", 1), done.err
    match = re.match(r"claude-cheap: queued as task (\S+): ", done.err)
    assert match is not None, done.err
    return match[1]


@pytest.fixture
async def second(tmp_path: Path, api: MessagesApi) -> AsyncIterator[tuple[Sshd, Agent]]:
    """Another farm host with an agent of its own."""
    directory = tmp_path / "second"
    (directory / "sshd").mkdir(parents=True)
    agent = ForkedAgent(directory, api.url)
    await agent.start()
    server = Sshd(directory / "sshd", bridge_to(agent.socket))
    server.start()
    yield server, agent
    server.stop()
    await agent.stop()


async def test_without_a_terminal_a_task_is_queued_and_flush_delivers_it(
    workstation: Workstation, farm: Sshd, api: MessagesApi
) -> None:
    workstation.write_hosts(farm1=down(farm))
    ids = [await queue(workstation, prompt) for prompt in ("first; id", "@/etc/hostname", "third")]
    files = spooled(workstation)
    assert [json.loads(path.read_text())["task"]["id"] for path in files] == ids
    assert all(DEFAULT_KEY not in path.read_text() for path in files)
    still = await workstation.run("farmhand", "flush")
    assert (still.status, still.out.count(b"queued")) == (4, 3)
    assert "Connection refused" in still.err

    workstation.write_hosts(farm1=entry(farm))
    done = await workstation.run("farmhand", "flush", "--wait", "--json")
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert [each["id"] for each in told["results"]] == ids
    assert {(each["result"]["state"], each["host"], each["new"]) for each in told["results"]} == {
        ("succeeded", "farm1", True)
    }
    assert (told["waiting"], told["problems"], spooled(workstation)) == ([], [], [])
    assert sorted(received(api)) == sorted(["first; id", "@/etc/hostname", "third"])

    again = await workstation.run("claude-cheap", "--id", ids[0], "first; id")
    assert again.status == 0
    assert b"first; id" in again.out
    shown = await workstation.run("farmhand", "flush", ids[0])
    assert shown.out == again.out
    other = await workstation.run("claude-cheap", "--id", ids[0], "another")
    assert (other.status, "id" in other.err) == (2, True)
    assert len(api.posts) == 3


async def test_json_tells_the_id(workstation: Workstation, farm: Sshd) -> None:
    workstation.write_hosts(farm1=down(farm))
    done = await workstation.run("claude-cheap", "--json", "--id", "mine", "x")
    told = json.loads(done.out)
    assert (done.status, told["id"], told["state"], told["error"]["code"]) == (4, "mine", "spooled", "spooled")


async def test_the_next_call_takes_along_what_waits(
    workstation: Workstation, farm: Sshd, agent: Agent, api: MessagesApi
) -> None:
    workstation.write_hosts(farm1=down(farm))
    first = await queue(workstation, "first")
    workstation.write_hosts(farm1=entry(farm))
    done = await workstation.run("claude-cheap", "now")
    assert done.status == 0
    assert b"now" in done.out
    assert done.err == "claude-cheap: 1 queued task sent to farm1 (farmhand flush shows them)\n"
    await agent.wait_state(first, "succeeded")
    later = await workstation.run("claude-cheap", "later")
    assert later.err == "claude-cheap: 1 queued task ended (farmhand flush shows them)\n"
    assert sorted(received(api)) == ["first", "later", "now"]
    shown = await workstation.run("farmhand", "flush", first)
    assert b"first" in shown.out
    assert (await workstation.run("claude-cheap", "quiet")).err == ""


async def test_the_same_id_is_queued_once_runs_once_and_is_taken_up_by_its_own_call(
    workstation: Workstation, farm: Sshd, api: MessagesApi
) -> None:
    workstation.write_hosts(farm1=down(farm))
    for _ in range(2):
        assert await queue(workstation, "--id", "once", "hello") == "once"
    assert len(spooled(workstation)) == 1
    other = await workstation.run("claude-cheap", "--id", "once", "other")
    assert (other.status, other.err.count("\n")) == (2, 1)
    workstation.write_hosts(farm1=entry(farm))
    for _ in range(2):
        done = await workstation.run("claude-cheap", "--id", "once", "hello")
        assert (done.status, done.err) == (0, "")
    assert spooled(workstation) == []
    assert received(api) == ["hello"]


async def test_a_task_that_was_sent_to_a_host_waits_for_that_one(
    workstation: Workstation, farm: Sshd, second: tuple[Sshd, Agent], agent: Agent, api: MessagesApi
) -> None:
    api.state.event_s = 0.5
    workstation.write_hosts(farm1=down(farm))
    task_id = await queue(workstation, "long")
    workstation.write_hosts(farm1=entry(farm), farm2=entry(second[0]))
    sent = await workstation.run("farmhand", "flush", "--json")
    assert json.loads(sent.out)["waiting"][0]["host"] == "farm1"
    await agent_knows(agent, task_id)
    workstation.write_hosts(farm1=down(farm), farm2=entry(second[0]))
    without = await workstation.run("farmhand", "flush", task_id)
    assert (without.status, without.err.count("\n")) == (4, 1)
    assert f"task {task_id} still waits" in without.err
    unreached = await workstation.run("claude-cheap", "--id", task_id, "long")
    assert unreached.status == 4
    assert (await second[1].call("GET", f"/v1/tasks/{task_id}"))[0] == 404
    workstation.write_hosts(farm2=entry(second[0]))
    assert "no farm host is called 'farm1'" in (await workstation.run("farmhand", "flush")).err
    workstation.write_hosts(farm1=entry(farm), farm2=entry(second[0]))
    done = await workstation.run("farmhand", "flush", task_id)
    assert (done.status, b"long" in done.out) == (0, True), done.err
    assert received(api) == ["long"]


async def test_a_host_that_has_lost_the_task_gets_it_again(
    workstation: Workstation, farm: Sshd, agent: Agent, api: MessagesApi
) -> None:
    workstation.write_hosts(farm1=down(farm))
    task_id = await queue(workstation, "hello")
    [path] = spooled(workstation)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sent": "farm1"}))  # as if it crashed before sending
    workstation.write_hosts(farm1=entry(farm))
    done = await workstation.run("farmhand", "flush", task_id)
    assert (done.status, b"hello" in done.out) == (0, True), done.err
    assert received(api) == ["hello"]


async def test_what_the_host_refuses_is_the_task_s_result_and_stops_no_other(
    workstation: Workstation, farm: Sshd, api: MessagesApi
) -> None:
    workstation.write_hosts(farm1=down(farm))
    bad = await queue(workstation, "--tools", "Hack", "bad")
    good = await queue(workstation, "good")
    workstation.write_hosts(farm1=entry(farm))
    done = await workstation.run("farmhand", "flush", "--wait", "--json")
    results = {each["id"]: each["result"]["state"] for each in json.loads(done.out)["results"]}
    assert (done.status, results) == (0, {bad: "failed", good: "succeeded"})
    shown = await workstation.run("farmhand", "flush", bad)
    assert (shown.status, shown.out) == (1, b"")
    assert "unknown tool Hack" in shown.err


async def test_a_flush_that_is_killed_loses_nothing_and_runs_nothing_twice(
    workstation: Workstation, farm: Sshd, api: MessagesApi
) -> None:
    workstation.write_hosts(farm1=down(farm))
    prompts = [f"prompt {number}" for number in range(4)]
    for prompt in prompts:
        await queue(workstation, prompt)
    workstation.write_hosts(farm1=entry(farm))
    api.state.event_s = 0.1
    for posts in range(1, 4):
        process = await workstation.start("farmhand", "flush", "--wait")
        for _ in range(6000):
            if len(api.posts) >= posts or process.returncode is not None:
                break
            await asyncio.sleep(0.02)
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    done = await workstation.run("farmhand", "flush", "--wait", "--json")
    assert done.status == 0, done.err
    assert {each["result"]["state"] for each in json.loads(done.out)["results"]} == {"succeeded"}
    assert sorted(received(api)) == prompts


async def test_broken_files_and_dropping(workstation: Workstation, farm: Sshd) -> None:
    workstation.write_hosts(farm1=down(farm))
    await queue(workstation, "--id", "a", "x")
    await queue(workstation, "--id", "b", "x")
    bad = spooled(workstation)[0]
    bad.write_text("{")
    workstation.write_hosts(farm1=entry(farm))
    done = await workstation.run("farmhand", "flush", "--wait")
    assert (done.status, f"{bad}: not a task" in done.err) == (3, True)
    assert b"b  succeeded  farm1" in done.out
    bad.unlink()
    workstation.write_hosts(farm1=down(farm))
    await queue(workstation, "--id", "c", "x")
    assert (await workstation.run("farmhand", "flush", "--drop", "c")).status == 0
    for arguments in (["--drop", "c"], ["--drop"], ["unknown"], ["../x"]):
        refused = await workstation.run("farmhand", "flush", *arguments)
        assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert spooled(workstation) == []


async def test_nothing_that_must_not_be_kept_is_queued(workstation: Workstation, farm: Sshd) -> None:
    workstation.write_hosts(farm1=down(farm))
    with_key = await workstation.run("claude-cheap", f"use {DEFAULT_KEY}")
    assert with_key.status == 2
    bad_id = await workstation.run("claude-cheap", "--id", "../../x", "hello")
    assert (bad_id.status, bad_id.err.count("\n")) == (2, 1)
    never = await workstation.run("claude-cheap", "--fallback", "none", "hello")
    assert (never.status, "Connection refused" in never.err) == (4, True)
    workstation.environment["FARMHAND_FALLBACK"] = "none"
    assert "queued" not in (await workstation.run("claude-cheap", "hello")).err
    assert not (workstation.home / ".local").exists()


async def test_another_host_takes_over_when_the_first_does_not_answer(
    workstation: Workstation, farm: Sshd, second: tuple[Sshd, Agent], agent: Agent
) -> None:
    workstation.write_hosts(farm1=down(farm), farm2=entry(second[0]))
    done = await workstation.run("claude-cheap", "--id", "one", "hello")
    assert (done.status, done.err.count("\n")) == (0, 1)
    assert "farm1: " in done.err
    assert "trying the next" in done.err
    await second[1].wait_state("one", "succeeded")
    workstation.write_hosts(farm1=entry(farm), farm2=entry(second[0]))
    assert (await workstation.run("claude-cheap", "--id", "two", "hello")).err == ""
    await agent.wait_state("two", "succeeded")
    workstation.write_hosts(farm1=down(farm), farm2=entry(second[0]))
    assert await queue(workstation, "--host", "farm1", "--id", "three", "hello") == "three"
    waits = await workstation.run("farmhand", "flush")
    assert waits.status == 4
    assert (await second[1].call("GET", "/v1/tasks/three"))[0] == 404


async def test_all_hosts_silent_is_one_line_that_names_each(
    workstation: Workstation, farm: Sshd, second: tuple[Sshd, Agent]
) -> None:
    workstation.write_hosts(farm1=down(farm), farm2=down(second[0]))
    done = await workstation.run("claude-cheap", "--fallback", "none", "x")
    assert done.status == 4
    last = done.err.splitlines()[-1]
    assert last.startswith("claude-cheap: no farm host answers: farm1: ")
    assert "; farm2: " in last


async def on_terminal(workstation: Workstation, typed: bytes, *arguments: str) -> tuple[Done, str]:
    """claude-cheap with stdin and stderr on a terminal, `typed` once it asks; and what the terminal showed."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        str(BIN / "claude-cheap"),
        *arguments,
        stdin=theirs,
        stderr=theirs,
        stdout=asyncio.subprocess.PIPE,
        env=workstation.environment,
        cwd=CHECKOUT,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    while b"? " not in shown:
        shown += await asyncio.wait_for(asyncio.to_thread(os.read, ours, 4096), 120)
    os.write(ours, typed)
    if typed == b"\x03":  # it has no controlling terminal here, so the signal is sent as the terminal would
        os.killpg(process.pid, signal.SIGINT)
    pieces = await asyncio.wait_for(asyncio.to_thread(read_terminal, ours), 120)
    out, _ = await process.communicate()
    os.close(ours)
    assert process.returncode is not None
    return Done(process.returncode, out, ""), (shown + b"".join(pieces)).decode()


@pytest.mark.parametrize(
    ("typed", "status", "kept"),
    [(b"\n", 4, 1), (b"q\n", 4, 1), (b"QUEUE\n", 4, 1), (b"n\n", 4, 0), (b"s\n", 4, 0), (b"what?\n", 4, 0),
     (b"\x04", 4, 0), (b"\x03", 130, 0)],
)  # fmt: skip
async def test_on_a_terminal_it_asks_once(
    workstation: Workstation, farm: Sshd, typed: bytes, status: int, kept: int
) -> None:
    workstation.write_hosts(farm1=down(farm))
    done, shown = await on_terminal(workstation, typed, "hello")
    assert (done.status, done.out) == (status, b"")
    assert "Connection refused" in shown
    assert shown.count("[Q]ueue it until a farm host is back, [n]othing? ") == 1
    assert "subscription" not in shown
    assert len(spooled(workstation)) == kept
    assert ("queued as task" in shown) == bool(kept)


async def test_the_subscription_is_offered_where_it_is_allowed_and_only_for_text(
    workstation: Workstation, farm: Sshd
) -> None:
    workstation.write_hosts(farm1=down(farm))
    workstation.environment["FARMHAND_ALLOW_SUBSCRIPTION"] = "true"
    _, shown = await on_terminal(workstation, b"n\n", "hello")
    assert "[s]ubscription" in shown
    _, shown = await on_terminal(workstation, b"n\n", "--tools", "Read", "hello")
    assert "[s]ubscription" not in shown
