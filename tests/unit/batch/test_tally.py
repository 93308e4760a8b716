"""An exchange takes the same work beside 6,000 leases as beside 1,000; the counts are those of the lines."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from farmhand.batch import worker_state
from farmhand.batch.journal import Journal
from farmhand.batch.worker_state import WorkerLimits
from farmhand.core.errors import Refused
from farmhand.places.base import Reply
from tests.support.places import Worker
from tests.unit.batch.fake import Batch


def exchanges(directory: Path, leased: int, patch: pytest.MonkeyPatch) -> dict[str, int]:
    """The steps of SQLite, of ten instructions each, in small exchanges of a worker that holds `leased` lines."""
    directory.mkdir()
    # Workers like a place that takes everything.
    one, other = Worker("one", slots=10**8), Worker("other", slots=10**8)
    one.works = other.works = False
    batch = Batch(directory, [f"p{n}" for n in range(3 * leased + 2000)], workers=2)
    for worker in (other, one):
        while batch.leases(worker) < leased:
            assert batch.turn(worker)
    coordinator, steps = batch.coordinator, Counter[str]()
    state = coordinator._worker("one")

    def counting(what: str) -> None:
        batch.journal._db.set_progress_handler(lambda: steps.update([what]), 10)

    patch.setattr(worker_state, "MOST", 10)
    counting("given")
    assert batch.turn(one)
    counting("finished")
    assert coordinator._next(state) is not None
    results = [{"id": name, "state": "succeeded", "cost_usd": 0.00001} for name in one.unfinished()[:10]]
    coordinator.give("one", Reply(results=results, next=10, unfinished=leased))
    assert len(batch.results()) == 10
    held = batch.leases(one)
    counting("halted")
    coordinator.give("one", Reply(halted=Refused("it takes nothing", code="full"), unfinished=held))
    # What was given last did not arrive, and waits again.
    assert batch.leases(one) == held - 10
    counting("not counted")
    batch.turn(other, lost=True)
    counting("beside a lost one")
    assert batch.turn(one)
    assert batch.leases(one) == held
    batch.close()
    return dict(steps)


def test_an_exchange_takes_no_more_work_beside_more_leases(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        few = exchanges(tmp_path / "few", 1000, patch)
    with pytest.MonkeyPatch.context() as patch:
        many = exchanges(tmp_path / "many", 6000, patch)
    for what in ("given", "finished", "halted", "beside a lost one"):
        assert few[what] > 10
        assert many[what] < 1.4 * few[what], what


def counts(journal: Journal) -> dict[int, tuple[int, int]]:
    """Who holds how many lines, and how many of them may be lost, counted line by line."""
    query = "SELECT coalesce(worker, 0) * state, count(*), sum(acked <= 0) FROM line WHERE state IN (0, 1) GROUP BY 1"
    return {holder: (lines, doubtful) for holder, lines, doubtful in journal._db.execute(query)}


def kept(journal: Journal) -> dict[int, tuple[int, int]]:
    return {holder: row for holder, *row in journal._db.execute("SELECT * FROM tally WHERE lines > 0")}


def check(journal: Journal) -> None:
    assert {holder: tuple(row) for holder, row in kept(journal).items()} == counts(journal)
    assert journal.waiting() == counts(journal).get(0, (0, 0))[0]


@pytest.mark.parametrize("seed", range(6))
def test_the_counts_are_those_of_the_lines_whatever_happens(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - moments, no secrets
    batch = Batch(tmp_path, [f"p{n}" for n in range(300)], workers=3, limits=WorkerLimits())
    hosts = [Worker(f"h{n}", slots=8) for n in range(3)]
    check(batch.journal)
    for _ in range(60):
        host = chance.choice(hosts)
        host.works = chance.random() < 0.5
        if chance.random() < 0.1:
            batch.close()
            batch = Batch(tmp_path, workers=3)
        batch.turn(host, lost=chance.random() < 0.2)
        check(batch.journal)
    batch.coordinator.stop()
    for host in hosts:
        batch.turn(host)
        check(batch.journal)
    batch.close()


def test_a_change_that_is_rolled_back_is_not_counted(tmp_path: Path) -> None:
    batch = Batch(tmp_path, ["a", "b", "c"])

    def leased() -> None:
        with batch.journal.transaction():
            no, _, _ = batch.journal.worker("in-process", "one")
            assert len(batch.journal.lease(no, [], 2)) == 2
            assert (batch.journal.waiting(), batch.journal.leases(no)) == (1, (2, 2))
            raise KeyError(no)

    with pytest.raises(KeyError) as raised:
        leased()
    no = raised.value.args[0]
    assert (batch.journal.waiting(), batch.journal.leases(no)) == (3, (0, 0))
    check(batch.journal)
    batch.close()


def test_a_journal_from_before_the_indexes_gets_them(tmp_path: Path) -> None:
    batch = Batch(tmp_path, ["a", "b", "c"])
    worker = Worker("one")
    worker.works = False
    batch.turn(worker)
    batch.close()
    db = sqlite3.connect(tmp_path / "out.jsonl.farmhand")
    for name in ("line_doubtful", "revoked_unsent"):
        db.execute(f"DROP INDEX {name}")
    db.close()
    again = Batch(tmp_path)
    assert again.leases(worker) == 3
    worker.works = True
    again.run(worker)
    assert not again.book.totals.left
    again.close()
