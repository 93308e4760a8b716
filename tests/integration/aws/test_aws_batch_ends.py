"""How a batch on AWS Batch ends: by its limit, by a refused key, by the operator, by faults; and what then goes on."""

from __future__ import annotations

import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import boto3
import pytest

from farmhand.aws.places import bucket, generations, running_batch
from farmhand.aws.places.batch_place import AwsBatchPlace
from farmhand.batch.worker_state import WorkerLimits
from farmhand.core import shard
from farmhand.core.errors import FarmhandError, NotConfigured, Refused
from farmhand.core.money import PICO_PER_USD
from farmhand.places.base import PlaceSettings
from tests.integration.aws.batches import PACE, Site, moto, prompts, site, wait
from tests.support import aws_place
from tests.support.aws_place import CONF, COST, FakeAws
from tests.unit.batch.fake import Batch

__all__ = ["moto", "site"]


def test_a_second_result_of_a_task_costs_and_is_shown(site: Site) -> None:
    site.child.works = False
    assert site.command(prompts(20), shard=10, until=lambda place: place.submitted) is None
    [key] = list(site.objects("/in/0/00000.jsonl"))
    task = json.loads(site.objects()[key].splitlines()[0])
    twice = {"id": task["id"], "state": "succeeded", "text": "earlier", "cost_usd": 0.5, "usage": {"requests": 1}}
    s3 = boto3.client("s3", region_name=aws_place.REGION)
    bucket = FakeAws(site.batch).names.bucket
    place = key.replace("/in/0/00000.jsonl", "/out/0/00001/9-0000.jsonl")
    s3.put_object(Bucket=bucket, Key=place, Body=json.dumps(twice).encode())
    site.child.works = True
    wait(site.batch.ended)
    assert site.command() is None
    site.once(20)
    assert (site.totals["twice"], site.totals["twice_usd"]) == (1, 0.5)
    assert site.totals["cost_usd"] == pytest.approx(20 * COST + 0.5)
    assert [result["text"] for result in site.results if result["n"] == 1] == ["ok"]


def test_the_limit_is_the_items_and_a_batch_without_room_goes_on_with_more(site: Site) -> None:
    def ends(_index: int, _attempt: int) -> tuple[int | None, str, int] | None:
        item = site.item()
        if int(item["limit"]) > PICO_PER_USD:
            return None
        site.stop("budget", "nothing is left")
        return shard.EXIT_STOPPED, "", 3

    site.child.ends = ends
    error = site.command(prompts(20), shard=10, limits=WorkerLimits(max_usd=0.05))
    assert isinstance(error, Refused)
    assert "--max-usd" in error.hint
    assert (len(site.results), site.item()["state"]) == (6, "stopping")
    assert int(site.item()["limit"]) == 50_000_000_000
    assert site.command(limits=WorkerLimits(max_usd=2)) is None
    site.once(20)
    assert site.item()["state"] == "running"


def test_a_refused_credential_ends_the_batch(site: Site) -> None:
    def ends(_index: int, _attempt: int) -> tuple[int | None, str, int]:
        site.stop("credential", "invalid key")
        return shard.EXIT_REFUSED, "", 0

    site.child.ends = ends
    error = site.command(prompts(20), shard=10)
    assert isinstance(error, NotConfigured)
    assert (error.code, "invalid key" in error.message) == ("key_refused", True)
    assert len(site.batch.jobs) == 1


def test_the_first_stop_asks_the_children_and_the_second_ends_the_jobs(site: Site) -> None:
    site.child.works = False
    site.batch.runs = False
    conf = PlaceSettings(project_dir=Path(), conf=CONF, say=site.said.append, shard=10)
    site.place = AwsBatchPlace(conf, FakeAws(site.batch), PACE)
    batch = Batch(site.directory, prompts(20), place=site.place)
    states: list[str] = []

    def tick() -> None:
        if not batch.coordinator.stopping:
            if site.place.submitted:
                batch.coordinator.stop()
        elif site.item()["state"] == "stopping" and not states:
            states.append("stopping")
            batch.coordinator.kill()
            site.place.terminate()

    batch.coordinator.run(tick)
    batch.close()
    assert states == ["stopping"]
    assert (site.item()["state"], site.batch.calls["terminate_job"] >= 1) == ("cancelled", True)
    assert any("within two minutes" in line for line in site.said)
    # And the same command goes on.
    site.child.works = site.batch.runs = True
    assert site.command() is None
    site.once(20)
    assert len(site.batch.jobs) == 2


