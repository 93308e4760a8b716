"""A batch on AWS Batch, with children that play the containers' part: each id once, money whole."""

from __future__ import annotations

import json
from collections import Counter

import msgspec
import pytest

from farmhand.aws.places import shards
from farmhand.aws.places.batch_jobs import plan
from farmhand.aws.places.bucket import BatchBucket
from farmhand.batch.worker_state import WorkerLimits
from farmhand.core import shard
from farmhand.core.errors import FarmUnreachable
from tests.integration.aws.batches import Site, moto, prompts, site, wait
from tests.support import aws_place
from tests.support.aws_place import COST
from tests.unit.batch.fake import KEY

__all__ = ["moto", "site"]


def test_a_batch_is_one_array_job_and_its_cost_is_that_of_the_ledgers(site: Site) -> None:
    site.child.beyond = 7_000_000
    assert site.command(prompts(1300)) is None
    site.once(1300)
    [job] = site.batch.jobs.values()
    assert job.size == 3
    assert job.request["jobQueue"] == "farmhand-test-spot"
    assert job.request["jobDefinition"] == "farmhand-test-api"
    batch = site.item()["pk"].removeprefix("batch#")
    assert job.request["tags"] == {"farmhand:environment": "test", "farmhand:batch": batch}
    assert job.request["propagateTags"] is True
    assert "retryStrategy" not in job.request
    assert site.totals["cost_usd"] == pytest.approx(1300 * COST + 3 * 7e-6, abs=1e-12)
    assert site.totals["cost_usd"] == pytest.approx(site.ledgers(), abs=1e-12)
    account = site.place.account()
    assert (account["containers"], account["attempts"], account["retries"]) == (3, 3, [])
    assert account["seconds"] >= 270
    # 0.5 vCPU and 1 GB on Spot, three times 90 s and a little more: each is rounded up to a second.
    hourly = (0.5 * 0.04048 + 0.004445) * 0.3
    assert float(account["usd"]) * 3600 / hourly == pytest.approx(account["seconds"] + 1.5, abs=2.1)
    assert any("--economy" in line for line in site.said)
    # The parent is asked, and its children in hundreds at the end.
    assert site.batch.calls["describe_jobs"] < 60
    assert KEY not in json.dumps(job.request) + repr(site.objects())


def test_one_shard_is_no_array_and_tools_need_another_size(site: Site) -> None:
    tasks = [{"prompt": "a", "tools": ["Bash"]}, "b"]
    assert site.command(tasks, spot=False) is None
    site.once(2)
    [job] = site.batch.jobs.values()
    assert "arrayProperties" not in job.request
    assert (job.request["jobQueue"], job.request["jobDefinition"]) == (
        "farmhand-test-on-demand",
        "farmhand-test-cli",
    )
    assert not any("--economy" in line for line in site.said)
    made = json.loads(next(iter(site.objects("manifest.json").values())))
    assert (made["place"].get("spot", False), made["tasks"], made["shards"]) == (False, 2, 1)
    # One container has nobody to wait for.
    assert made["jitter_s"] == 0


def test_shards_of_tools_are_small_and_a_given_size_holds(site: Site) -> None:
    assert site.command([{"prompt": f"p{n}", "tools": ["Bash"]} for n in range(50)]) is None
    assert sorted(len(text.splitlines()) for text in site.objects("/in/0/0").values()) == [10, 20, 20]
    other = Site(site.directory / "other")
    other.directory.mkdir()
    assert other.command(prompts(20), shard=7) is None
    assert [job.size for job in other.batch.jobs.values()] == [3]
    made = json.loads(next(iter(other.objects("manifest.json").values())))
    assert made["jitter_s"] == pytest.approx(0.2)


