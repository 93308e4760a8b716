"""What a place whose work goes on without this process relies on, in the accounts and in the orders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farmhand.places.base import Reply
from tests.support.places import COST, Worker
from tests.unit.batch.fake import Batch


def test_a_second_result_costs_and_does_not_replace_the_first(tmp_path: Path) -> None:
    batch, worker = Batch(tmp_path, ["a"]), Worker("w")
    batch.run(worker)
    lease = worker.order[0]
    again = {**worker.known[lease]["result"], "text": "another"}
    # Whoever sends a result again is not counted twice; one that says that it is another run's is.
    batch.coordinator.give("w", Reply(results=[again], next=2))
    assert batch.book.totals.as_dict()["cost_usd"] == pytest.approx(COST)
    batch.coordinator.give("w", Reply(results=[{**again, "second": True}], next=3))
    totals = batch.book.totals.as_dict()
    assert (totals["cost_usd"], totals["twice"]) == (pytest.approx(2 * COST), 1)
    [line] = batch.results()
    assert line["text"].startswith("did ")
    assert "second" not in json.dumps(line)
    batch.close()


def test_a_cost_that_no_result_has_is_in_the_sum_and_stays_there(tmp_path: Path) -> None:
    batch = Batch(tmp_path, ["a", "b"])
    batch.coordinator.give("w", Reply(unclaimed_pico=5_000_000, next=1, unfinished=0))
    assert batch.book.totals.as_dict()["cost_usd"] == pytest.approx(5e-6)
    batch.close()
    again = Batch(tmp_path)
    assert again.book.totals.as_dict()["cost_usd"] == pytest.approx(5e-6)
    again.close()


def test_an_order_says_whether_more_comes_also_of_what_is_sent_again(tmp_path: Path) -> None:
    def portions(batch: Batch, worker: Worker) -> list[tuple[int, bool]]:
        found: list[tuple[int, bool]] = []
        for _ in range(4):
            order = batch.coordinator._next(batch.coordinator._worker(worker.name))
            if order is None or not order.tasks:
                return found
            found.append((len(order.tasks), order.more))
            batch.coordinator.give(worker.name, worker.play(order))
        return found

    worker = Worker("w", slots=1_000_000)
    worker.works = False
    first = Batch(tmp_path, [f"p{n}" for n in range(2500)])
    assert portions(first, worker) == [(1000, True), (1000, True), (500, False)]
    first.close()
    again = Batch(tmp_path)
    assert portions(again, worker) == [(1000, True), (1000, True), (500, False)]
    again.close()
