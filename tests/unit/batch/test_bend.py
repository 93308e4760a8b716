"""A budget that bends: what goes on at a lower price, what never does, and that no line runs twice or is lost."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from farmhand.batch.bend import Bending
from farmhand.batch.journal import WAITING
from farmhand.batch.worker_state import WorkerLimits
from farmhand.core.errors import Refused
from farmhand.core.prices import price_table
from farmhand.core.task import Attachment, Task
from farmhand.core.when_spent import by_class
from tests.support.places import Worker
from tests.unit.batch.fake import Batch

HAIKU = "claude-haiku-5-5"
SONNET = "claude-sonnet-5-5"


def bending(text: str, prices: Path | None = None) -> Bending:
    return Bending(price_table(prices), by_class(text) or {})


@pytest.mark.parametrize(
    ("text", "ways"),
    [
        ("economy", {"": "economy"}),
        ("a=haiku", {"": "stop", "a": "haiku"}),
        ("haiku, a = stop", {"": "haiku", "a": "stop"}),
        ("", {"": "stop"}),
        ("cheap", None),
        ("a=", None),
        ("=haiku", None),
        ("a=haiku,a=stop", None),
        ("economy,haiku", None),
    ],
)
def test_the_ways_by_work_class(text: str, ways: dict[str, str] | None) -> None:
    assert by_class(text) == ways


@pytest.mark.parametrize(
    ("way", "asked", "used"),
    [
        ("economy", {"model": "sonnet"}, {"model": "sonnet", "economy": True}),
        ("economy", {"model": "haiku"}, {"model": "haiku", "economy": True}),
        ("economy", {"economy": True}, "half the price already"),
        ("economy", {"tools": ("Bash",)}, "no tools"),
        ("economy", {"engine": "cli"}, "no engine cli"),
        ("economy", {"model": "claude-unheard-of-9"}, "no lower price"),
        ("economy", {"files": (Attachment(media_type="application/pdf", data="JVBERi0="),)}, "a PDF's tokens"),
        ("haiku", {"model": "sonnet"}, {"model": HAIKU}),
        ("haiku", {"model": "opus", "tools": ("Bash",)}, {"model": HAIKU, "tools": ("Bash",)}),
        ("haiku", {"model": "sonnet", "economy": True}, {"model": HAIKU, "economy": True}),
        ("haiku", {}, "a haiku already"),
        ("haiku", {"model": "claude-haiku-4-5"}, "a haiku already"),
        ("haiku", {"model": "claude-unheard-of-9"}, "no lower price"),
        ("stop", {"model": "opus"}, "it stops"),
        ("stop,w=haiku", {"model": "opus", "work_class": "w"}, {"model": HAIKU, "work_class": "w"}),
        ("haiku,w=stop", {"model": "opus", "work_class": "w"}, "it stops"),
    ],
)
def test_what_a_task_becomes(way: str, asked: dict[str, Any], used: dict[str, Any] | str) -> None:
    found = bending(way).used(Task(id="x", prompt="p", **asked))
    if isinstance(used, str):
        assert isinstance(found, str)
        assert used in found
    else:
        assert found == Task(id="x", prompt="p", **used)


def test_the_price_table_decides_what_is_cheaper(tmp_path: Path) -> None:
    own = tmp_path / "prices.toml"
    own.write_text(
        '[[price]]\nmodel = "claude-sonnet-5-5"\ninput = "2"\noutput = "10"\nbatch_factor = "1"\n'
        '[[price]]\nmodel = "claude-opus-5-5"\ninput = "0.05"\noutput = "20"\n'
        '[[price]]\nmodel = "claude-tiny-haiku-1"\ninput = "0.01"\noutput = "0.05"\n'
        '[[price]]\nmodel = "claude-cheap-1"\ninput = "0.2"\noutput = "1"\n'
    )
    # Without a lower price of Message Batches, or with one kind of token that is dearer, nothing changes.
    assert "no lower price" in str(bending("economy", own).used(Task(id="x", prompt="p", model="sonnet")))
    used = bending("haiku", own).used(Task(id="x", prompt="p", model="claude-cheap-1"))
    assert isinstance(used, Task)
    assert used.model == "claude-tiny-haiku-1"
    own.write_text('[[price]]\nmodel = "claude-cheap-1"\ninput = "0.2"\noutput = "1"\n')
    price_table.cache_clear()
    # Haiku's long prompts cost more than this model's.
    assert "no lower price" in str(bending("haiku", own).used(Task(id="x", prompt="p", model="claude-cheap-1")))


def test_a_wish_that_no_task_can_have_is_refused_with_the_first_reason() -> None:
    bodies = [b'"prompt":"a"}', b'"prompt":"b","tools":["Bash"]}']
    assert "a haiku already" in bending("haiku").refusal(bodies)
    assert bending("economy").refusal(bodies) == ""
    assert "no tools" in bending("economy").refusal(bodies[1:])
    assert bending("economy").refusal([]) == ""


class Purse:
    """A budget as hosts keep it: each task costs by its form, and what does not fit is not begun."""

    def __init__(self, room: int, **prices: int) -> None:
        self.room = room
        self.prices = {"sonnet": 10, "economy": 5, "haiku": 1, **prices}
        self.ran: Counter[str] = Counter()

    def form(self, task: dict[str, Any]) -> str:
        if task.get("economy"):
            return "economy"
        return "haiku" if task.get("model") == HAIKU else "sonnet"

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        form = self.form(task)
        if self.prices[form] > self.room:
            error = {"code": "budget", "message": "the budget of the batch has no room: …"}
            return {"state": "failed", "cost_usd": None, "usage": {"requests": 0}, "error": error}
        self.room -= self.prices[form]
        self.ran[task["prompt"]] += 1
        return {"state": "succeeded", "model": task.get("model", HAIKU)}


def made(directory: Path, way: str, lines: list[Any] | None, **more: Any) -> Batch:
    return Batch(directory, lines, limits=WorkerLimits(bending=bending(way)), **more)


@pytest.mark.parametrize(("way", "price"), [("economy", 5), ("haiku", 1)])
def test_the_rest_goes_on_at_a_lower_price_and_each_result_says_so(tmp_path: Path, way: str, price: int) -> None:
    batch = made(tmp_path, way, [{"prompt": f"p{n}", "model": "sonnet"} for n in range(10)])
    host, purse = Worker("one"), Purse(70)
    host.outcome = purse
    batch.run(host)
    found = {result["n"]: result for result in batch.results()}
    assert batch.coordinator.error is None
    assert sorted(found) == list(range(1, 11))
    assert set(purse.ran.values()) == {1}
    assert purse.room == 70 - 60 - 10 if way == "economy" else 70 - 70 - 0
    bent = [result["bent"] for result in found.values() if "bent" in result]
    assert batch.journal.bent.counts() == {way: len(bent)}
    used = {"model": SONNET, "engine": "economy"} if way == "economy" else {"model": HAIKU, "engine": "api"}
    assert {json.dumps(one) for one in bent} == {
        json.dumps(
            {
                "way": way,
                "asked": {"model": SONNET, "engine": "api"},
                "used": used,
                "why": "the budget of the batch has no room: …",
            }
        )
    }
    assert [line for line in batch.said if "lower one" in line] == [
        "the budget has no room at the price that was asked: what can goes on at a lower one"
    ]
