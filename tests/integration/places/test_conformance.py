"""What a batch relies on, of each place: one in this process, the farm with a real ansible-runner, one real agent.

AWS Batch is moto, with children that play the containers' part.
"""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from farmhand.aws.places.batch_place import AwsBatchPlace
from farmhand.aws.places.running_batch import NAME as AWS_BATCH
from farmhand.aws.places.running_batch import Pace
from farmhand.core.errors import FarmUnreachable
from farmhand.core.rules import by_shared_budget
from farmhand.places import docker
from farmhand.places.base import Limit, Order, Place, PlaceSettings, Reply
from farmhand.places.table import PLACES
from farmhand.wire.transport import UnixTransport
from tests.integration.dispatch.batches import Farm
from tests.integration.dispatch.conftest import CHECKOUT, Workstation, workstation
from tests.support import aws_place
from tests.support.messages_api import DEFAULT_KEY, MessagesApi
from tests.support.places import Driver, InProcessPlace, Worker
from tests.unit.batch.fake import Batch

__all__ = ["workstation"]


class Site(Protocol):
    """A place with one worker, and what a test does to it."""

    place: Place
    worker: str

    def ran(self) -> int:
        """How many tasks have begun to run."""

    def hold(self) -> None:
        """From now on no task ends, and no more than one runs."""

    async def lose(self) -> None:
        """The worker dies."""

    async def bring_back(self) -> None:
        """It is there again, with what it had."""


class InProcess:
    """See Site."""

    worker = "one"

    def __init__(self) -> None:
        self._worker = Worker(self.worker)
        self.place: Place = InProcessPlace([self._worker])

    def ran(self) -> int:
        return len(self._worker.ran)

    def hold(self) -> None:
        self._worker.works = False

    async def lose(self) -> None:
        self._worker.gone = True

    async def bring_back(self) -> None:
        self._worker.gone = False


class OneHost:
    """See Site. A real agent, reached by Ansible without ssh, or as the place `docker` reaches it, by a socket here."""

    def __init__(self, farm: Farm, name: str) -> None:
        self._farm = farm
        self.place: Place
        if name == docker.NAME:
            self.worker = docker.NAME
            self.place = docker.DockerPlace(UnixTransport(str(farm.agents[0].socket), name=docker.NAME))
        else:
            self.worker = "farm1"
            self.place = PLACES[name](PlaceSettings(project_dir=CHECKOUT, inventory=str(farm.inventory)))

    def ran(self) -> int:
        return len(self._farm.api.posts)

    def hold(self) -> None:
        self._farm.api.state.latency_s = 60

    async def lose(self) -> None:
        await self._farm.agents[0].stop(signal.SIGKILL)

    async def bring_back(self) -> None:
        await self._farm.agents[0].start()


class InAws:
    """See Site. No task of its own is held there."""

    def __init__(self) -> None:
        self._child = aws_place.Child()
        self._aws = aws_place.FakeAws(aws_place.FakeBatch(self._child))
        settings = PlaceSettings(project_dir=Path(), conf=aws_place.CONF)
        made = AwsBatchPlace(settings, self._aws, Pace(least_s=0.05, most_s=0.1, patience_s=0.0))
        self.place: Place = made
        self.worker = made.worker

    def ran(self) -> int:
        return len(self._child.ran)

    def hold(self) -> None:
        raise NotImplementedError

    async def lose(self) -> None:
        self._aws.broken = aws_place.unreachable()

    async def bring_back(self) -> None:
        self._aws.broken = None


#: The places of batches, and those where a task is cancelled alone, and fails alone where a limit has no room for it.
#: What happens in AWS instead is in tests/integration/aws.
OF_BATCHES = [name for name in PLACES if name != "fargate"]
OF_SINGLE_TASKS = pytest.mark.parametrize(
    "site", ["in-process", *(name for name in OF_BATCHES if name != AWS_BATCH)], indirect=True
)


@pytest.fixture(params=["in-process", *OF_BATCHES])
async def site(
    request: pytest.FixtureRequest, tmp_path: Path, api: MessagesApi, workstation: Workstation
) -> AsyncIterator[Site]:
    if request.param == "in-process":
        yield InProcess()
        return
    if request.param == AWS_BATCH:
        with aws_place.environment():
            yield InAws()
        return
    farm = Farm(tmp_path, api, workstation)
    await farm.start(slots_api=1)
    yield OneHost(farm, request.param)
    await farm.stop()


