"""What the agent does when the API fails, the agent dies, or the operator changes their mind."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.support.agent import KEY, Agent, bodies
from tests.support.forked import ForkedAgent
from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi


@pytest.mark.parametrize("status", [500, 504, 529])
async def test_a_passing_error_is_tried_again(agent: Agent, api: MessagesApi, status: int) -> None:
    api.fault(Fault(kind="status", status=status))
    result = await agent.run(id="one", prompt="hello")
    assert (result["state"], result["attempts"], result["retries"]) == ("succeeded", 1, 1)
    assert len(api.posts) == 2


async def test_retry_after_is_waited_for(agent: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="status", status=429, retry_after=1))
    await agent.run(id="one", prompt="hello")
    first, second = api.posts
    assert second.time - first.time >= 1.0


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(kind="status", status=403), "permission_error"),
        (Fault(kind="status", status=413), "request_too_large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_final_error_ends_the_task_at_once(agent: Agent, api: MessagesApi, fault: Fault, code: str) -> None:
    api.fault(fault)
    result = await agent.run(id="one", prompt="hello")
    assert (result["state"], result["error"]["code"]) == ("failed", code)
    assert result["error"]["hint"]
    assert len(api.posts) == 1


@pytest.mark.parametrize("kind", ["cut", "stream_error", "garbage", "stalled"])
async def test_an_answer_that_breaks_off_is_started_over(agent: Agent, api: MessagesApi, kind: str) -> None:
    api.fault(Fault(kind=kind, after_events=4))  # type: ignore[arg-type]  # the parameters above are its kinds
    await agent.submit({"id": "one", "prompt": "hello"})
    events = await agent.get("/v1/tasks/one/events")
    result = events[-1]["result"]
    assert result["state"] == "succeeded", result
    assert result["attempts"] == 2
    assert "restart" in [event["type"] for event in events]
    assert result["text"].endswith("hello")


async def test_what_a_broken_answer_used_is_counted(agent: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="cut", after_events=4))
    result = await agent.run(id="one", prompt="hello")
    whole = await agent.run(id="two", prompt="hello")
    assert result["usage"]["requests"] == 2
    assert result["usage"]["input_tokens"] == 2 * whole["usage"]["input_tokens"]
    assert result["cost_usd"] > whole["cost_usd"]


async def test_a_dead_upstream_is_one_clear_error(tmp_path: Path) -> None:
    agent = ForkedAgent(tmp_path, "http://127.0.0.1:9")
    await agent.start()
    try:
        result = await agent.run(id="one", prompt="hello", timeout_s=2)
    finally:
        await agent.stop()
    assert result["state"] == "failed"
    assert result["error"]["code"] in {"timeout", "connection"}


async def test_a_task_ends_at_its_time_limit(agent: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="slow", delay_s=30))
    result = await agent.run(id="one", prompt="hello", timeout_s=0.5)
    assert (result["state"], result["error"]["code"]) == ("failed", "timeout")
    assert "0.5 s" in result["error"]["message"]


async def test_cancel_ends_a_running_task_and_its_upstream_call(agent: Agent, api: MessagesApi) -> None:
    api.state.event_s = 0.2
    await agent.submit({"id": "one", "prompt": "a long story " * 50})
    await agent.wait_state("one", "running")
    for _ in range(6000):
        if api.posts:
            break
        await asyncio.sleep(0.02)
    status, answer = await agent.call("DELETE", "/v1/tasks/one")
    assert (status, answer["task"]["state"]) == (200, "cancelled")
    for _ in range(2400):
        if api.posts[0].aborted:
            break
        await asyncio.sleep(0.05)
    assert api.posts[0].aborted
    assert (await agent.call("DELETE", "/v1/tasks/one"))[1]["task"]["state"] == "cancelled"
    assert (await agent.result("one"))["error"]["code"] == "cancelled"


async def test_cancel_ends_a_waiting_task(agent: Agent, api: MessagesApi) -> None:
    await agent.submit({"id": "one", "prompt": "hello"}, key={})
    assert (await agent.call("DELETE", "/v1/tasks/one"))[1]["task"]["state"] == "cancelled"
    await agent.submit({"id": "two", "prompt": "hello"})
    await agent.result("two")
    assert len(api.posts) == 1
    assert (await agent.call("DELETE", "/v1/tasks/nobody"))[0] == 404


async def test_results_survive_a_crash(agent: Agent, api: MessagesApi) -> None:
    before = await agent.run(id="one", prompt="hello")
    await agent.stop(signal.SIGKILL)
    await agent.start()
    assert await agent.run(id="one", prompt="hello") == before
    assert len(api.posts) == 1


async def test_after_a_crash_tasks_await_a_key_and_go_on_with_any(agent: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="slow", delay_s=30, match="slow"))
    await agent.submit({"id": "one", "prompt": "slow one"})
    await agent.wait_state("one", "running")
    await agent.stop(signal.SIGKILL)
    await agent.start()
    assert (await agent.get("/v1/tasks/one"))["task"]["state"] == "awaiting_key"
    assert (await agent.get("/v1/status"))["key"] is None
    status, answer = await agent.call("PUT", "/v1/key", headers=KEY)
    assert (status, answer["tasks_resumed"]) == (200, 1)
    result = await agent.result("one")
    assert (result["state"], result["attempts"]) == ("succeeded", 2)


async def test_a_key_that_comes_with_another_task_wakes_the_waiting_ones(agent: Agent) -> None:
    [first] = await agent.submit({"id": "one", "prompt": "hello"}, key={})
    assert first["state"] == "awaiting_key"
    await agent.run(id="two", prompt="hello")
    assert (await agent.result("one"))["state"] == "succeeded"


async def test_each_task_runs_on_the_key_it_came_with(agent: Agent, api: MessagesApi) -> None:
    other = "sk-ant-test-other-1111111111111111"
    api.state.keys = frozenset({DEFAULT_KEY, other})
    api.state.latency_s = 0.05
    await agent.submit({"id": "one", "prompt": "first"})
    await agent.submit({"id": "two", "prompt": "second"}, key={"X-Farmhand-Key": other})
    await asyncio.gather(agent.result("one"), agent.result("two"))
    prompts = [body["messages"][0]["content"] for body in bodies(api)]
    used = dict(zip(prompts, [post.headers["x-api-key"] for post in api.posts], strict=True))
    assert used == {"first": DEFAULT_KEY, "second": other}


async def test_sigterm_lets_running_tasks_end_and_keeps_the_waiting_ones(tmp_path: Path, api: MessagesApi) -> None:
    agent = ForkedAgent(tmp_path, api.url, slots_api=1)
    await agent.start()
    api.fault(Fault(kind="slow", delay_s=1, match="running"))
    await agent.submit({"id": "one", "prompt": "running"}, {"id": "two", "prompt": "waiting"})
    await agent.wait_state("one", "running")
    assert await agent.stop(signal.SIGTERM) == 0
    await agent.start()
    try:
        assert (await agent.get("/v1/tasks/one"))["task"]["state"] == "succeeded"
        assert (await agent.get("/v1/tasks/two"))["task"]["state"] == "awaiting_key"
        assert len(api.posts) == 1
    finally:
        await agent.stop()


async def test_a_task_that_outlives_the_drain_is_kept_for_the_next_start(tmp_path: Path, api: MessagesApi) -> None:
    agent = ForkedAgent(tmp_path, api.url, drain_s=0.2)
    await agent.start()
    api.fault(Fault(kind="slow", delay_s=60))
    await agent.submit({"id": "one", "prompt": "hello"})
    await agent.wait_state("one", "running")
    watching = asyncio.create_task(agent.get("/v1/tasks/one/events"))
    await asyncio.sleep(0.2)
    # The API would take 60 seconds more.
    async with asyncio.timeout(120):
        assert await agent.stop(signal.SIGTERM) == 0
    # Who watched it is told that it has not ended.
    assert (await watching)[-1]["result"]["state"] == "queued"
    await agent.start()
    await agent.call("PUT", "/v1/key", headers=KEY)
    assert (await agent.result("one"))["attempts"] == 2
    await agent.stop()


@pytest.mark.parametrize("key", ["", "nonsense", "sk-ant-test bad key", "sk-ant-" + "x" * 600])
async def test_a_malformed_key_is_refused_unread(agent: Agent, key: str) -> None:
    status, answer = await agent.call("PUT", "/v1/key", headers={"X-Farmhand-Key": key})
    assert (status, answer["error"]["code"]) == (400, "bad_key")
    assert not key or key not in str(answer)


async def test_the_key_is_in_no_file_and_in_no_environ_or_argv(agent: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="status", status=401, message=f"invalid key {DEFAULT_KEY}"))
    await agent.submit({"id": "one", "prompt": "hello"})
    await agent.wait_state("one", "awaiting_key")
    assert DEFAULT_KEY not in str(await agent.get("/v1/status"))
    await agent.run(id="two", prompt="hello")
    for path in agent.directory.rglob("*"):
        if path.is_file():
            assert DEFAULT_KEY.encode() not in path.read_bytes(), path
    for name in ("cmdline", "environ"):
        assert DEFAULT_KEY.encode() not in Path(f"/proc/{agent.pid}/{name}").read_bytes()


async def test_the_daemon_dumps_no_core(agent: Agent) -> None:
    """That its memory is closed to other processes shows where it is not root's own: e2e/test_canary_key.py."""
    limits = Path(f"/proc/{agent.pid}/limits").read_text()
    assert "Max core file size        0                    0" in limits


