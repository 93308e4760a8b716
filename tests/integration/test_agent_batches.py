"""Batches on the wire: limits, results as they come, cancelling, priorities, records in order, draining."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.story import tables
from tests.support.agent import KEY, Agent, bodies, wait_batch
from tests.support.forked import ForkedAgent
from tests.support.messages_api import Fault, MessagesApi


def tasks(count: int, batch: str = "b", **more: Any) -> list[dict[str, Any]]:
    """`count` tasks of a batch, called batch-0 and on."""
    return [{"id": f"{batch}-{n}", "prompt": f"{batch} {n}", "batch": batch, **more} for n in range(count)]


def asked(api: MessagesApi) -> list[str]:
    """The prompts that the API got, in order."""
    return [body["messages"][0]["content"] for body in bodies(api)]


@pytest.fixture
async def narrow(tmp_path: Path, api: MessagesApi) -> Any:
    """An agent with one slot."""
    agent = ForkedAgent(tmp_path, api.url, slots_api=1, drain_s=5.0)
    await agent.start()
    yield agent
    await agent.stop()


async def posted(api: MessagesApi, count: int) -> None:
    """Poll until the API has got so many requests."""
    for _ in range(6000):
        if len(api.posts) >= count:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{len(api.posts)} requests came, not {count}")


async def test_the_higher_priority_runs_first_and_equal_ones_as_they_came(narrow: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="slow", delay_s=0.5, match="first"))
    await narrow.submit({"id": "first", "prompt": "first"})
    await narrow.wait_state("first", "running")
    await narrow.submit(*tasks(3, "low"), *tasks(3, "high", priority=5))
    await narrow.submit({"id": "highest", "prompt": "highest", "priority": 9})
    await wait_batch(narrow, "low", succeeded=3)
    assert asked(api)[1:] == ["highest", "high 0", "high 1", "high 2", "low 0", "low 1", "low 2"]


async def test_a_batch_runs_no_more_at_once_than_it_may_and_holds_up_no_other(agent: Agent, api: MessagesApi) -> None:
    api.state.latency_s = 0.1
    status, answer = await agent.call("PUT", "/v1/batches/few", body={"max_usd": None, "concurrency": 2})
    assert (status, answer["batch"]["concurrency"], answer["batch"]["queued"]) == (200, 2, 0)
    await agent.submit(*tasks(60, "few", priority=9))
    await agent.submit(*tasks(20, "other"))
    waits = (await agent.get("/v1/status"))["waiting"]
    assert "batch_concurrency" in [wait["reason"] for wait in waits]
    await wait_batch(agent, "other", succeeded=20)
    assert (await agent.get("/v1/batches/few"))["batch"]["queued"] > 0
    await agent.call("PUT", "/v1/batches/few", body={"concurrency": None})
    await wait_batch(agent, "few", succeeded=60)
    assert max_under_way(api, "few", until="other 19") <= 2


def max_under_way(api: MessagesApi, batch: str, until: str) -> int:
    """How many requests of the batch were under way at once, by the API's log, before the one called `until`."""
    prompts = asked(api)
    posts = list(zip(prompts, api.posts, strict=True))[: prompts.index(until)]
    starts = sorted(post.time for prompt, post in posts if prompt.startswith(batch))
    # Each takes 0.1 s at least.
    return max(sum(start - 0.09 <= other <= start for other in starts) for start in starts)


async def test_results_come_in_pages_in_the_order_of_finishing(agent: Agent) -> None:
    await agent.submit(*tasks(25))
    await wait_batch(agent, "b", succeeded=25)
    seen, after = [], 0
    while True:
        page = await agent.get(f"/v1/results?batch=b&after={after}&limit=10")
        if not page["results"]:
            break
        numbers = [result["finish_seq"] for result in page["results"]]
        assert numbers == sorted(numbers)
        assert page["next"] == numbers[-1]
        seen += [result["id"] for result in page["results"]]
        after = page["next"]
    assert page["next"] == after
    assert page["unfinished"] == 0
    assert sorted(seen) == sorted(task["id"] for task in tasks(25))
    assert len(seen) == 25


