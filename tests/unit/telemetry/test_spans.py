"""Spans in this process: sent by a thread, bounded, and nobody's trouble."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from farmhand import telemetry
from farmhand.batch.names import name_after
from farmhand.core.ids import new_task_id
from farmhand.core.task import Task, Usage
from farmhand.telemetry import names
from farmhand.telemetry.spans import Tracing, code, named
from tests.support.collector import Collector


def begin(url: str, said: list[str]) -> Tracing:
    return telemetry.begin(url, "test", "farm", say=said.append)


def one_task(tracing: Tracing, **about: Any) -> None:
    span = tracing.task(Task(id="one", prompt="hello", **about), 1)
    request = span.request("claude-haiku-5-5", 100)
    request.charged(Usage(input_tokens=3, cache_read_input_tokens=4, output_tokens=5), 6_000_000, "end_turn")
    request.end()
    span.end()


async def test_what_is_sent_is_what_was_noted() -> None:
    said: list[str] = []
    async with Collector() as collector:
        tracing = begin(collector.url, said)
        one_task(tracing)
        await asyncio.to_thread(tracing.close, 60.0)
        request, own = collector.spans
    assert (request.parent, request.trace, own.parent) == (own.id, own.trace, "")
    assert own.attributes[names.COST] == request.attributes[names.COST] == 0.000006
    assert [own.attributes[name] for name in (names.INPUT, names.CACHE_READ, names.OUTPUT)] == [7, 4, 5]
    assert said == []


async def test_a_trace_that_its_caller_does_not_record_is_not_recorded() -> None:
    async with Collector() as collector:
        tracing = begin(collector.url, [])
        parent = f"00-{'a' * 32}-{'b' * 16}-00"
        span = tracing.task(Task(id="one", prompt="hello", traceparent=parent), 1)
        assert span.context is not None
        assert span.context.traceparent.startswith(f"00-{'a' * 32}-")
        assert span.context.traceparent.endswith("-00")
        span.end()
        await asyncio.to_thread(tracing.close, 60.0)
    assert collector.spans == []


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        *((status, f"answers HTTP {status}") for status in (401, 500)),
        ("moved", "answers HTTP 302"),
        ("endless", ""),
    ],
)
async def test_a_bad_answer_is_one_line(answer: int | str, what: str) -> None:
    said: list[str] = []
    async with Collector(answer) as collector:
        tracing = begin(collector.url, said)
        for _ in range(300):
            one_task(tracing)
        await asyncio.to_thread(tracing.close, 60.0)
        where = collector.url.removeprefix("http://")
    expected = [f"the collector at {where} {what}: spans are lost, tasks go on (otel_endpoint)"] if what else []
    assert said == expected
    assert {request.path for request in collector.requests} == {"/v1/traces"}


async def test_a_silent_collector_holds_neither_memory_nor_the_end() -> None:
    async with Collector("silent") as collector:
        tracing = begin(collector.url, [])
        for _ in range(5000):
            one_task(tracing)
        await collector.asked()
        [processor] = tracing._provider._active_span_processor._span_processors
        assert len(processor._batch_processor._queue) <= 2048  # type: ignore[attr-defined]
        ended = asyncio.create_task(asyncio.to_thread(tracing.close, 0.1))
        # The collector answers only when the context ends, and closing does not wait for that.
        await asyncio.wait_for(ended, 120)


def test_the_sender_begins_with_the_first_span_that_ends() -> None:
    """`farmhand batch` forks while it works, and a fork would begin the SDK's thread in the child too."""
    before = set(threading.enumerate())
    tracing = begin("http://127.0.0.1:9", [])
    span = tracing.batch("people", None)
    assert not [thread for thread in set(threading.enumerate()) - before if "Otel" in thread.name]
    span.end()
    assert [thread for thread in set(threading.enumerate()) - before if "Otel" in thread.name]
    tracing.close(0.1)


def test_a_name_that_is_not_our_own_is_a_digest() -> None:
    own = [new_task_id(), name_after("?")]
    assert [named(name) for name in own] == own
    # printf %s one | sha256sum | cut -c1-12
    assert named("one") == "7692c3ad3540"
    assert "secret" not in named(name_after("secret-plan.csv"))


def test_a_code_is_a_code() -> None:
    assert [code(text) for text in ("end_turn", "Bad Thing", "a" * 65, "../x")] == ["end_turn", *["_OTHER"] * 3]
