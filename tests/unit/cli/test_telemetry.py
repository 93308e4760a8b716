"""What `otel_endpoint` means to a call that sends one task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from farmhand.cli import telemetry
from farmhand.cli.telemetry import TaskSpan
from farmhand.core.errors import NotConfigured, WireError
from farmhand.core.settings import PLACE_NAMES, Settings
from farmhand.places.base import TaskRows
from farmhand.telemetry import names
from tests.support.collector import Collector, SeenSpan

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"
RESULT = {"id": "one", "state": "succeeded", "attempts": 1}


@pytest.fixture(autouse=True)
def caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", PARENT)


def lost() -> TaskRows:
    """The place cannot be asked any more."""
    raise WireError("lost", "the connection was lost")


async def sent(
    place: str, does: Callable[[TaskSpan], None], off: bool = False
) -> tuple[dict[str, str], list[SeenSpan]]:
    """What a task at the place is sent with, and the spans of the call."""
    async with Collector() as collector:

        def call() -> dict[str, str]:
            conf = Settings(place=place, otel_endpoint="none" if off else collector.url)
            with telemetry.task_span(conf, pytest.fail) as span:
                does(span)
            return span.fields

        return await asyncio.to_thread(call), collector.spans


async def test_on_the_farm_the_agent_makes_the_spans() -> None:
    fields, spans = await sent(PLACE_NAMES[0], lambda span: span.ended(RESULT, lost))
    assert (fields, spans) == ({"traceparent": PARENT}, [])


@pytest.mark.parametrize("place", PLACE_NAMES[1:])
async def test_elsewhere_the_call_does_also_if_the_place_is_lost_meanwhile(place: str) -> None:
    fields, [span] = await sent(place, lambda span: span.ended(RESULT, lost))
    assert (fields["traceparent"], span.parent) == (span.traceparent, "b" * 16)
    assert span.attributes[names.PLACE] == place


async def test_it_makes_none_if_they_are_off_and_none_twice() -> None:
    assert await sent("docker", lambda span: span.ended(RESULT, lost), off=True) == ({}, [])

    def again(span: TaskSpan) -> None:
        span.submitted("failed")
        span.ended(RESULT, pytest.fail)

    assert (await sent("docker", again))[1] == []


async def test_a_caller_that_records_nothing_has_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", PARENT[:-1] + "0")
    fields, spans = await sent("docker", lambda span: span.ended(RESULT, pytest.fail))
    assert (fields["traceparent"][-3:], spans) == ("-00", [])


def test_without_the_sdk_it_is_told_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "find_spec", lambda _name: None)
    conf = Settings(place="docker", otel_endpoint="http://127.0.0.1:9")
    with pytest.raises(NotConfigured, match="not installed"), telemetry.task_span(conf, pytest.fail):
        pytest.fail("it was sent")