def test_what_waits_here_when_it_is_stopped_was_never_sent(site: Site) -> None:
    site.batch.faults["describe_job_definitions"] = [aws_place.unreachable()] * 1000
    conf = PlaceSettings(project_dir=Path(), conf=CONF, say=site.said.append)
    site.place = AwsBatchPlace(conf, FakeAws(site.batch), PACE)
    batch = Batch(site.directory, prompts(20), place=site.place)
    batch.coordinator.run(lambda: batch.coordinator.stop() if site.batch.calls else None)
    batch.close()
    assert not site.batch.jobs
    site.batch.faults.clear()
    assert site.command() is None
    site.once(20)


def test_throttled_and_silent_services_delay_and_lose_nothing(site: Site) -> None:
    busy = aws_place.denied("ThrottlingException")
    site.batch.faults["describe_jobs"] = [busy, aws_place.unreachable(), busy]
    assert site.command(prompts(40), shard=10) is None
    site.once(40)


def test_a_long_prompt_is_an_object_of_its_own(site: Site) -> None:
    long = "ä" * 200_000
    asked: list[int] = []

    def outcome(task: dict[str, Any]) -> dict[str, Any]:
        asked.append(len(task["prompt"]))
        return {"state": "succeeded"}

    site.child.outcome = outcome
    assert site.command([long, "short"]) is None
    site.once(2)
    assert sorted(asked) == [5, 200_000]
    [text] = site.objects("/in/0/prompts/").values()
    assert text.decode() == long


def test_what_aws_batch_does_not_run_is_refused_by_name(site: Site) -> None:
    assert site.command(["a", {"prompt": "b", "economy": True}]) is None
    errors = {result["n"]: (result.get("error") or {}).get("code") for result in site.results}
    assert errors == {1: None, 2: "refused"}


def test_two_commands_do_not_collect_one_batch(site: Site, tmp_path: Path) -> None:
    site.child.works = False
    assert site.command(prompts(20), shard=10, until=lambda place: place.submitted) is None
    other = Site(tmp_path / "copy")
    other.directory.mkdir()
    for name in ("in.jsonl", "out.jsonl", "out.jsonl.farmhand", "key.env"):
        (other.directory / name).write_bytes((site.directory / name).read_bytes())
    (other.directory / "key.env").chmod(0o600)
    other.batch, other.child = site.batch, site.child
    errors: list[FarmhandError | None] = []
    thread = threading.Thread(target=lambda: errors.append(other.command()))
    thread.start()
    wait(lambda: site.batch.calls["describe_jobs"] > 0)
    site.child.works = True
    errors.append(site.command())
    thread.join(30)
    told = [error for error in errors if error is not None]
    # Both may have read the same order; what they must not do is to count in two orders.
    assert all("another farmhand batch collects" in str(error) for error in told)
    assert len(told) <= 1


def test_what_never_begins_is_told_with_the_likely_reasons(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_batch, "_STUCK_S", 0.2)
    site.batch.runs = False
    # An array's parent does not say it.
    site.batch.stuck = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"

    def told(_place: AwsBatchPlace) -> bool:
        return any("no container" in line for line in site.said)

    assert site.command(prompts(20), shard=10, until=told) is None
    [line] = [line for line in site.said if "no container" in line]
    assert "farmhand-test-spot" in line
    assert "vCPU" in line
    assert "--no-spot" in line
    assert "AWS says: MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT" in line


def test_a_job_that_aws_does_not_know_yet_has_not_ended(site: Site) -> None:
    site.batch.hidden = 5
    assert site.command(prompts(20), shard=10) is None
    site.once(20)
    assert len(site.batch.jobs) == 1


