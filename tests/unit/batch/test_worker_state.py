from __future__ import annotations

from functools import partial

from farmhand.batch.worker_state import MOST, WorkerState
from farmhand.core.errors import FarmUnreachable


def test_a_first_portion_is_all_of_it_alone_and_a_share_among_others() -> None:
    host = WorkerState("a", 1)
    assert host.wants(0, 500, 1) == 500
    assert host.wants(0, 5000, 1) == MOST
    assert host.wants(0, 500, 3) == 167
    assert host.wants(0, 9000, 3) == 256
    # One with room for all of it is given all of it, before it has finished any.
    host.hear(0, 100_000, 1.0)
    assert host.wants(50_000, 80_000, 1) == MOST


def test_a_fast_host_is_given_more_than_a_slow_one_and_neither_runs_dry() -> None:
    slow, fast = WorkerState("a", 1, heard_at=0), WorkerState("b", 2, heard_at=0)
    slow.hear(4, 32, 4.0)
    fast.hear(400, 32, 4.0)
    assert slow.wants(0, 10_000, 2) == 3 * 32
    assert fast.wants(0, 10_000, 2) == 100 * 6 + 32
    assert fast.wants(600, 10_000, 2) == 32
    assert fast.wants(700, 10_000, 2) == 0
    assert fast.wants(0, 10, 2) == 5
    assert (slow.low(96, 0), fast.low(600, 0), fast.low(10, 0)) == (32, 100, 5)


def test_a_host_that_does_not_answer_is_left_alone_longer_each_time() -> None:
    host = WorkerState("a", 1)
    pauses = []
    for _ in range(8):
        host.miss(FarmUnreachable("no"), 100.0)
        pauses.append(host.not_before - 100.0)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
    assert (host.lost, host.fresh) == (True, True)
    host.hear(0, 0, 101.0)
    assert (host.lost, host.failures, host.ever) == (False, 0, True)


def test_that_all_is_with_the_provider_is_told_once() -> None:
    worker = WorkerState("farm1", 1)
    news = partial(worker.news, all_given=True)
    queued = {"reason": "economy", "tasks": 2, "detail": "they go out together"}
    sent = {"reason": "economy_sent", "tasks": 1, "detail": "sent as 1 Message Batch at 14:03 UTC"}
    assert news([queued, sent]) == ""
    assert news([sent]) == "farm1: 1 task sent as 1 Message Batch at 14:03 UTC: the same command goes on"
    assert news([sent]) == ""
    assert news([sent | {"detail": "sent as 2 Message Batches at 14:03 UTC"}]) != ""
    assert news([{"reason": "economy_sent"}]) == ""