async def test_results_wake_who_waits_for_them_at_once(agent: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="slow", delay_s=1.0))
    await agent.submit(*tasks(1))
    before = time.monotonic()
    page = await agent.get("/v1/results?batch=b&wait_s=30")
    assert [result["id"] for result in page["results"]] == ["b-0"]
    assert time.monotonic() - before < 25
    # Nothing is unfinished: there is nothing to wait for.
    page = await agent.get(f"/v1/results?batch=b&after={page['next']}&wait_s=30")
    assert (page["results"], page["unfinished"]) == ([], 0)
    assert time.monotonic() - before < 25


async def test_waiting_for_results_ends_with_its_time_and_says_why_there_are_none(agent: Agent) -> None:
    await agent.submit(*tasks(2), key={})
    page = await agent.get("/v1/results?batch=b&wait_s=0.3")
    assert (page["results"], page["next"], page["unfinished"]) == ([], 0, 2)
    assert [(wait["reason"], wait["tasks"]) for wait in page["waiting"]] == [("no_key", 2)]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("results", 400),
        ("results?batch=nobody", 404),
        ("results?batch=b&after=x", 400),
        ("results?batch=b&limit=0", 400),
        ("results?batch=b&limit=1001", 400),
        ("results?batch=b&wait_s=31", 400),
        ("batches/nobody", 404),
        ("charges?limit=10001", 400),
        ("finished?after=-1", 400),
    ],
)
async def test_a_bad_query_is_refused(agent: Agent, query: str, status: int) -> None:
    await agent.submit(*tasks(1), key={})
    given, answer = await agent.call("GET", f"/v1/{query}")
    assert given == status
    assert "\n" not in answer["error"]["message"]
    if status == 404:
        assert answer["error"]["code"] == "no_such_batch"


@pytest.mark.parametrize("body", [{"concurrency": 0}, {"max_usd": -1}, {"max_usd": "x"}, {"colour": 1}, []])
async def test_bad_limits_of_a_batch_are_refused(agent: Agent, body: Any) -> None:
    status, answer = await agent.call("PUT", "/v1/batches/b", body=body)
    assert (status, answer["error"]["code"]) == (400, "invalid_batch")


async def test_cancelling_a_batch_ends_what_runs_and_what_waits(narrow: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="slow", delay_s=30, match="b 0"))
    await narrow.submit(*tasks(30), *tasks(2, "other"))
    await narrow.wait_state("b-0", "running")
    watching = asyncio.create_task(narrow.get("/v1/results?batch=b&wait_s=30"))
    status, answer = await narrow.call("DELETE", "/v1/batches/b")
    assert (status, answer["cancelled"]) == (200, 30)
    assert (answer["batch"]["cancelled"], answer["batch"]["queued"], answer["batch"]["running"]) == (30, 0, 0)
    assert (await watching)["results"]
    await wait_batch(narrow, "other", succeeded=2)
    assert "b 1" not in asked(api)
    assert (await narrow.call("DELETE", "/v1/batches/b"))[1]["cancelled"] == 0
    assert (await narrow.call("DELETE", "/v1/batches/nobody"))[0] == 404
    running = (await narrow.get("/v1/tasks/b-0"))["task"]
    assert (running["state"], running["attempts"]) == ("cancelled", 1)


async def test_a_request_that_was_under_way_when_it_was_cancelled_is_uncertain(agent: Agent, api: MessagesApi) -> None:
    api.state.event_s = 0.2
    await agent.submit({"id": "one", "prompt": "a long story " * 50, "batch": "b"})
    await posted(api, 1)
    await agent.call("DELETE", "/v1/tasks/one")
    assert (await agent.get("/v1/tasks/one"))["task"]["uncertain"] == 1
    assert (await agent.get("/v1/batches/b"))["batch"]["uncertain"] == 1