class Running:
    """The site's place while it runs."""

    def __init__(self, site: Site) -> None:
        self.driver = Driver()
        self._site = site
        self._thread = threading.Thread(target=site.place.run, args=(self.driver,), daemon=True)
        self._thread.start()

    async def exchange(self, *tasks: dict[str, Any], **about: Any) -> Reply:
        """One exchange with the site's worker; the tasks' prompts are their ids."""
        made = [json.dumps({"prompt": task["id"], "batch": "b", **task}).encode() for task in tasks]
        order = Order(batch="b", tasks=made, credential=DEFAULT_KEY, **about)
        return await asyncio.to_thread(self.driver.exchange, self._site.worker, order)

    async def end(self) -> None:
        """Let it end by itself, which it does."""
        self.driver.end()
        await asyncio.to_thread(self._thread.join, 30)
        assert not self._thread.is_alive()


@pytest.fixture
async def running(site: Site) -> AsyncIterator[Running]:
    made = Running(site)
    yield made
    await made.end()


A, B, C = ({"id": name} for name in "abc")


def states(reply: Reply) -> dict[str, str]:
    return {result["id"]: result["state"] for result in reply.results}


async def test_a_task_runs_once_however_often_it_is_sent_and_its_result_comes_once(
    site: Site, running: Running
) -> None:
    first = await running.exchange(A, B, wait_s=20)
    assert (sorted(first.accepted), first.refused, first.error) == (["a", "b"], [], None)
    assert states(first) == {"a": "succeeded", "b": "succeeded"}
    assert all(result["cost_usd"] > 0 for result in first.results)
    assert (first.unfinished, first.slots > 0, running.driver.of) == (0, True, {1})
    assert not (await running.exchange(cursor=first.next)).results
    # Whoever sends it again gets what it came to.
    again = await running.exchange(A, cursor=first.next)
    assert (again.accepted, states(again)) == (["a"], {"a": "succeeded"})
    # An id stands for one task.
    refused = await running.exchange({**A, "prompt": "something else"}, C, cursor=again.next, wait_s=20)
    assert [(one["id"], one["code"]) for one in refused.refused] == [("a", "id_conflict")]
    assert (refused.accepted, states(refused)) == (["c"], {"c": "succeeded"})
    assert site.ran() == 3


@OF_SINGLE_TASKS
async def test_what_is_cancelled_does_not_run_and_a_stop_takes_back_what_has_not_started(
    site: Site, running: Running
) -> None:
    site.hold()
    sent = await running.exchange(A, B, C)
    assert (sorted(sent.accepted), sent.results, sent.unfinished) == (["a", "b", "c"], [], 3)
    gone = await running.exchange(cancel=["b"], cursor=sent.next)
    assert gone.cancelled == ["b"]
    assert states(gone) == {"b": "cancelled"}
    stopped = await running.exchange(stop=True, cursor=gone.next)
    assert "c" in stopped.stopped
    assert states(stopped) == dict.fromkeys(stopped.stopped, "cancelled")
    assert (stopped.unfinished or 0) + len(stopped.stopped) == 2
    assert site.ran() <= 1


@OF_SINGLE_TASKS
async def test_a_limit_holds_until_another_comes(site: Site, running: Running) -> None:
    denied = await running.exchange(A, limit=Limit(pico=1, concurrency=3), wait_s=20)
    [result] = denied.results
    assert (result["state"], result["error"]["code"]) == ("failed", "budget")
    assert by_shared_budget(result["error"])
    denied = await running.exchange(B, cursor=denied.next, wait_s=20)
    assert states(denied) == {"b": "failed"}
    assert site.ran() == 0
    fine = await running.exchange(C, cursor=denied.next, limit=Limit(), wait_s=20)
    assert states(fine) == {"c": "succeeded"}


async def test_a_worker_that_is_lost_says_so_and_has_what_it_had_when_it_is_back(site: Site, running: Running) -> None:
    before = await running.exchange(A, wait_s=20)
    assert states(before) == {"a": "succeeded"}
    await site.lose()
    lost = await running.exchange(B, cursor=before.next)
    assert isinstance(lost.error, FarmUnreachable)
    assert site.worker in lost.error.message
    assert (lost.accepted, lost.results) == ([], [])
    await site.bring_back()
    back = await running.exchange(A, B, wait_s=20)
    assert back.error is None
    assert states(back) == {"a": "succeeded", "b": "succeeded"}
    assert site.ran() == 2


async def test_a_whole_batch_and_the_journal_has_its_place(site: Site, tmp_path: Path) -> None:
    directory = tmp_path / "batch"
    directory.mkdir()
    batch = Batch(directory, [f"p{n}" for n in range(30)], ordered=True, place=site.place, key=DEFAULT_KEY)
    await asyncio.to_thread(batch.coordinator.run, lambda: None)
    assert batch.coordinator.error is None
    assert [result["n"] for result in batch.results()] == list(range(1, 31))
    assert {(result["host"], result["state"]) for result in batch.results()} == {(site.worker, "succeeded")}
    assert site.ran() == 30
    places = batch.journal._db.execute("SELECT DISTINCT w.place FROM line l JOIN worker w ON w.no = l.worker")
    assert places.fetchall() == [(site.place.name,)]
    batch.close()