def test_there_are_no_more_children_than_tasks_at_once(site: Site) -> None:
    assert site.command(prompts(100), shard=10, limits=WorkerLimits(concurrency=4)) is None
    site.once(100)
    assert [job.size for job in site.batch.jobs.values()] == [4]
    manifest = msgspec.json.decode(next(iter(site.objects("manifest.json").values())), type=shard.ShardManifest)
    assert [shard.share_of(manifest, number) for number in range(4)] == [1, 1, 1, 1]
    # A task that is sent again is found in its shard.
    other = Site(site.directory / "other")
    other.directory.mkdir()
    ended: Counter[int] = Counter()

    def ends(index: int, _attempt: int) -> tuple[int | None, str, int] | None:
        ended[index] += 1
        return (shard.EXIT_BUG, "", 15) if index == 1 and ended[index] == 1 else None

    other.child.ends = ends
    assert other.command(prompts(100), shard=10, limits=WorkerLimits(concurrency=4)) is None
    other.once(100)


@pytest.mark.parametrize(("concurrency", "shards"), [(10, 4), (4, 4), (7, 2), (1, 1), (1000, 3)])
def test_the_shares_make_up_the_limit(concurrency: int, shards: int) -> None:
    manifest = shard.ShardManifest(
        batch="b",
        generation=0,
        environment="test",
        digest="",
        shards=shards,
        tasks=1,
        farmhand="0",
        concurrency=concurrency,
    )
    assert sum(shard.share_of(manifest, number) or 0 for number in range(shards)) == concurrency
    manifest.concurrency = None
    assert shard.share_of(manifest, 0) is None


