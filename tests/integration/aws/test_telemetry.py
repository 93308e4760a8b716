"""Spans of a task on Fargate: told by the workstation, from its result and the ledger that its container left."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from farmhand.cli.carry import task_span
from farmhand.cli.cloud import task as on_fargate
from farmhand.core.shard import LedgerPart, SingleOrder
from farmhand.telemetry import names
from tests.integration.aws.test_run_task import Single, single
from tests.support.aws_place import CONF
from tests.support.collector import Collector

__all__ = ["single"]
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def send(single: Single, url: str) -> None:
    """The command, from the task on."""
    with task_span(CONF._replace(place="fargate", otel_endpoint=url)) as span:
        assert on_fargate.run(single.task(), span)["text"] == "hi"


async def test_a_task_on_fargate(single: Single, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", f"00-{TRACE}-{SPAN}-01")
    charge = {"task": "t1", "model": "claude-haiku-5-5", "created_at": 1.8e9, "attempt": 1, "cost_usd": 0.5}
    ended = {"id": "t1", "started_at": 1.8e9 - 30, "finished_at": 1.8e9 + 5}
    head = msgspec.to_builtins(LedgerPart(ledger="x", charges=2, finished=1))
    rows = "".join(json.dumps(row) + "\n" for row in (head, charge, charge, ended))
    single.put(single.keys.ledgers(0, 0) + "1-0001.jsonl", rows.encode())
    single.put(single.keys.ledgers(0, 0) + "1-0002.jsonl", b"damaged\n")
    single.ecs.plays = [single.leaves(model="claude-haiku-5-5", attempts=1)]
    async with Collector() as collector:
        await asyncio.to_thread(send, single, collector.url)
        first, second, task = await collector.until(3)
        sent = msgspec.json.decode(single.get(single.keys.single), type=SingleOrder).task["traceparent"]
        # In another trace it is the same task, which has had its spans.
        monkeypatch.setenv("TRACEPARENT", f"00-{'1' * 32}-{SPAN}-01")
        await asyncio.to_thread(send, single, collector.url)
    assert (task.trace, task.parent, task.traceparent, task.seconds) == (TRACE, SPAN, sent, 35.0)
    assert (task.attributes[names.PLACE], task.attributes[names.COST]) == ("fargate", 0.5)
    assert {(one.name, one.parent) for one in (first, second)} == {("chat claude-haiku-5-5", task.id)}
    assert (len(collector.spans), len(single.ecs.requests), collector.refused) == (3, 1, [])
    assert b"hello" not in collector.bytes
