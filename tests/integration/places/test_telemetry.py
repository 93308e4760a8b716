"""Spans of a batch's tasks at places whose agents make none: told by the workstation, from results and ledgers."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from farmhand.aws.places.batch_place import AwsBatchPlace
from farmhand.aws.places.running_batch import Pace
from farmhand.batch.coordinator import Coordinator
from farmhand.batch.worker_state import WorkerLimits
from farmhand.cli import telemetry
from farmhand.cli.carry import cancelled_when_stopped
from farmhand.cli.signals import Stoppable, Stopped
from farmhand.core.settings import Settings
from farmhand.places.base import LastingPlace, Place, PlaceSettings
from farmhand.places.docker import DockerPlace
from farmhand.telemetry import names
from farmhand.wire.client import Client
from farmhand.wire.transport import UnixTransport
from tests.support import aws_place
from tests.support.agent import Agent
from tests.support.collector import Collector, SeenSpan
from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi
from tests.unit.batch.fake import Batch

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
LINES: list[Any] = [{"id": "canary-1", "prompt": "canary one"}, "canary two"]


@pytest.fixture(autouse=True)
def caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace of who calls the commands."""
    monkeypatch.setenv("TRACEPARENT", f"00-{TRACE}-{SPAN}-01")


def run(directory: Path, place: Place, conf: Settings, *, again: bool = False, detach: bool = False) -> None:
    """`farmhand batch`, from the place on. With `detach` until the place has all."""
    batch = Batch(directory, None if again else LINES, place=place)
    try:
        with telemetry.batch_span(conf, batch.book, pytest.fail) as trace:
            made = Coordinator(batch.book, place, DEFAULT_KEY, WorkerLimits(), lambda _line: None, trace)
            batch.coordinator = made
            made.run(lambda: made.end() if detach and isinstance(place, LastingPlace) and place.submitted else None)
        assert (made.error, batch.book.totals.left) == (None, 2 if detach else 0)
    finally:
        batch.close()


def of_kind(spans: list[SeenSpan]) -> tuple[SeenSpan, list[SeenSpan], list[SeenSpan]]:
    """The batch's span, those of its tasks, and those of their requests; all in the caller's trace."""
    [batch] = [span for span in spans if span.name == "farmhand.batch"]
    tasks = [span for span in spans if span.name == "farmhand.task"]
    assert ({span.trace for span in spans}, batch.parent) == ({TRACE}, SPAN)
    assert {span.parent for span in tasks} == {batch.id}
    assert {span.attributes[names.PLACE] for span in spans} == {batch.attributes[names.PLACE]}
    assert {span.attributes[names.IN_BATCH] for span in spans} == {batch.attributes[names.IN_BATCH]}
    requests = [span for span in spans if span.name.startswith("chat ")]
    assert {span.parent for span in requests} == {span.id for span in tasks}
    return batch, tasks, requests


async def test_in_containers_here(tmp_path: Path, api: MessagesApi) -> None:
    agent = Agent(tmp_path, api.url, attempts=2)
    await agent.start()
    api.fault(Fault(kind="cut", match="canary one", count=1))
    try:
        async with Collector() as collector:
            place = DockerPlace(UnixTransport(str(agent.socket), name="docker"), rows=True)
            conf = Settings(place="docker", otel_endpoint=collector.url)
            await asyncio.to_thread(run, tmp_path, place, conf)
            spans = [*await collector.until(6)]
        charges = await agent.get("/v1/charges")
        [sent] = {task["spec"]["traceparent"] for task in (await agent.get("/v1/history"))["tasks"]}
        assert await agent.get("/v1/charges?task=nobody") == []
    finally:
        await agent.stop()
    batch, tasks, requests = of_kind(spans)
    # A program in a container continues from there.
    assert sent == batch.traceparent
    assert sorted(span.attributes[names.ATTEMPT] for span in tasks) == [1, 2]
    assert sorted(span.attributes[names.ATTEMPT] for span in requests) == [1, 1, 2]
    assert {span.attributes[names.ENGINE] for span in (*tasks, *requests)} == {"api"}
    spent = sum(float(charge["cost_usd"]) for charge in charges)
    for each in (tasks, requests):
        assert sum(span.attributes[names.COST] for span in each) == pytest.approx(spent)
    assert collector.refused == []
    for secret in (b"canary", DEFAULT_KEY.encode()):
        assert secret not in collector.bytes


async def test_a_single_task_that_is_stopped_is_told_with_its_cost(tmp_path: Path, api: MessagesApi) -> None:
    agent = Agent(tmp_path, api.url)
    await agent.start()
    api.fault(Fault(kind="cut", match="canary", count=1))
    transport = UnixTransport(str(agent.socket), name="docker")
    task = {"id": "canary-1", "prompt": "canary"}

    def call(url: str) -> str:
        """The command, whose operator stops it while the task waits for its second attempt."""
        stoppable = cast(Stoppable, SimpleNamespace(was_held=True, hold=lambda: None))
        with (
            telemetry.task_span(Settings(place="docker", otel_endpoint=url), pytest.fail) as span,
            suppress(Stopped),
            cancelled_when_stopped(transport, "canary-1", stoppable, lambda: None, span),
            Client(transport) as client,
        ):
            [state] = client.submit([task | span.fields], DEFAULT_KEY)
            span.submitted(state["state"])
            while not list(client.charges()):
                time.sleep(0.05)
            raise Stopped(2)
        return span.fields["traceparent"]

    try:
        async with Collector() as collector:
            sent = await asyncio.to_thread(call, collector.url)
            [span] = await collector.until(1)
            # It has ended: a command that asks for it again tells nothing.
            await asyncio.to_thread(call, collector.url)
            charges = await agent.get("/v1/charges")
    finally:
        await agent.stop()
    assert len(collector.spans) == 1
    assert (span.traceparent, span.parent, span.trace) == (sent, SPAN, TRACE)
    assert (span.attributes[names.ERROR], span.failed) == ("cancelled", True)
    assert span.attributes[names.COST] == pytest.approx(float(charges[0]["cost_usd"]))
    assert b"canary" not in collector.bytes


async def test_on_aws_batch_for_a_command_that_comes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farmhand.aws.places.batch_jobs._LISTED_S", 0.05)
    child = aws_place.Child()
    child.works = False
    with aws_place.environment():
        aws = aws_place.FakeAws(aws_place.FakeBatch(child))
        async with Collector() as collector:
            conf = aws_place.CONF._replace(otel_endpoint=collector.url)

            def place() -> AwsBatchPlace:
                settings = PlaceSettings(project_dir=Path(), conf=conf)
                return AwsBatchPlace(settings, aws, Pace(least_s=0.05, most_s=0.1, patience_s=5.0))

            await asyncio.to_thread(run, tmp_path, place(), conf, detach=True)
            [alone] = await collector.until(1)
            assert (alone.name, alone.attributes[names.ERROR]) == ("farmhand.batch", "stopped")
            later = place()
            running = asyncio.create_task(asyncio.to_thread(run, tmp_path, later, conf, again=True))
            for _ in range(2400):
                if later.submitted:
                    break
                await asyncio.sleep(0.05)
            child.works = True
            await running
            spans = [*await collector.until(6)][1:]
    _, tasks, requests = of_kind(spans)
    # In another trace they are the same tasks.
    assert (len(tasks), len(requests), len(child.ran)) == (2, 2, 2)
    assert {span.attributes[names.COST] for span in (*tasks, *requests)} == {aws_place.COST}
    assert b"canary" not in collector.bytes
