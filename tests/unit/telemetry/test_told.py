"""Spans that the workstation makes of a result and of the ledger's rows."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from farmhand import telemetry
from farmhand.core.trace_context import TraceContext, below
from farmhand.telemetry import names
from farmhand.telemetry.told import tell
from tests.support.collector import Collector, SeenSpan

PARENT = TraceContext(f"00-{'a' * 32}-{'b' * 16}-01", "a=1")
USED = {"input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 5, "requests": 1}
RESULT = {
    **{"id": "one", "state": "succeeded", "text": "canary", "model": "claude-haiku-5-5", "engine": "cli"},
    **{"usage": USED, "cost_usd": 0.000006, "attempts": 2, "run_s": 4.0, "stop_reason": "end_turn", "batch": "b"},
}
CHARGE = {"task": "one", "model": "claude-haiku-5-5", "created_at": 1.8e9, "attempt": 2, "cost_usd": 0.000002}
ENDED = json.dumps({"id": "one", "started_at": 1.8e9 - 7, "finished_at": 1.8e9 + 2}).encode()


async def told(result: dict[str, Any], parent: TraceContext | None = PARENT, **about: Any) -> list[SeenSpan]:
    """The spans that come of it."""
    async with Collector() as collector:
        tracing = telemetry.begin(collector.url, "farmhand", "docker", say=pytest.fail)
        tell(tracing, result, parent, **about)
        await asyncio.to_thread(tracing.close, 60.0)
    assert collector.refused == []
    assert b"canary" not in collector.bytes
    return collector.spans


async def test_a_task_has_its_own_span_and_one_for_each_charge() -> None:
    own = below(PARENT)
    charges = [json.dumps(CHARGE | USED).encode(), json.dumps(CHARGE | {"economy": True}).encode(), b"{}", b"garbage"]
    request, task = await told(RESULT, own=own, finished=ENDED, charges=charges)
    shared = {
        names.PLACE: "docker",
        names.TASK_ID: "7692c3ad3540",  # printf %s one | sha256sum | cut -c1-12
        names.IN_BATCH: "3e23e8160039",  # printf %s b | …
        names.ENGINE: "cli",
        names.MODEL: "claude-haiku-5-5",
        names.ATTEMPT: 2,
        names.INPUT: 7,
        names.OUTPUT: 5,
        names.CACHE_READ: 4,
        names.CACHE_CREATION: 0,
    }
    assert task.attributes == shared | {names.COST: 0.000006, names.FINISH: ["end_turn"]}
    about = {names.OPERATION: "chat", names.PROVIDER: "anthropic", names.COST: 0.000002}
    assert request.attributes == shared | about
    assert (task.name, task.traceparent, task.parent, task.state) == ("farmhand.task", own.traceparent, "b" * 16, "a=1")
    assert (request.name, request.trace, request.parent) == ("chat claude-haiku-5-5", "a" * 32, task.id)
    assert (task.seconds, request.seconds, request.kind) == (9.0, 0.0, 3)


async def test_without_the_ledger_a_task_ends_now() -> None:
    [task] = await told(RESULT | {"state": "failed", "error": {"code": "timeout", "message": "canary"}}, None)
    assert (task.attributes[names.ERROR], task.failed, task.parent) == ("timeout", True, "")
    assert task.seconds == pytest.approx(4.0, abs=0.001)


async def test_of_a_task_that_was_cut_off_nothing_is_made_up() -> None:
    [task] = await told({"id": "one", "state": "cancelled", "attempts": 1})
    assert task.attributes.keys() == {names.PLACE, names.TASK_ID, names.ATTEMPT, names.ERROR}
    assert task.attributes[names.ERROR] == "cancelled"


@pytest.mark.parametrize(
    "result",
    [
        {"id": "one", "state": "cancelled"},
        RESULT | {"state": "cancelled", "attempts": 0},
        RESULT | {"usage": {"input_tokens": 2**60}},
        RESULT | {"cost_usd": float("inf")},
        {"state": "succeeded"},
    ],
    ids=["taken back", "never begun", "tokens", "cost", "no id"],
)
async def test_nothing_is_told_of_what_never_ran_or_cannot_be(result: dict[str, Any]) -> None:
    assert await told(result) == []


async def test_a_name_that_is_none_and_a_trace_that_is_not_recorded_are_not_sent() -> None:
    [task] = await told(RESULT | {"model": "the canary's prompt", "engine": "canary", "stop_reason": "a canary"})
    assert (task.attributes[names.MODEL], task.attributes[names.FINISH]) == (names.OTHER, [names.OTHER])
    assert names.ENGINE not in task.attributes
    unsampled = TraceContext(f"00-{'a' * 32}-{'b' * 16}-00")
    assert await told(RESULT, unsampled, own=below(unsampled)) == []
