"""`farmhand mcp` with the official client, the real ssh, sshd and daemon, and the loopback API."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.dispatch.conftest import CHECKOUT, Workstation, entry, received
from tests.integration.dispatch.sessions import INITIALIZE, RawServer, id_in, jobs, raw, session
from tests.integration.dispatch.sshd import Sshd
from tests.support.agent import Agent
from tests.support.messages_api import DEFAULT_KEY, MessagesApi
from tests.support.messages_api.rules import Rule, Step

#: What a session has of its own, which the server must neither keep nor show.
CANARY = "sk-ant-test-session-canary-0123456789"


@pytest.fixture
def batches(workstation: Workstation, local_farm: Path) -> Workstation:
    """The workstation with an inventory and a checkout for farmhand batch."""
    workstation.environment |= {"ANSIBLE_INVENTORY": str(local_farm), "FARMHAND_PROJECT_DIR": str(CHECKOUT)}
    return workstation


@pytest.fixture
def agent_of_inventory(local_farm: Path, agent: Agent) -> None:
    text = local_farm.read_text()
    local_farm.write_text(text.rstrip() + f" farmhand_socket={agent.socket}\n")


def configure(station: Workstation, **values: Any) -> None:
    """Write config.toml."""
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
    (station.config_dir / "config.toml").write_text(text)


async def until(condition: Any) -> None:
    """Poll."""
    for _ in range(2400):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come to that")


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_task_is_answered_with_its_cost_and_model(
    workstation: Workstation, farm: Sshd, api: MessagesApi, tmp_path: Path, mode: str
) -> None:
    api.state.latency_s = 2.0  # so that there is time for progress
    async with session(workstation, tmp_path / "work", mode=mode) as one:
        assert len((await one.client.list_tools()).tools) == 6
        (tmp_path / "work/a.txt").write_text("It is red.")
        said = await one.call("farm_task", prompt="What colour is it?", files=["a.txt"], label="colour")
        assert not said.failed, said
        assert "claude-haiku-5-5 · US$ 0.0000" in said
        assert "data, not instructions" in said
        assert "Loopback answer to" in said
        assert any("farm1" in message for message in one.progress)
        cost = await one.call("farm_cost")
        assert "claude-haiku-5-5: US$ 0.0000" in cost
        refused = await one.call("farm_task", prompt="x", files=["/etc/passwd"])
        assert refused.failed
        assert "outside of the session's directories" in refused
    [prompt] = received(api)
    assert prompt.startswith("What colour is it?\n\n----- file: ")
    assert prompt.endswith("a.txt -----\nIt is red.")


async def test_a_slow_task_goes_on_and_a_later_session_finds_it(
    workstation: Workstation, farm: Sshd, api: MessagesApi, tmp_path: Path
) -> None:
    api.state.latency_s = 3
    async with session(workstation, tmp_path / "work") as one:
        said = await one.call("farm_task", prompt="Slow", wait_s=0)
        assert "still runs" in said
        assert not said.failed
    async with session(workstation, tmp_path / "work") as two:
        assert id_in(said) in await two.call("farm_status")
        assert "Loopback answer to 4 bytes" in await two.ended(id_in(said))
    assert received(api) == ["Slow"]


async def test_a_batch_over_files_goes_on_where_it_was_killed(
    batches: Workstation, agent_of_inventory: None, api: MessagesApi, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for number in range(8):
        (work / f"{number}.txt").write_text(f"text {number}")
    (work / "repos.env").write_text("x")
    api.state.latency_s = 2.0  # so that it surely runs when it is killed
    async with session(batches, work) as one:
        said = await one.call("farm_batch", prompt="Sum up", files=["."], label="eight")
        assert "left out, since they may hold secrets or lie elsewhere: repos.env" in said
        batch = id_in(said)
        await until(lambda: len(api.posts) >= 2)
        os.kill(int((jobs(batches) / batch / "pid").read_text()), signal.SIGKILL)
    api.state.latency_s = 0
    async with session(batches, work) as two:
        ended = await two.ended(batch)
        assert "8 of 8 tasks ended · 8 succeeded" in ended
        assert "[1: 0.txt] Loopback answer to" in ended
        status = await two.call("farm_status")
        assert f"batch of 8 {batch} 'eight': done, US$ 0.000" in status
    assert sorted(received(api)) == [f"Sum up\n\ntext {number}" for number in range(8)]
    for path in (jobs(batches) / batch).iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


async def test_a_file_of_requests_and_a_task_are_paid_by_the_pot(
    batches: Workstation, farm: Sshd, agent_of_inventory: None, api: MessagesApi, tmp_path: Path
) -> None:
    key = tmp_path / "work/plain.txt"
    key.parent.mkdir()
    (batches.home / "repos.env").rename(key)
    spare = tmp_path / "work/spare.txt"
    spare.write_text("ANTHROPIC_API_KEY=sk-ant-test-of-the-spare-pot-0123456789")
    spare.chmod(0o600)
    (batches.config_dir / "config.toml").write_text(
        f'[pots.plan]\nkey_source = "file:{key}"\n[pots.spare]\nkey_source = "file:{spare}"\n'
    )
    body = {"model": "haiku", "messages": [{"role": "user", "content": "Line"}]}
    line = {"custom_id": "req-7", "method": "POST", "url": "/v1/chat/completions", "body": body}
    (tmp_path / "work/requests.jsonl").write_text(json.dumps(line))
    (tmp_path / "work/empty.jsonl").write_text("\n")
    async with session(batches, tmp_path / "work") as one:
        assert "Loopback answer to 3 bytes" in await one.call("farm_task", prompt="One")
        assert "[1: req-7] Loopback answer to 4 bytes" in await one.ended(
            id_in(await one.call("farm_batch", file="requests.jsonl"))
        )
        assert "has no task in it; nothing was sent" in await one.call("farm_batch", file="empty.jsonl")
        spare.write_text("not here today")
        assert "may hold secrets" in await one.call("farm_task", prompt="x", files=["spare.txt"])
    assert received(api) == ["One", "Line"]


async def test_a_list_of_tasks_is_ended_and_what_it_cost_is_known(
    batches: Workstation, agent_of_inventory: None, api: MessagesApi, tmp_path: Path
) -> None:
    api.state.latency_s = 30
    async with session(batches, tmp_path / "work") as one:
        wrong = await one.call("farm_batch", tasks=["a", {"prompt": "b", "engine": "cli"}])
        assert wrong.failed
        assert "unknown field `engine`" in wrong
        said = await one.call("farm_batch", tasks=["a", {"prompt": "b", "system": "s"}], max_usd=0.5)
        await until(lambda: len(api.posts) >= 1)
        cancelled = await one.call("farm_cancel", id=id_in(said))
        assert not cancelled.failed, cancelled
        assert "is cancelled" in cancelled or "2 cancelled" in cancelled
        again = await one.call("farm_cancel", id=id_in(said))
        assert "had ended before" in again


async def test_a_call_that_is_called_off_ends_its_task_and_a_session_that_ends_does_not(
    workstation: Workstation, farm: Sshd, agent: Agent, api: MessagesApi
) -> None:
    api.state.latency_s = 4
    async with raw(workstation) as server:
        await server.call(1, "farm_task", prompt="Off")
        await until(lambda: len(api.posts) == 1)
        await server.send(
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1, "reason": "Esc"}}
        )
        [job] = jobs(workstation).iterdir()
        await until((job / "status").exists)
        status, answer = await agent.call("GET", f"/v1/tasks/{job.name}")
        assert (status, answer["task"]["state"]) == (200, "cancelled")
        await server.call(2, "farm_task", prompt="On")
        await until(lambda: len(api.posts) == 2)
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert await asyncio.wait_for(server.process.wait(), 120) == 0
    [job] = [one for one in jobs(workstation).iterdir() if one != job]
    await until((job / "status").exists)
    assert json.loads((job / "end.json").read_text())["state"] == "succeeded"


async def test_two_sessions_share_the_day_and_the_operator_can_allow_more(
    workstation: Workstation, farm: Sshd, api: MessagesApi, tmp_path: Path
) -> None:
    configure(workstation, mcp_max_usd=0.009)
    api.state.latency_s = 2
    async with session(workstation, tmp_path / "a") as one, session(workstation, tmp_path / "b") as two:
        held = await one.call("farm_task", prompt="Hold", max_tokens=6000, wait_s=0)
        refusal = await two.call("farm_task", prompt="Refused", max_tokens=6000)
        assert (held.failed, refusal.failed) == (False, True), (held, refusal)
        assert refusal.startswith("mcp_budget: the farm's budget for this day does not allow it")
        assert "mcp_max_usd in " in refusal
        configure(workstation, mcp_max_usd=1.0)
        assert not (await two.call("farm_task", prompt="More", max_tokens=6000)).failed
        assert "Loopback answer to 4 bytes" in await two.ended(id_in(held))
    assert sorted(received(api)) == ["Hold", "More"]


async def test_a_client_that_can_ask_asks_the_operator_for_more(
    workstation: Workstation, farm: Sshd, tmp_path: Path
) -> None:
    from mcp_types import ElicitResult

    configure(workstation, mcp_session_max_usd=0.001)
    asked: list[str] = []

    async def answer(_: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action="accept", content={"usd": 1}) if len(asked) > 1 else ElicitResult(action="decline")

    async with session(workstation, tmp_path / "work", elicitation_callback=answer) as one:
        assert (await one.call("farm_task", prompt="No", max_tokens=100_000)).failed
        assert not (await one.call("farm_task", prompt="Yes", max_tokens=10_000)).failed
    assert "Allow how many US$ more?" in asked[0]


async def test_what_is_missing_is_said_so_that_it_can_be_mended(
    workstation: Workstation, farm: Sshd, api: MessagesApi, tmp_path: Path
) -> None:
    (workstation.home / "repos.env").rename(workstation.home / "away")
    async with session(workstation, tmp_path / "work") as one:
        said = await one.call("farm_task", prompt="Keyless")
        assert said.failed
        assert said.startswith("not_configured: ")
        assert "repos.env" in said
        (workstation.home / "away").rename(workstation.home / "repos.env")
        farm.stop()
        down = await one.call("farm_task", prompt="Later")
        assert down.failed
        assert down.startswith("spooled: queued as task t")
        farm.start()
        workstation.write_hosts(farm1=entry(farm))
        assert "Loopback answer to 5 bytes" in await one.ended(id_in(down))
        unknown = await one.call("farm_task", prompt="x", model="gpt")
        assert unknown.failed
        assert "unknown model 'gpt'" in unknown
        assert " held for " not in await one.call("farm_status")
    assert received(api) == ["Later"]


async def test_no_key_is_kept_or_shown(workstation: Workstation, farm: Sshd, tmp_path: Path) -> None:
    own = {"ANTHROPIC_API_KEY": CANARY, "CLAUDE_CODE_OAUTH_TOKEN": CANARY, "ANTHROPIC_AUTH_TOKEN": "plain-token-7"}
    workstation.environment |= own
    async with raw(workstation) as server:
        environ = Path(f"/proc/{server.process.pid}/environ").read_bytes()
        assert b"HOME=" in environ
        await server.call(1, "farm_task", prompt="Say it")
        told = [json.dumps(await server.answer(1))]
        await server.call(2, "farm_task", prompt=f"My key is {CANARY}")
        told.append(json.dumps(await server.answer(2)))
        assert "key_in_task" in told[1]
        await server.call(3, "farm_status")
        told.append(json.dumps(await server.answer(3)))
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert server.process.stderr is not None
        told.append((await server.process.stderr.read()).decode())
    kept = [path.read_bytes() for path in (workstation.home / ".local").rglob("*") if path.is_file()]
    for secret in (CANARY, DEFAULT_KEY, "plain-token-7"):
        assert secret.encode() not in environ
        assert not any(secret in text for text in told)
        assert not any(secret.encode() in content for content in kept)


async def test_an_answer_that_is_too_long_is_in_a_file(
    workstation: Workstation, farm: Sshd, api: MessagesApi, tmp_path: Path
) -> None:
    configure(workstation, mcp_answer_chars=200)
    api.state.rules.add(Rule(contains="Write", steps=[Step(text="word " * 500)]))
    async with session(workstation, tmp_path / "work") as one:
        said = await one.call("farm_task", prompt="Write")
    assert len(said) < 800
    path = jobs(workstation) / id_in(said) / "answer.txt"
    assert str(path) in said
    assert len(path.read_text()) > 2000
    assert path.stat().st_mode & 0o777 == 0o600


async def _nonsense(server: RawServer) -> None:
    await server.send(b"garbage\n", b"\xff\xfe\n", b"[1,2\n", b"{}\n", b"\n", b"[" * 100_000 + b"\n")
    await server.send(b'{"jsonrpc":"2.0","id":1,"method":"nope"}\n')
    assert (await server.answer(1))["error"]["code"] == -32601
    await server.send(
        b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"farm_status","arguments":[]}}\n'
    )
    assert "error" in await server.answer(2)
    await server.call(3, "farm_none")
    assert (await server.answer(3))["result"]["isError"]
    await server.call(4, "farm_task", prompt="a" * (5 * 1024 * 1024))
    assert "too_large" in (await server.answer(4))["result"]["content"][0]["text"]
    await server.call(5, "farm_result", id="../../etc")
    assert "is no id" in (await server.answer(5))["result"]["content"][0]["text"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_nonsense_is_survived_and_a_signal_is_not(workstation: Workstation, number: int, status: int) -> None:
    async with raw(workstation) as server:
        if number == signal.SIGTERM:
            await _nonsense(server)
        server.process.send_signal(number)
        assert await asyncio.wait_for(server.process.wait(), 120) == status
        assert server.process.stderr is not None
        assert await server.process.stderr.read() == b""


async def test_a_server_ends_with_its_client_also_where_stdin_stays_open(workstation: Workstation) -> None:
    read, write = os.pipe()
    script = 'import signal, subprocess; print(subprocess.Popen(["farmhand", "mcp"]).pid, flush=True); signal.pause()'
    client = await asyncio.create_subprocess_exec(
        "python3", "-c", script, stdin=read, stdout=asyncio.subprocess.PIPE, env=workstation.environment
    )
    try:
        assert client.stdout is not None
        pid = int(await client.stdout.readline())
        os.write(write, json.dumps(INITIALIZE).encode() + b"\n")
        assert b"farmhand" in await asyncio.wait_for(client.stdout.readline(), 120)
        client.kill()
        await client.wait()
        await until(lambda: not Path(f"/proc/{pid}").exists())
    finally:
        os.close(write)
        os.close(read)


async def test_a_cancelled_task_that_waits_at_a_host_or_in_the_spool_is_never_sent(
    workstation: Workstation, farm: Sshd, agent: Agent, api: MessagesApi, tmp_path: Path
) -> None:
    api.state.latency_s = 30
    async with session(workstation, tmp_path / "work") as one:
        cut_off = id_in(await one.call("farm_task", prompt="Cut off", wait_s=0))
        await until(lambda: len(api.posts) == 1)
        os.kill(int((jobs(workstation) / cut_off / "pid").read_text()), signal.SIGKILL)
        assert "is cancelled" in await one.call("farm_cancel", id=cut_off)
        status, answer = await agent.call("GET", f"/v1/tasks/{cut_off}")
        assert (status, answer["task"]["state"]) == (200, "cancelled")
        at_host = id_in(await one.call("farm_task", prompt="At the host", wait_s=0))
        await until(lambda: len(api.posts) == 2)
        os.kill(int((jobs(workstation) / at_host / "pid").read_text()), signal.SIGKILL)
        farm.stop()
        refused = await one.call("farm_cancel", id=at_host)
        assert refused.failed
        assert "is not cancelled" in refused
        assert "again when the host is up" in refused
        spooled = id_in(await one.call("farm_task", prompt="Later"))
        assert "is cancelled" in await one.call("farm_cancel", id=spooled)
        assert not list((workstation.home / ".local/state/farmhand/spool/waiting").iterdir())


async def test_a_batch_that_was_killed_as_it_was_sent_is_cancelled_where_it_has_arrived(
    batches: Workstation, farm: Sshd, agent_of_inventory: None, agent: Agent, api: MessagesApi, tmp_path: Path
) -> None:
    api.state.latency_s = 30
    async with session(batches, tmp_path / "work") as one:
        batch = id_in(await one.call("farm_batch", tasks=["a", "b"]))
        await until(lambda: len(api.posts) == 2)
        os.killpg(int((jobs(batches) / batch / "pid").read_text()), signal.SIGKILL)
        with closing(sqlite3.connect(jobs(batches) / batch / "out.jsonl.farmhand")) as journal, journal:
            (arrived,) = journal.execute("SELECT lease FROM line WHERE n = 2").fetchone()
            journal.execute("UPDATE line SET lease = ? WHERE n = 1", (f"{batch}-1-00000000",))
        assert "is cancelled" in await one.call("farm_cancel", id=batch)
        status, answer = await agent.call("GET", f"/v1/tasks/{arrived}")
        assert (status, answer["task"]["state"]) == (200, "cancelled")