def test_more_children_than_an_array_takes_are_several_arrays() -> None:
    jobs = plan("prod", "b.1/x", 2, 20_001)
    assert [(job.first, job.size) for job in jobs] == [(0, 10_000), (10_000, 10_000), (20_000, 1)]
    assert len({job.name for job in jobs}) == 3
    assert all(set(job.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_") for job in jobs)
    assert plan("prod", "b-1-x", 2, 1)[0].name != plan("prod", "b.1/x", 2, 1)[0].name


def test_a_command_that_ends_is_gone_on_with_by_the_next_one(site: Site) -> None:
    site.child.works = False
    assert site.command(prompts(600), until=lambda place: place.submitted) is None
    assert (len(site.results), len(site.batch.jobs)) == (0, 1)
    site.child.works = True
    wait(site.batch.ended)
    assert site.command() is None
    site.once(600)
    assert len(site.batch.jobs) == 1
    assert site.totals["cost_usd"] == pytest.approx(600 * COST)
    # And once more: nothing is left to do.
    assert site.command() is None
    assert len(site.batch.jobs) == 1


def test_a_submission_whose_answer_is_lost_is_not_repeated(site: Site) -> None:
    site.batch.after["submit_job"] = [aws_place.unreachable()]
    assert site.command(prompts(20), shard=10) is None
    site.once(20)
    assert len(site.batch.jobs) == 1


def test_a_submission_that_failed_is_repeated(site: Site) -> None:
    site.batch.faults["submit_job"] = [aws_place.denied("ThrottlingException"), aws_place.unreachable()]
    assert site.command(prompts(20), shard=10) is None
    site.once(20)
    assert (len(site.batch.jobs), site.batch.calls["submit_job"]) == (1, 3)


def test_a_command_that_dies_as_it_submits_leaves_no_second_job(site: Site) -> None:
    site.batch.after["submit_job"] = [RuntimeError("killed")]
    assert site.command(prompts(20), shard=10) is not None
    assert site.command() is None
    site.once(20)
    assert len(site.batch.jobs) == 1


def test_a_spot_interruption_is_retried_counted_and_told(site: Site) -> None:
    spot = "Your Spot Task was interrupted."
    site.child.ends = lambda index, attempt: (None, spot, 4) if (index, attempt) == (1, 1) else None
    assert site.command(prompts(30), shard=10) is None
    site.once(30)
    account = site.place.account()
    [retry] = account["retries"]
    assert (retry["reason"], retry["times"], float(retry["usd"]) > 0) == ("Spot interruption", 1, True)
    assert account["attempts"] == 4
    assert any("1 container was started again (Spot interruption)" in line for line in site.said)
    assert site.totals["cost_usd"] == pytest.approx(site.ledgers(), abs=1e-12)


def test_what_a_child_leaves_is_sent_again_as_another_generation(site: Site) -> None:
    ended: Counter[int] = Counter()

    def ends(index: int, _attempt: int) -> tuple[int | None, str, int] | None:
        ended[index] += 1
        return (shard.EXIT_BUG, "", 5) if index == 1 and ended[index] == 1 else None

    site.child.ends = ends
    assert site.command(prompts(30), shard=10) is None
    site.once(30)
    assert [job.size for job in site.batch.jobs.values()] == [3, 1]
    assert any("5 tasks have no result" in line for line in site.said)
    assert len(site.place.account()["jobs"]) == 2


def test_containers_that_do_nothing_end_the_batch_with_their_reason(site: Site) -> None:
    reason = "CannotPullContainerError: pull image manifest has been retried 5 time(s): not found"
    site.child.ends = lambda _index, _attempt: (None, reason, 0)
    error = site.command(prompts(30), shard=10)
    assert error is not None
    assert (error.exit_code, "CannotPullContainerError" in str(error)) == (1, True)
    assert "farmhand cloud logs" in error.hint
    assert len(site.batch.jobs) == 1
    # What is put right goes on by the same command.
    site.child.ends = lambda _index, _attempt: None
    assert site.command() is None
    site.once(30)


def test_what_many_parts_hold_is_collected_by_and_by(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that comes when all is done finds more than one reply takes, and the cost of all of it is whole."""
    monkeypatch.setattr(shards, "MOST_PARTS", 3)
    site.child.beyond = 7_000_000
    assert site.command(prompts(400), shard=20, until=lambda place: place.submitted) is None
    wait(site.batch.ended)
    assert site.command() is None
    site.once(400)
    assert max(len(json.loads(text)) for text in site.objects("/seen/").values()) == 3
    assert site.totals["cost_usd"] == pytest.approx(site.ledgers(), abs=1e-12)
    assert site.totals["cost_usd"] == pytest.approx(400 * COST + 20 * 7e-6, abs=1e-12)


def test_a_new_command_reads_each_part_once_and_sends_nothing_again_before(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows no result of what earlier commands have seen until it has given that out."""
    for name, number in (("_MOST_LOGS", 1), ("MOST_PARTS", 2), ("MOST_RESULTS", 20)):
        monkeypatch.setattr(shards, name, number)
    assert site.command(prompts(100), shard=10, until=lambda place: place.submitted) is None
    wait(site.batch.ended)
    # The first command sees all parts, and writes down their order; its output has none of them.
    place = site.place
    place._batch._all_given = True  # type: ignore[union-attr]
    for _ in range(40):
        place._batch._look_at = 0  # type: ignore[union-attr]
        place._batch._advance(0, close=True)  # type: ignore[union-attr]
    assert len(site.objects("/seen/")) >= 3
    reads: Counter[str] = Counter()
    get = BatchBucket.get

    def counted(self: BatchBucket, key: str) -> bytes | None:
        reads[key] += 1
        return get(self, key)

    monkeypatch.setattr(BatchBucket, "get", counted)
    assert site.command() is None
    site.once(100)
    assert len(site.batch.jobs) == 1
    assert {number for key, number in reads.items() if "/out/" in key} == {1}


def test_what_was_given_out_before_a_read_failed_counts_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reply that was cut off has what it had: else its results would come a second time, as another run's."""
    get, failing = BatchBucket.get, 6

    def get_or_fail(self: BatchBucket, key: str) -> bytes | None:
        nonlocal failing
        # A part is read as it is seen, and again as it is given out if too many are held.
        if failing and "/out/" in key and key in seen:
            failing -= 1
            if failing % 2 == 0:
                raise FarmUnreachable("no answer")
        seen.add(key)
        return get(self, key)

    seen: set[str] = set()
    monkeypatch.setattr(shards, "MOST_PARTS", 4)
    monkeypatch.setattr(shards.Collection, "forget", lambda self, _number: self._results.clear())
    monkeypatch.setattr(BatchBucket, "get", get_or_fail)
    assert site.command(prompts(1100), shard=100) is None
    assert failing == 0
    site.once(1100)
    assert (site.totals["twice"], site.totals["twice_usd"]) == (0, 0)
    assert site.totals["cost_usd"] == pytest.approx(1100 * COST, abs=1e-12)
