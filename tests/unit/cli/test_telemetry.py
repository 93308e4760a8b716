"""What `otel_endpoint` means to a call that sends one task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from farmhand.cli import carry, telemetry
from farmhand.cli.render import Printer
from farmhand.cli.signals import Stoppable
from farmhand.cli.telemetry import TaskSpan
from farmhand.core.errors import NotConfigured, WireError
from farmhand.core.settings import PLACE_NAMES, Settings
from farmhand.offline.deliver import Visit
from farmhand.offline.spool import Spool, open_spool
from farmhand.places.base import TaskRows
from farmhand.telemetry import names
from farmhand.wire.client import Client
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


class Agent:
    """One that has ended all tasks that it is asked for, but one that it has deleted."""

    def connect(self) -> None:
        """It answers."""

    def task(self, task_id: str) -> dict[str, Any]:
        if task_id == "old":
            raise WireError("pruned", "its result is gone", "", status=410)
        return RESULT | {"id": task_id}

    def charges_of(self, task_id: str) -> list[bytes]:
        return [b'{"charge_id": 1, "model": "claude-haiku-5-5", "engine": "api", "created_at": 1.0}']


@pytest.mark.parametrize("place", ["farm", "docker"])
async def test_what_waited_in_the_spool_has_its_span_when_it_is_collected_in_its_own_callers_trace(
    tmp_path: Path, place: str
) -> None:
    spool = Spool(tmp_path / "spool")
    other = f"00-{'c' * 32}-{'d' * 16}-01"
    for name, trace in (("theirs", other), ("dark", other[:-1] + "0"), ("old", other)):
        spool.add({"id": name, "prompt": "x"}, sent="here", trace={"traceparent": trace})

    def collect(span: TaskSpan) -> None:
        Visit(cast(Client, Agent()), "here", spool, "sk-ant-test-spans-000000000", span.collected).make()

    _, spans = await sent(place, collect)
    assert spool.waiting() == []
    found = [(span.name, span.traceparent.split("-")[1], span.parent) for span in spans]
    if place == "farm":
        assert found == []
        return
    [task] = [span for span in spans if span.name == names.TASK]
    assert sorted(found) == [
        ("chat claude-haiku-5-5", "c" * 32, task.traceparent.split("-")[2]),
        (names.TASK, "c" * 32, "d" * 16),
    ]


@pytest.mark.parametrize("waits", [False, True])
async def test_a_task_that_had_ended_has_a_span_by_the_same_command_only_if_nobody_has_told_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, waits: bool
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    conf = Settings(place="docker", config_file=str(tmp_path / "config.toml"))
    task = {"id": "one", "prompt": "x"}
    if waits:
        open_spool(conf).add(task, sent="here")

    def run(_client: Any, _task: Any, _key: Any, _event: Any, **on: Any) -> dict[str, Any]:
        on["on_state"]("succeeded")
        return RESULT

    monkeypatch.setattr(carry, "run_task", run)

    def follow(span: TaskSpan) -> None:
        client = cast(Client, SimpleNamespace(transport=None, charges_of=lambda _: []))
        spooling = carry.Spooling(task, conf)
        carry.follow(client, "here", "sk-ant-test-spans-000000000", Printer(stream=False), spooling, Stoppable(), span)

    _, spans = await sent("docker", follow)
    assert len(spans) == waits