async def test_a_ledger_from_the_future_is_refused_in_one_line(tmp_path: Path, api: MessagesApi) -> None:
    agent = ForkedAgent(tmp_path, api.url)
    with sqlite3.connect(tmp_path / "state" / "ledger.db") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(AssertionError, match="schema version 99"):
        await agent.start()
    assert "Traceback" not in agent.log.read_text()


async def test_a_task_that_is_cancelled_before_its_first_step_frees_its_slot(tmp_path: Path, api: MessagesApi) -> None:
    agent = ForkedAgent(tmp_path, api.url, slots_api=1)
    await agent.start()
    for n in range(20):
        task = {"id": f"t{n}", "prompt": "hello"}
        submit = agent.call("POST", "/v1/tasks", headers=KEY, body={"tasks": [task]})
        await asyncio.gather(submit, agent.call("DELETE", f"/v1/tasks/t{n}"))
    assert (await agent.run(id="last", prompt="hello"))["state"] == "succeeded"
    assert (await agent.get("/v1/status"))["slots"]["api"]["free"] == 1
    await agent.stop()


async def test_a_full_disk_is_said_and_loses_no_answer(agent: Agent, api: MessagesApi) -> None:
    """A limit on file sizes stands for the full disk: SQLite meets both in the same place."""
    api.fault(Fault(kind="slow", delay_s=0.5))
    await agent.submit({"id": "one", "prompt": "hello"})
    await agent.wait_state("one", "running")
    room = (agent.directory / "state" / "ledger.db-wal").stat().st_size
    _, most = resource.prlimit(agent.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (room, most))
    status, answer = await agent.call("POST", "/v1/tasks", headers=KEY, body={"tasks": [{"id": "two", "prompt": "x"}]})
    assert (status, answer["error"]["code"]) == (507, "ledger_stuck")
    assert "/var/lib/jada-agent" in answer["error"]["hint"]
    await asyncio.sleep(2)
    assert (await agent.get("/v1/tasks/one"))["task"]["state"] == "running"
    resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (most, most))
    result = await agent.result("one")
    assert (result["state"], result["usage"]["requests"]) == ("succeeded", 1)
    assert len(api.posts) == 1
    assert (await agent.run(id="two", prompt="x"))["state"] == "succeeded"


async def test_a_task_that_is_cancelled_twice_on_a_full_disk_ends_once_there_is_room(
    agent: Agent, api: MessagesApi
) -> None:
    api.fault(Fault(kind="slow", delay_s=30))
    await agent.submit({"id": "one", "prompt": "hello"})
    await agent.wait_state("one", "running")
    await until_asked(api)
    room = (agent.directory / "state" / "ledger.db-wal").stat().st_size
    _, most = resource.prlimit(agent.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (room, most))
    for _ in range(2):
        status, answer = await agent.call("DELETE", "/v1/tasks/one")
        assert (status, answer["error"]["code"]) == (507, "ledger_stuck")
    resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (most, most))
    task = await agent.wait_state("one", "cancelled")
    assert (task["attempts"], task["uncertain"]) == (1, 1)
    await agent.run(id="two", prompt="hello")


async def until_asked(api: MessagesApi) -> None:
    """Poll until the API has a request."""
    for _ in range(6000):
        if api.posts:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the API was not asked")
