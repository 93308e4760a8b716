"""A batch over an honest host and one whose answers are none: it is done on the honest one, and nothing is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from farmhand.batch.host_state import WorkerLimits
from farmhand.core.errors import FarmUnreachable, NotConfigured
from tests.support.hostile import TURNS
from tests.unit.batch.fake import COST, Batch, Host


class Bad(Host):
    """A host that prints the same thing whatever it is asked."""

    def __init__(self, name: str, said: bytes) -> None:
        super().__init__(name)
        self.said = said

    def print(self, body: bytes) -> bytes:
        tasks = json.loads(body)["tasks"]
        return self.said.replace(b"%ID", tasks[0]["id"].encode() if tasks else b"none")


def turn(batch: Batch, host: Host) -> dict[str, Any] | None:
    """One turn, as the desk's threads do it; a fault that nobody foresaw fails the test."""
    one = batch.coordinator._host(host.name)
    one.not_before = one.halted_until = 0
    batch.coordinator._expected = batch.hosts
    planned = batch.coordinator._next(one)
    if planned is None:
        return None
    body = batch.coordinator._encode(planned)
    answer = host.print(body) if isinstance(host, Bad) else json.dumps(host.play(body)).encode()
    return batch.coordinator.give(host.name, answer)


@pytest.mark.parametrize("case", TURNS)
def test_one_bad_answer_ends_no_batch(tmp_path: Path, case: str) -> None:
    batch = Batch(tmp_path, [f"p{n}" for n in range(6)], hosts=2)
    bad, good = Bad("bad", TURNS[case]), Host("good")
    batch.coordinator._host("good")
    for _ in range(8):
        turn(batch, bad)
        # The others have what it had once it is lost, as a rule at once.
        turn(batch, good)
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
    again = Batch(tmp_path, hosts=2)
    assert not again.book.totals.left
    again.close()


def test_a_negative_cost_gives_no_other_host_a_larger_share(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [f"p{n}" for n in range(40)], hosts=2)
    batch.coordinator._limits = WorkerLimits(max_usd=0.01)
    good = batch.coordinator._host("good")
    turn(batch, Bad("bad", TURNS["cost below 0"]))
    share = batch.coordinator._limits_of(good)
    assert share is not None
    assert share["max_usd"] <= 0.01


def test_costs_are_exact_and_those_that_no_sum_holds_end_nothing(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [f"p{n}" for n in range(2000)], hosts=1)
    host = Host("one")
    host.outcome = lambda task: {"state": "succeeded", "cost_usd": 9999.7}
    batch.run(host)
    assert batch.book.totals.cost_pico == 2000 * 9_999_700_000_000_000
    batch.close()
    again = Batch(tmp_path, hosts=1)
    assert again.book.totals.cost_pico == 2**60
    again.close()
    (tmp_path / "exact").mkdir()
    exact = Batch(tmp_path / "exact", ["a", "b", "c"], hosts=1)
    host = Host("one")
    host.outcome = lambda task: {"state": "succeeded", "cost_usd": 0.1}
    exact.run(host)
    assert exact.book.totals.cost_pico == 3 * 10**11
    exact.close()


def test_alone_its_word_ends_the_batch(tmp_path: Path) -> None:
    for case, kind in (("error of the settings", NotConfigured), ("the key is refused", NotConfigured)):
        (tmp_path / case).mkdir()
        batch = Batch(tmp_path / case, ["p"], hosts=1)
        turn(batch, Bad("bad", TURNS[case]))
        assert isinstance(batch.coordinator.error, kind)
        batch.close()


def test_all_hosts_without_the_key_end_it(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [f"p{n}" for n in range(6)], hosts=2)
    hosts = [Bad(name, TURNS["the key is refused"]) for name in ("one", "two")]
    batch.coordinator._expected = 2
    for host in hosts:
        batch.coordinator._host(host.name)
    for host in hosts:
        one = batch.coordinator._host(host.name)
        planned = batch.coordinator._next(one)
        assert planned is not None
        batch.coordinator.give(host.name, host.print(batch.coordinator._encode(planned)))
    assert isinstance(batch.coordinator.error, NotConfigured)
    assert batch.coordinator.error.code == "key_refused"
    # Both are told to take back what has not started.
    for host in hosts:
        planned = batch.coordinator._next(batch.coordinator._host(host.name))
        assert planned is not None
        assert planned["stop"]


def test_a_host_that_is_given_tasks_again_and_again_and_has_none_is_lost(tmp_path: Path) -> None:
    batch = Batch(tmp_path, ["p"], hosts=1)
    bad = Bad("bad", TURNS["nothing, again and again"])
    for _ in range(3):
        turn(batch, bad)
    error = batch.coordinator._host("bad").error
    assert isinstance(error, FarmUnreachable)
    assert "has none of them" in str(error)
