"""Who gets what, what results mean, hosts that die and return, clients that are killed: without Ansible or daemons."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from farmhand.batch import worker_state
from farmhand.batch.worker_state import WorkerLimits
from farmhand.core.errors import FarmUnreachable, NotConfigured, Refused
from farmhand.places import exchange
from farmhand.places.base import Dispatcher, Limit
from tests.support.places import COST, InProcessPlace, Worker
from tests.unit.batch.fake import KEY, Batch


def numbers(batch: Batch) -> list[int]:
    return [result["n"] for result in batch.results()]


@pytest.mark.parametrize("ordered", [False, True])
def test_all_is_done_once(tmp_path: Path, ordered: bool) -> None:
    batch = Batch(tmp_path, [f"p{n}" for n in range(2500)], ordered=ordered, workers=3)
    hosts = [Worker(f"h{n}") for n in range(3)]
    batch.run(*hosts)
    assert batch.coordinator.over
    assert sorted(numbers(batch)) == list(range(1, 2501))
    assert not ordered or numbers(batch) == sorted(numbers(batch))
    assert sum(len(host.ran) for host in hosts) == 2500
    assert min(len(host.ran) for host in hosts) > 500
    assert batch.book.totals.cost_pico == round(2500 * COST * 1e12)
    assert KEY not in batch.out.read_text()


def test_what_a_lost_host_had_goes_to_the_others_and_is_cancelled_there_first(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [f"p{n}" for n in range(10)], workers=2)
    one, two = Worker("one"), Worker("two")
    one.works = False
    batch.turn(one)
    batch.turn(one, lost=True)
    assert batch.said == ["one: no route; its 8 unfinished tasks go to the others"]
    batch.run(two)
    assert sorted(numbers(batch)) == list(range(1, 11))
    assert {result["host"] for result in batch.results()} == {"two"}
    batch.close()
    one.works = True
    again = Batch(tmp_path, workers=2)
    assert set(again.journal.to_cancel(1, 10)) > set(one.known)
    assert not again.book.totals.left


def test_a_host_that_returns_is_told_before_it_gets_the_key_and_the_first_result_counts(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [f"p{n}" for n in range(8)], workers=2)
    one, two = Worker("one"), Worker("two")
    one.works = two.works = False
    batch.turn(one)
    batch.turn(two)
    batch.turn(one, lost=True)
    batch.turn(two)
    assert len(two.known) == 8
    # One of those that were moved away was done there all the same, before we could say so.
    early = next(iter(one.known))
    one.end(early, {"state": "succeeded"})
    batch.turn(one)
    assert "one is back" in batch.said
    assert [one.known[wire]["state"] for wire in one.known] == ["succeeded"] + ["cancelled"] * 3
    assert [(r["host"], r["state"]) for r in batch.results()] == [("one", "succeeded")]
    two.works = True
    batch.run(two, one)
    assert sorted(numbers(batch)) == list(range(1, 9))
    assert batch.book.totals.cancelled == 0
    # It is cancelled on the other one, and where that is too late its cost is named.
    assert batch.book.totals.duplicates == (1 if early in two.ran else 0)


def test_a_task_that_ran_twice_is_written_once_and_its_cost_is_named(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [f"p{n}" for n in range(3)], workers=2)
    one, two = Worker("one"), Worker("two")
    one.works = False
    batch.turn(one)
    batch.turn(one, lost=True)
    for wire in one.known:
        one.end(wire, {"state": "succeeded"})
    two.works = False
    batch.turn(two)
    for wire in two.known:
        if wire in one.known:
            two.end(wire, {"state": "succeeded"})
    batch.turn(two)
    batch.turn(one)
    two.works = True
    batch.run(two, one)
    assert sorted(numbers(batch)) == [1, 2, 3]
    assert batch.book.totals.duplicates == len(one.known)
    assert batch.book.totals.duplicates_pico == round(len(one.known) * COST * 1e12)


def test_ids_are_not_used_again_where_they_were_cancelled(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [{"id": "a", "prompt": "x"}], workers=2)
    one, two = Worker("one"), Worker("two")
    one.works = two.works = False
    batch.turn(one)
    batch.turn(one, lost=True)
    batch.turn(two)
    batch.turn(one)
    batch.turn(two, lost=True)
    one.works = True
    batch.run(one)
    assert [(r["id"], r["host"], r["state"]) for r in batch.results()] == [("a", "one", "succeeded")]
    assert one.ran == ["a.r2"]


@pytest.mark.parametrize("seed", range(15))
def test_clients_killed_at_any_moment_and_hosts_lost_at_random(tmp_path: Path, seed: int) -> None:
    """Whatever happens, in the end every line has one result."""
    chance = random.Random(seed)  # noqa: S311  (no secret)
    hosts = [Worker("one"), Worker("two")]
    batch = Batch(tmp_path, [f"p{n}" for n in range(400)], workers=2, ordered=seed % 2 == 0)
    lost = 0
    for _ in range(400):
        host = chance.choice(hosts)
        host.works = chance.random() < 0.6
        roll = chance.random()
        if roll < 0.2:
            lost += 1
            batch.turn(host, lost=True)
        elif roll < 0.3:
            # The client dies: what was not committed is gone, what was written may be torn.
            batch.close()
            data = batch.out.read_bytes()
            batch.out.write_bytes(data[: len(data) - chance.choice([0, 0, 1, 5, 200])])
            batch = Batch(tmp_path, workers=2, ordered=seed % 2 == 0)
        else:
            batch.turn(host)
    for host in hosts:
        host.works = True
    batch.run(*hosts)
    assert batch.coordinator.over or not batch.book.totals.left
    found = numbers(batch)
    assert sorted(found) == list(range(1, 401))
    assert seed % 2 or found == sorted(found)
    assert {result["state"] for result in batch.results()} == {"succeeded"}
    assert batch.journal.totals()["succeeded"] == 400


def answer(batch: Batch, host: str, **about: Any) -> None:
    batch.coordinator.give(host, exchange.decode(json.dumps({"next": 0, **about}).encode(), host))


def test_a_refused_key_stops_and_says_which_kind(tmp_path: Path) -> None:
    batch = Batch(tmp_path, ["a"])
    answer(batch, "one", waiting=[{"reason": "key_refused", "tasks": 1, "detail": f"the API refused the key: {KEY}"}])
    assert batch.coordinator.stopping
    assert isinstance(batch.coordinator.error, NotConfigured)
    assert KEY not in str(batch.coordinator.error)
    batch.coordinator.error = None
    answer(batch, "one", waiting=[{"reason": "key_refused", "tasks": 1, "detail": "your credit balance is too low"}])
    assert isinstance(batch.coordinator.error, Refused)


def test_a_shared_budget_puts_tasks_back_and_a_task_s_own_is_its_failure(tmp_path: Path) -> None:
    batch = Batch(tmp_path, ["a", {"id": "own", "prompt": "b"}])
    host = Worker("one")

    def outcome(task: dict[str, Any]) -> dict[str, Any]:
        name = "task" if task["id"] == "own" else "batch x"
        return {"state": "failed", "error": {"code": "budget", "message": f"the budget of the {name} is spent: …"}}

    host.outcome = outcome
    batch.turn(host)
    assert [(r["id"], r["state"]) for r in batch.results()] == [("own", "failed")]
    assert isinstance(batch.coordinator.error, Refused)
    assert batch.book.totals.left == 1
    batch.close()
    host.outcome = lambda task: {"state": "succeeded"}
    again = Batch(tmp_path)
    again.run(host)
    assert [r["state"] for r in again.results()] == ["failed", "succeeded"]


def test_each_host_has_its_share_of_the_limits(tmp_path: Path) -> None:
    limits = WorkerLimits(max_usd=1.0, concurrency=5)
    batch = Batch(tmp_path, [f"p{n}" for n in range(9)], workers=2, limits=limits)
    one = Worker("one")
    batch.turn(one)
    assert one.limits == [Limit(pico=5 * 10**11, concurrency=2)]
    batch.close()
    # The worker keeps them: a run without any takes them off.
    batch = Batch(tmp_path, workers=2)
    one.works = False
    batch.turn(one)
    assert one.limits[-1] == Limit()


def test_tasks_that_are_refused_one_by_one(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [{"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y"}])
    batch.coordinator._next(batch.coordinator._worker("one"))
    answer(
        batch,
        "one",
        refused=[
            {"id": "a", "code": "id_conflict", "message": "taken", "hint": ""},
            {"id": "b", "code": "network_refused", "message": "no", "hint": "ask"},
        ],
    )
    assert [(r["id"], r["error"]["code"]) for r in batch.results()] == [("b", "network_refused")]
    host = Worker("one")
    batch.run(host)
    assert host.ran == ["a.r2"]
    assert [r["id"] for r in batch.results()] == ["b", "a"]


def test_a_host_with_another_ledger_is_given_its_tasks_again(tmp_path: Path) -> None:
    batch = Batch(tmp_path, ["a", "b"])
    host = Worker("one")
    host.works = False
    batch.turn(host)
    fresh = Worker("one")
    batch.run(fresh)
    assert sorted(numbers(batch)) == [1, 2]


def test_an_input_that_changes_while_it_runs_changes_no_task(tmp_path: Path) -> None:
    batch = Batch(tmp_path, ["aaa", {"prompt": "bbb", "labels": {"x": "y"}}])
    batch.input.write_text('"aaa"\n"xxx"\n')
    one = Worker("one")
    batch.run(one)
    tasks = [known["task"] for known in one.known.values()]
    assert [task["prompt"] for task in tasks] == ["aaa", "bbb"]
    assert [task["batch"] for task in tasks] == [batch.book.batch] * 2
    assert tasks[1]["labels"] == {"x": "y"}


def test_no_host_at_all(tmp_path: Path) -> None:
    batch = Batch(tmp_path, ["a"], workers=2)
    for name in ("one", "two"):
        batch.turn(Worker(name), lost=True)
    batch.coordinator.tick()
    assert batch.coordinator.over
    assert isinstance(batch.coordinator.error, FarmUnreachable)
    assert "one: no route (and 1 more host)" in str(batch.coordinator.error)


def test_a_place_that_ends_or_fails_before_the_batch_does_ends_it_with_an_error(tmp_path: Path) -> None:
    batch = Batch(tmp_path, ["a"])
    batch.coordinator.run(lambda: None)
    assert batch.coordinator.over
    assert isinstance(batch.coordinator.error, FarmUnreachable)
    batch.close()

    class Broken(InProcessPlace):
        def run(self, batch: Dispatcher) -> None:
            raise ZeroDivisionError("no such thing")

    batch = Batch(tmp_path, place=Broken(()))
    batch.coordinator.run(lambda: None)
    assert str(batch.coordinator.error) == "ZeroDivisionError: no such thing"


def test_a_host_that_takes_nothing_leaves_the_work_to_the_other(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [f"p{n}" for n in range(20)], workers=2)
    one, two = Worker("one"), Worker("two")
    batch.coordinator._next(batch.coordinator._worker("one"))
    answer(batch, "one", halted={"code": "draining", "message": "it is being emptied", "hint": ""}, unfinished=0)
    assert "one takes no tasks now" in batch.said[0]
    batch.run(two)
    assert sorted(numbers(batch)) == list(range(1, 21))
    assert not one.ran


def test_a_host_that_is_emptied_for_long_gives_back_what_has_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Batch(tmp_path, [f"p{n}" for n in range(20)], workers=2)
    one, two = Worker("one"), Worker("two")
    one.works = two.works = False
    batch.turn(one)
    batch.turn(two)
    one.waiting = [{"reason": "draining", "tasks": 10}]
    batch.turn(one)
    assert batch.leases(one) >= 10
    monkeypatch.setattr(worker_state, "HELD_S", 0.0)
    batch.turn(one)
    assert batch.said == ["one is being emptied: what has not started there goes to the others"]
    assert batch.leases(one) == 0
    one.waiting = []
    two.works = True
    batch.run(two)
    assert sorted(numbers(batch)) == list(range(1, 21))
    assert {result["host"] for result in batch.results()} == {"two"}
    assert not one.ran


def test_the_only_host_keeps_its_tasks_while_it_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_state, "HELD_S", 0.0)
    batch = Batch(tmp_path, ["a", "b"])
    one = Worker("one")
    one.works, one.waiting = False, [{"reason": "draining", "tasks": 2}]
    batch.turn(one)
    batch.turn(one)
    assert batch.leases(one) == 2
    assert not batch.said


def test_hosts_that_all_take_nothing_are_waited_for_no_longer_than_patience(tmp_path: Path) -> None:
    batch = Batch(tmp_path, ["a"], limits=WorkerLimits(patience_s=0.0))
    halted = {"code": "draining", "message": "it is being emptied", "hint": ""}
    for _ in range(2):
        batch.coordinator._worker("one").halted_until = 0
        batch.coordinator._next(batch.coordinator._worker("one"))
        answer(batch, "one", halted=halted, unfinished=0)
    assert batch.book.waiting == 1
    batch.coordinator.tick()
    assert batch.coordinator.over
    assert isinstance(batch.coordinator.error, FarmUnreachable)
    assert "it is being emptied" in batch.coordinator.error.message
    assert len(batch.said) == 1


def test_a_day_budget_that_is_spent_on_every_host_stops_the_batch(tmp_path: Path) -> None:
    batch = Batch(tmp_path, ["a"])
    batch.coordinator._next(batch.coordinator._worker("one"))
    answer(batch, "one", halted={"code": "budget", "message": "the day's budget is spent", "hint": ""}, unfinished=0)
    assert isinstance(batch.coordinator.error, Refused)
    assert batch.book.waiting == 1
