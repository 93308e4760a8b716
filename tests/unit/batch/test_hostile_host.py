"""A batch over an honest host and one whose answers are none: it is done on the honest one, and nothing is believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farmhand.batch.accounting import pico
from farmhand.batch.worker_state import WorkerLimits
from farmhand.core.errors import FarmUnreachable, NotConfigured
from farmhand.places import exchange
from farmhand.places.base import Order, Reply
from tests.support.hostile import TURNS
from tests.support.places import COST, Worker
from tests.unit.batch.fake import Batch


class Bad(Worker):
    """A host that prints the same thing whatever it is asked."""

    def __init__(self, name: str, said: bytes) -> None:
        super().__init__(name)
        self.said = said

    def play(self, order: Order) -> Reply:
        first = json.loads(order.tasks[0])["id"] if order.tasks else "none"
        return exchange.decode(self.said.replace(b"%ID", first.encode()), self.name)


@pytest.mark.parametrize("case", TURNS)
def test_one_bad_answer_ends_no_batch(tmp_path: Path, case: str) -> None:
    batch = Batch(tmp_path, [f"p{n}" for n in range(6)], workers=2)
    bad, good = Bad("bad", TURNS[case]), Worker("good")
    batch.coordinator._worker("good")
    for _ in range(8):
        batch.turn(bad)
        # The others have what it had once it is lost, as a rule at once.
        batch.turn(good)
        if batch.coordinator.over:
            break
    assert batch.coordinator.error is None
    assert not batch.coordinator.stopping
    results = batch.results()
    assert sorted(result["n"] for result in results) == list(range(1, 7))
    assert {result["host"] for result in results} == {"good"}
    assert any(line.startswith("bad") for line in batch.said)
    assert batch.book.totals.cost_pico == round(6 * COST * 1e12)
    assert batch.book.totals.uncertain == 0
    batch.close()
    again = Batch(tmp_path, workers=2)
    assert not again.book.totals.left
    again.close()


def test_a_negative_cost_gives_no_other_host_a_larger_share(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [f"p{n}" for n in range(40)], workers=2, limits=WorkerLimits(max_usd=0.01))
    good = batch.coordinator._worker("good")
    batch.turn(Bad("bad", TURNS["cost below 0"]))
    share = batch.coordinator._limit_of(good)
    assert share is not None
    assert share.pico is not None
    assert share.pico <= 10**10


def test_costs_are_exact_and_those_that_no_sum_holds_end_nothing(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [f"p{n}" for n in range(2000)], workers=1)
    host = Worker("one")
    host.outcome = lambda task: {"state": "succeeded", "cost_usd": 9999.7}
    batch.run(host)
    assert batch.book.totals.cost_pico == 2000 * 9_999_700_000_000_000
    batch.close()
    again = Batch(tmp_path, workers=1)
    assert again.book.totals.cost_pico == 2**63 - 1
    again.close()
    (tmp_path / "exact").mkdir()
    exact = Batch(tmp_path / "exact", ["a", "b", "c"], workers=1)
    host = Worker("one")
    host.outcome = lambda task: {"state": "succeeded", "cost_usd": 0.1}
    exact.run(host)
    assert exact.book.totals.cost_pico == 3 * 10**11
    exact.close()


@pytest.mark.parametrize("usd", [1_152_921.504606846976, 1_200_000.1, 4_000_000.000000000001])
def test_a_resumed_batch_shows_the_whole_amount(tmp_path: Path, usd: float) -> None:
    """2**60 pico-dollars are US$ 1.15 million; 2**53, from which on a float loses some, are US$ 9,007."""
    batch = Batch(tmp_path, ["a", "b", "c", "d"], workers=2)
    hosts = [Worker("one"), Worker("two")]
    for host in hosts:
        host.outcome = lambda task: {"state": "succeeded", "cost_usd": usd / 4}
    batch.run(*hosts)
    before = batch.book.totals.cost_pico
    assert before == 4 * pico(usd / 4)
    batch.close()
    again = Batch(tmp_path, workers=1)
    assert again.book.totals.cost_pico == before
    again.close()


def test_alone_its_word_ends_the_batch(tmp_path: Path) -> None:
    for case, kind in (("error of the settings", NotConfigured), ("the key is refused", NotConfigured)):
        (tmp_path / case).mkdir()
        batch = Batch(tmp_path / case, ["p"], workers=1)
        batch.turn(Bad("bad", TURNS[case]))
        assert isinstance(batch.coordinator.error, kind)
        batch.close()


def test_all_hosts_without_the_key_end_it(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [f"p{n}" for n in range(6)], workers=2)
    hosts = [Bad(name, TURNS["the key is refused"]) for name in ("one", "two")]
    batch.coordinator._expected = 2
    for host in hosts:
        batch.coordinator._worker(host.name)
    for host in hosts:
        assert batch.turn(host)
    assert isinstance(batch.coordinator.error, NotConfigured)
    assert batch.coordinator.error.code == "key_refused"
    # Both are told to take back what has not started.
    for host in hosts:
        planned = batch.coordinator._next(batch.coordinator._worker(host.name))
        assert planned is not None
        assert planned.stop


def test_a_host_that_is_given_tasks_again_and_again_and_has_none_is_lost(tmp_path: Path) -> None:
    batch = Batch(tmp_path, ["p"], workers=1)
    bad = Bad("bad", TURNS["nothing, again and again"])
    for _ in range(3):
        batch.turn(bad)
    error = batch.coordinator._worker("bad").error
    assert isinstance(error, FarmUnreachable)
    assert "has none of them" in str(error)
