"""Message Batches of the loopback API, through the official SDK: how they go on and what comes of them."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import anthropic
import pytest

from tests.support.messages_api import DEFAULT_KEY, BatchFault, MessagesApi, Plan, Rule, Step
from tests.support.messages_api.answer import echo

OLD = "claude-haiku-4-5"
WAITS = Plan(after_ms=None)


def asks(count: int, **changes: Any) -> Any:
    return [
        {
            "custom_id": f"ask-{i}",
            "params": {"model": OLD, "max_tokens": 100, "messages": [{"role": "user", "content": f"hello {i}"}]}
            | changes,
        }
        for i in range(count)
    ]


async def ended(client: anthropic.AsyncAnthropic, id_: str) -> Any:
    async with asyncio.timeout(120):
        while (batch := await client.messages.batches.retrieve(id_)).processing_status != "ended":  # noqa: ASYNC110  # as a client polls
            await asyncio.sleep(0.01)
    return batch


async def results(client: anthropic.AsyncAnthropic, id_: str) -> dict[str, Any]:
    found = [line async for line in await client.messages.batches.results(id_)]
    assert len({line.custom_id for line in found}) == len(found)
    return {line.custom_id: line.result for line in found}


def kinds(found: dict[str, Any]) -> list[str]:
    return [found[f"ask-{i}"].type for i in range(len(found))]


async def test_from_creation_to_results(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    api.rule(Rule(contains="hello 1", steps=[Step(text="scripted")]))
    batch = await client.messages.batches.create(requests=asks(3))
    assert batch.id.startswith("msgbatch_01")
    assert (batch.type, batch.processing_status) == ("message_batch", "in_progress")
    assert batch.request_counts.model_dump() == {
        "processing": 3, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0,
    }  # fmt: skip
    assert batch.expires_at - batch.created_at == timedelta(days=1)
    assert (batch.results_url, batch.ended_at, batch.cancel_initiated_at, batch.archived_at) == (None,) * 4
    over = await ended(client, batch.id)
    assert (over.request_counts.processing, over.request_counts.succeeded) == (0, 3)
    assert over.results_url == f"{api.url}/v1/messages/batches/{batch.id}/results"
    assert over.ended_at >= over.created_at == batch.created_at
    found = await results(client, batch.id)
    assert [found[f"ask-{i}"].message.content[0].text for i in range(3)] == [
        echo("hello 0"),
        "scripted",
        echo("hello 2"),
    ]
    message = found["ask-0"].message
    assert (message.model, message.stop_reason) == ("claude-haiku-4-5-20251001", "end_turn")
    assert (message.usage.input_tokens, message.usage.service_tier) == (10, "batch")
    assert message.usage.output_tokens == (await client.messages.create(**asks(1)[0]["params"])).usage.output_tokens


async def test_results_come_in_another_order(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    orders = {}
    for order in ("shuffled", "given", "reversed"):
        api.batches.plan = Plan(order=order)
        batch = await client.messages.batches.create(requests=asks(40))
        await ended(client, batch.id)
        orders[order] = [line.custom_id async for line in await client.messages.batches.results(batch.id)]
        assert orders[order] == [line.custom_id async for line in await client.messages.batches.results(batch.id)]
    given = [f"ask-{i}" for i in range(40)]
    assert orders["given"] == given
    assert orders["reversed"] == given[::-1]
    assert sorted(orders["shuffled"]) == sorted(given)
    assert orders["shuffled"] not in (given, given[::-1])


async def test_scripted_faults_of_single_requests(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    api.batch_fault(
        BatchFault(custom_id="ask-1", status=529),
        BatchFault(custom_id="ask-2", result="expired"),
        BatchFault(match="hello 3", status=500, message="it broke"),
        BatchFault(model="claude-sonnet-5-5", count=-1, status=429),
        BatchFault(match="hello", skip=2, result="expired"),
    )
    requests = [*asks(6), *[{**r, "custom_id": "other"} for r in asks(1, model="claude-sonnet-5-5")]]
    batch = await client.messages.batches.create(requests=requests)
    await ended(client, batch.id)
    found = await results(client, batch.id)
    other = found.pop("other")
    assert (other.type, other.error.error.type) == ("errored", "rate_limit_error")
    assert kinds(found) == ["succeeded", "errored", "expired", "errored", "succeeded", "expired"]
    assert found["ask-1"].error.error.type == "overloaded_error"
    assert (found["ask-3"].error.error.type, found["ask-3"].error.error.message) == ("api_error", "it broke")
    assert [fault.model for fault in api.batches.faults.pending()] == ["claude-sonnet-5-5"]


async def test_cancel_keeps_what_was_done(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    api.batches.plan = Plan(after_ms=None, cancel_ms=60_000, in_flight=2)
    batch = await client.messages.batches.create(requests=asks(10))
    await api.advance(action="process", fraction=0.3)
    assert (await client.messages.batches.retrieve(batch.id)).request_counts.processing == 10
    first = await client.messages.batches.cancel(batch.id)
    assert first.processing_status == "canceling"
    assert first.cancel_initiated_at is not None
    assert (first.request_counts.processing, first.results_url) == (10, None)
    again = await client.messages.batches.cancel(batch.id)
    assert again.cancel_initiated_at == first.cancel_initiated_at
    await api.advance(action="finish")
    over = await client.messages.batches.retrieve(batch.id)
    assert (over.processing_status, over.cancel_initiated_at) == ("ended", first.cancel_initiated_at)
    assert (over.request_counts.succeeded, over.request_counts.canceled) == (5, 5)
    assert kinds(await results(client, batch.id)) == ["succeeded"] * 5 + ["canceled"] * 5


async def test_cancelling_ends_by_itself(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    api.batches.plan = Plan(after_ms=None, cancel_ms=50)
    batch = await client.messages.batches.create(requests=asks(3))
    assert (await client.messages.batches.cancel(batch.id)).processing_status == "canceling"
    over = await ended(client, batch.id)
    assert over.request_counts.canceled == 3
    assert over.ended_at - over.cancel_initiated_at >= timedelta(milliseconds=50)


async def test_it_takes_the_time_of_its_plan(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    api.batches.plan = Plan(after_ms=1500)
    started = time.monotonic()
    batch = await client.messages.batches.create(requests=asks(8))
    await asyncio.sleep(0.4)
    assert 1 <= api.batches.get(batch.id).done <= 7
    assert (await client.messages.batches.retrieve(batch.id)).processing_status == "in_progress"
    await ended(client, batch.id)
    assert time.monotonic() - started >= 1.5


async def test_finish_later(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    api.batches.plan = WAITS
    one, two = [await client.messages.batches.create(requests=asks(2)) for _ in range(2)]
    await api.advance(action="finish", id=one.id, after_ms=100)
    assert (await client.messages.batches.retrieve(one.id)).processing_status == "in_progress"
    over = await ended(client, one.id)
    assert over.ended_at - over.created_at >= timedelta(milliseconds=100)
    assert (await client.messages.batches.retrieve(two.id)).processing_status == "in_progress"


@pytest.mark.parametrize("by_clock", [True, False])
async def test_a_batch_expires(api: MessagesApi, client: anthropic.AsyncAnthropic, *, by_clock: bool) -> None:
    api.batches.plan = Plan(after_ms=None, expires_ms=1000 if by_clock else 60_000)
    batch = await client.messages.batches.create(requests=asks(4))
    await api.advance(action="process", fraction=0.5)
    if not by_clock:
        await api.advance(action="expire")
    over = await ended(client, batch.id)
    assert (over.request_counts.succeeded, over.request_counts.expired) == (2, 2)
    assert over.cancel_initiated_at is None
    assert kinds(await results(client, batch.id)) == ["succeeded", "succeeded", "expired", "expired"]


async def test_results_are_gone_when_archived(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    batch = await client.messages.batches.create(requests=asks(1))
    await ended(client, batch.id)
    await api.advance(action="archive")
    over = await client.messages.batches.retrieve(batch.id)
    assert over.archived_at is not None
    assert over.results_url is None
    with pytest.raises(anthropic.AnthropicError, match="No `results_url`"):
        await client.messages.batches.results(batch.id)


async def test_list_and_paging(client: anthropic.AsyncAnthropic) -> None:
    empty = await client.messages.batches.list()
    assert (empty.data, empty.has_more, empty.first_id, empty.last_id) == ([], False, None, None)
    made = [(await client.messages.batches.create(requests=asks(1))).id for _ in range(5)][::-1]
    assert [batch.id async for batch in client.messages.batches.list(limit=2)] == made
    page = await client.messages.batches.list(limit=2, after_id=made[1])
    assert ([b.id for b in page.data], page.has_more) == (made[2:4], True)
    assert (page.first_id, page.last_id) == (made[2], made[3])
    page = await client.messages.batches.list(limit=2, before_id=made[3])
    assert ([b.id for b in page.data], page.has_more) == (made[1:3], True)
    page = await client.messages.batches.list(limit=2, before_id=made[1])
    assert ([b.id for b in page.data], page.has_more) == (made[:1], False)


async def test_delete(client: anthropic.AsyncAnthropic) -> None:
    batch = await client.messages.batches.create(requests=asks(1))
    await ended(client, batch.id)
    gone = await client.messages.batches.delete(batch.id)
    assert (gone.id, gone.type) == (batch.id, "message_batch_deleted")
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.batches.retrieve(batch.id)
    assert [b.id async for b in client.messages.batches.list()] == []


async def test_the_log_has_each_request_and_the_ring_no_large_body(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    async with (
        MessagesApi(log_file=file, batch_plan=Plan(order="given")) as api,
        anthropic.AsyncAnthropic(api_key=DEFAULT_KEY, base_url=api.url, max_retries=0) as client,
    ):
        batch = await client.messages.batches.create(requests=asks(3, system="x" * 400_000))
        await ended(client, batch.id)
        used = {name: result.message.usage for name, result in (await results(client, batch.id)).items()}
        created = api.log[0]
        assert (created.path, created.batch, created.body) == ("/v1/messages/batches", batch.id, "")
        assert created.size > 1_100_000
        assert {entry.batch for entry in api.log} == {batch.id}
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    processed = [line for line in lines if line["method"] == "BATCH"]
    assert [line["custom_id"] for line in processed] == ["ask-0", "ask-1", "ask-2"]
    assert {(line["n"], line["batch"], line["result"], line["status"]) for line in processed} == {
        (created.n, batch.id, "succeeded", 200)
    }
    for line in processed:
        assert line["usage"]["input_tokens"] == used[line["custom_id"]].input_tokens


async def test_ten_thousand_requests(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    requests = asks(10_000, system="Answer in one word. " * 20)
    batch = await client.messages.batches.create(requests=requests)
    served = 0
    while api.batches.get(batch.id).ended is None:
        await client.messages.batches.retrieve(batch.id)
        served += 1
    assert served > 5, "others are not served while it works"
    found = await results(client, batch.id)
    assert kinds(found) == ["succeeded"] * 10_000
    assert found["ask-9999"].message.content[0].text == echo("hello 9999")
