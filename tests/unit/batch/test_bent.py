"""Lines that wait for room in a budget: they are handed in again where, as far as is known, there may be some."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import Worker
from tests.unit.batch.fake import Batch
from tests.unit.batch.test_bend import Purse, bending, made


class CountedPurse(Purse):
    """The day's budget of a host: it reserves three times what a task costs, and says what it has. In micro-dollars.

    An older agent `says` it only in words.
    """

    def __init__(self, limit: int, *, says: bool = True) -> None:
        super().__init__(limit)
        self.says = says
        self.spent = self.reserved = 0
        self.refused: Counter[str] = Counter()

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        cost = 10 if self.form(task) == "sonnet" else 1
        if self.spent + self.reserved + 3 * cost > self.room:
            self.refused[task["prompt"]] += 1
            error: dict[str, Any] = {"code": "budget", "message": "the budget of the day 2026-12-01 has no room"}
            if self.says:
                sums = {"limit": self.room, "spent": self.spent, "needs": 3 * cost}
                error["budget"] = {"of": "day", **{f"{name}_usd": one / 10**6 for name, one in sums.items()}}
            return {"state": "failed", "cost_usd": None, "usage": {"requests": 0}, "error": error}
        self.reserved += 3 * cost
        self.ran[task["prompt"]] += 1
        return {"state": "succeeded", "cost_usd": cost / 10**6}

    def settle(self) -> None:
        """What runs ends."""
        self.spent, self.reserved = self.spent + self.reserved // 3, 0


@pytest.mark.parametrize("says", [True, False])
def test_a_held_line_is_handed_in_again_only_where_there_may_be_room(tmp_path: Path, says: bool) -> None:
    batch = made(tmp_path, "haiku", [{"prompt": f"p{n}", "model": "sonnet"} for n in range(60)])
    host = Worker("one")
    purse = host.outcome = CountedPurse(100, says=says)
    while not batch.coordinator.over and batch.turn(host):
        purse.settle()
    assert batch.coordinator.error is None
    assert (set(purse.ran.values()), len(purse.ran)) == ({1}, 60)
    # Once at the price asked, once with all the others at the lower one; each round of before refused all the rest.
    if says:
        assert sum(purse.refused.values()) <= 100, purse.refused
        assert max(purse.refused.values()) <= 3


def test_what_is_left_says_how_much_is_handed_in(tmp_path: Path) -> None:
    found = bending("haiku")
    assert (found.room(None, 0), found.room(0.5, 2 * 10**11)) == (None, 3 * 10**11)
    assert found.room(0.1, 2 * 10**11) == 0
    sums = {"spent_usd": 0.1, "limit_usd": 0.9, "needs_usd": 0.2}
    found.last = {"message": "…", "budget": {"of": "batch", **sums}}
    assert found.room(1, 0) == 10**12
    found.last = {"message": "…", "budget": {"of": "day", **sums}}
    found.since = 10**11
    assert found.room(0.1, 0) == 7 * 10**11
    found.since = 9 * 10**11
    assert found.room(0.1, 0) == 2 * 10**11  # one of them is tried all the same
    found.last = {"message": "the budget of the day 2026-12-01 has no room: US$ 0.1 of 0.9 is used"}
    assert found.room(0.1, 0) == 10**11
    batch = Batch(tmp_path, [*"abcdef"])
    bent = batch.journal.bent
    with batch.journal.transaction():
        for n, need in ((1, 30), (2, 10), (3, 0), (4, 20)):
            bent.hold(n, need)
        for n in (5, 6):
            bent.hold(n, 2**63 - 1)
        assert bent.release(5) == 1
        assert bent.release(9) == 0
        assert bent.release(30) == 2
        assert bent.any_held()
        assert bent.release(None) == 3
    assert not bent.any_held()