def test_a_job_that_aws_has_forgotten_has_ended(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.child.works = False
    assert site.command(prompts(20), shard=10, until=lambda place: place.submitted) is None
    site.child.works = True
    wait(site.batch.ended)
    monkeypatch.setattr(generations, "_UNKNOWN_S", 0.2)
    site.batch.hidden = 1_000_000
    assert site.command() is None
    site.once(20)
    assert site.place.account()["attempts"] == 0


@pytest.mark.parametrize("landed", [True, False])
def test_two_writes_at_once_are_no_other_command(site: Site, monkeypatch: pytest.MonkeyPatch, landed: bool) -> None:
    """S3 answers 409 if it has carried out none of them, and 412 to a try that meets its own object."""
    from botocore.client import BaseClient

    real = BaseClient._make_api_call
    conflicts: list[str] = []

    def call(self: Any, name: str, given: dict[str, Any]) -> Any:
        if given.get("IfNoneMatch") and "/seen/" in given["Key"] and len(conflicts) < 3:
            conflicts.append(given["Key"])
            if landed:
                real(self, name, given)
            raise aws_place.denied("ConditionalRequestConflict")
        return real(self, name, given)

    monkeypatch.setattr(bucket, "_PAUSES_S", (0.01, 0.01, 0.01, 0.01))
    monkeypatch.setattr(BaseClient, "_make_api_call", call)
    assert site.command(prompts(20), shard=10) is None
    site.once(20)
    assert conflicts


def test_an_object_that_is_damaged_is_one_line(site: Site) -> None:
    site.child.works = False
    assert site.command(prompts(20), shard=10, until=lambda place: place.submitted) is None
    s3 = boto3.client("s3", region_name=aws_place.REGION)
    [index] = site.objects("/in/0/index")
    s3.put_object(Bucket=FakeAws(site.batch).names.bucket, Key=index, Body=b"nonsense")
    error = site.command()
    assert error is not None
    assert (error.code, "index" in error.message) == ("bad_answer", True)


def test_five_thousand_lines_twenty_ends_ten_interruptions_and_faults_everywhere(site: Site) -> None:
    """The command ends at twenty moments, Spot takes ten children back, and each fiftieth call to AWS fails."""
    chance = random.Random(9)  # noqa: S311 - moments, no secrets
    gate = threading.Semaphore(0)

    def ends(index: int, attempt: int) -> tuple[int | None, str, int] | None:
        gate.acquire(timeout=5)
        return (None, "Your Spot Task was interrupted.", 37) if index < 10 and attempt == 1 else None

    site.child.ends = ends
    lines: list[str] | None = prompts(5000)
    for number in range(20):
        until = time.monotonic() + chance.uniform(0.2, 1.5)
        site.command(lines, flaky=0.02, shard=100, until=lambda _place, until=until: time.monotonic() > until)  # type: ignore[misc]
        lines = None
        if site.batch.jobs:
            gate.release(3)
        assert number < 19 or len(site.results) < 5000
    for _ in range(200):
        gate.release()
    error = None
    for _ in range(15):
        error = site.command(flaky=0.02, shard=100)
        if error is None:
            break
    assert error is None
    site.once(5000)
    assert [job.size for job in site.batch.jobs.values()] == [50]
    assert site.place.account()["retries"][0]["times"] == 10
    assert site.totals["cost_usd"] == pytest.approx(site.ledgers(), abs=1e-9)
    assert site.totals["twice"] == 0


@pytest.mark.parametrize(
    ("code", "reason", "why", "status"),
    [
        (shard.EXIT_CONFIG, "", "it is not configured right", 3),
        (shard.EXIT_REFUSED, "", "the API refuses the credential", 3),
        (shard.EXIT_BUG, "", "a fault of Farmhand", 1),
        (1, "", "exit status 1", 1),
        (None, "OutOfMemoryError: killed", "OutOfMemoryError: killed", 1),
    ],
)
def test_containers_that_all_end_so_give_the_command_its_exit_status(
    site: Site, code: int | None, reason: str, why: str, status: int
) -> None:
    site.child.ends = lambda _index, _attempt: (code, reason, 0)
    error = site.command(prompts(20), shard=10)
    assert error is not None
    assert (error.exit_code, f"ended without a result: {why}" in error.message) == (status, True), error
    assert "farmhand cloud logs" in error.hint