async def test_many_tasks_are_cancelled_at_once(narrow: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="slow", delay_s=30, match="b 0"))
    await narrow.submit(*tasks(4))
    await narrow.wait_state("b-0", "running")
    status, answer = await narrow.call("POST", "/v1/tasks/cancel", body={"ids": ["b-0", "b-2", "nobody"]})
    assert status == 200
    assert {task["id"]: task["state"] for task in answer["tasks"]} == {
        "b-0": "cancelled", "b-2": "cancelled", "nobody": "unknown",
    }  # fmt: skip
    await wait_batch(narrow, "b", succeeded=2, cancelled=2)
    assert (await narrow.call("POST", "/v1/tasks/cancel", body={"ids": ["x"] * 1001}))[0] == 400
    assert (await narrow.call("POST", "/v1/tasks/cancel", body=b"nonsense"))[0] == 400


async def test_a_task_that_begins_in_the_slot_of_another_that_is_cancelled_ends_too(
    narrow: Agent, api: MessagesApi
) -> None:
    api.fault(Fault(kind="slow", delay_s=30, count=-1))
    await narrow.submit(*tasks(3))
    await narrow.wait_state("b-0", "running")
    await narrow.call("POST", "/v1/tasks/cancel", body={"ids": ["b-0", "b-1", "b-2"]})
    ledger = tables(narrow.directory / "state" / "ledger.db")
    assert {row["state"] for row in ledger["task"]} == {"cancelled"}
    assert {row["outcome"] for row in ledger["attempt"]} == {"cancelled"}
    assert len(ledger["reservation"]) == sum(row["uncertain"] for row in ledger["task"])


async def test_every_charge_and_every_finished_task_is_handed_out_in_order(agent: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="cut", after_events=4, match="b 1"))
    await agent.submit(*tasks(3, labels={"team": "x"}, work_class="sorting"))
    batch = await wait_batch(agent, "b", succeeded=3)
    charges = await agent.get("/v1/charges")
    assert len(charges) == len(api.posts) == 4
    assert [charge["charge_id"] for charge in charges] == sorted(charge["charge_id"] for charge in charges)
    assert all(charge["request_id"] for charge in charges)
    assert {charge["task"] for charge in charges} == {"b-0", "b-1", "b-2"}
    assert {(one["batch"], one["work_class"], one["engine"], one["economy"]) for one in charges} == {
        ("b", "sorting", "api", False)
    }
    assert charges[0]["labels"] == {"team": "x"}
    finished = await agent.get("/v1/finished")
    assert [one["finish_seq"] for one in finished] == [1, 2, 3]
    assert sum(Decimal(str(one["cost_usd"])) for one in charges) == Decimal(str(batch["cost_usd"]))
    assert sum(Decimal(str(one["cost_usd"])) for one in finished) == Decimal(str(batch["cost_usd"]))
    assert {one["id"]: (one["attempts"], one["uncertain"]) for one in finished} == {
        "b-0": (1, 0), "b-1": (2, 1), "b-2": (1, 0),
    }  # fmt: skip
    assert "text" not in finished[0]
    assert await agent.get(f"/v1/charges?after={charges[1]['charge_id']}&limit=1") == [charges[2]]
    assert await agent.get("/v1/finished?after=2") == [finished[2]]


async def test_a_drain_that_lets_the_queue_end(narrow: Agent, api: MessagesApi) -> None:
    api.state.latency_s = 0.02
    await narrow.submit(*tasks(5))
    status, answer = await narrow.call("PUT", "/v1/drain", body={"mode": "queue"})
    assert (status, answer["state"]) == (200, "draining")
    status, answer = await narrow.call("POST", "/v1/tasks", headers=KEY, body={"tasks": tasks(1, "late")})
    assert (status, answer["error"]["code"]) == (503, "draining")
    await wait_batch(narrow, "b", succeeded=5)
    await narrow.call("PUT", "/v1/drain", body={"mode": "off"})
    assert (await narrow.run(id="late", prompt="late"))["state"] == "succeeded"
    assert (await narrow.call("PUT", "/v1/drain", body={"mode": "maybe"}))[0] == 400


async def test_a_drain_that_starts_nothing_new_is_over_with_a_restart(narrow: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="slow", delay_s=1.0, match="b 0"))
    await narrow.submit(*tasks(3))
    await narrow.wait_state("b-0", "running")
    await narrow.call("PUT", "/v1/drain", body={"mode": "running"})
    await wait_batch(narrow, "b", succeeded=1, queued=2)
    assert "draining" in [wait["reason"] for wait in (await narrow.get("/v1/status"))["waiting"]]
    await narrow.stop(signal.SIGTERM)
    await narrow.start()
    assert (await narrow.get("/v1/status"))["state"] == "running"
    await narrow.call("PUT", "/v1/key", headers=KEY)
    await wait_batch(narrow, "b", succeeded=3)


async def test_status_tells_what_happens(narrow: Agent, api: MessagesApi) -> None:
    one = await narrow.run(id="one", prompt="hello")
    assert (await narrow.get("/v1/status"))["spent_today_usd"] == one["cost_usd"]
    api.fault(Fault(kind="slow", delay_s=2.0, match="b 0"))
    await narrow.submit(*tasks(4))
    await narrow.wait_state("b-0", "running")
    status = await narrow.get("/v1/status")
    assert status["throughput"]["per_s"] > 0
    assert [(wait["reason"], wait["tasks"]) for wait in status["waiting"]] == [("slots", 3)]
    assert [(key["state"], key["running"], key["queued"]) for key in status["keys"]] == [("held", 1, 3)]
    assert status["ledger"]["tasks"] == 5
    assert status["ledger"]["bytes"] > 0
    assert status["budget_day"] is None
    # The money of the day without any budget, and what is under way.
    assert status["batches"] == [{"name": "b", "tasks": 4, "done": 0, "failed": 0, "cost_usd": 0}]
    await wait_batch(narrow, "b", succeeded=4)
    after = await narrow.get("/v1/status")
    assert after["batches"] == []
    batch = (await narrow.get("/v1/batches/b"))["batch"]
    assert after["spent_today_usd"] == pytest.approx(one["cost_usd"] + batch["cost_usd"])


async def test_tasks_in_flight_at_a_kill_are_counted_marked_and_run_again(agent: Agent, api: MessagesApi) -> None:
    api.fault(
        Fault(kind="slow", delay_s=30, match="b 1", count=1), Fault(kind="slow", delay_s=30, match="b 2", count=1)
    )
    await agent.submit(*tasks(4))
    await wait_batch(agent, "b", succeeded=2, running=2)
    await posted(api, 4)
    await agent.stop(signal.SIGKILL)
    await agent.start()
    batch = await wait_batch(agent, "b", succeeded=2, awaiting_key=2)
    assert batch["uncertain"] == 2
    await agent.call("PUT", "/v1/key", headers=KEY)
    await wait_batch(agent, "b", succeeded=4)
    finished = {one["id"]: one for one in await agent.get("/v1/finished")}
    assert {name: (one["attempts"], one["uncertain"]) for name, one in finished.items()} == {
        "b-0": (1, 0), "b-1": (2, 1), "b-2": (2, 1), "b-3": (1, 0),
    }  # fmt: skip
    assert sorted(asked(api)) == sorted(["b 0", "b 1", "b 2", "b 3", "b 1", "b 2"])


async def test_what_retention_took_is_gone_and_is_said(tmp_path: Path, api: MessagesApi) -> None:
    agent = ForkedAgent(tmp_path, api.url)
    await agent.start()
    await agent.submit(*tasks(1))
    await wait_batch(agent, "b", succeeded=1)
    await agent.stop()
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "ledger.db")) as db, db:
        db.execute("UPDATE task SET finished_at = finished_at - 31 * 86400")
    await agent.start()
    try:
        for _ in range(2400):
            status, answer = await agent.call("GET", "/v1/tasks/b-0")
            if status == 410:
                break
            await asyncio.sleep(0.05)
        assert (status, answer["error"]["code"]) == (410, "pruned")
        status, answer = await agent.call("POST", "/v1/tasks", headers=KEY, body={"tasks": tasks(1)})
        assert (status, answer["error"]["code"]) == (409, "id_conflict")
        assert "was run, and its content is pruned" in answer["error"]["message"]
        assert [one["id"] for one in await agent.get("/v1/finished")] == ["b-0"]
        [result] = (await agent.get("/v1/results?batch=b"))["results"]
        assert (result["state"], result["text"], result["error"]["code"]) == ("succeeded", "", "pruned")
    finally:
        await agent.stop()
