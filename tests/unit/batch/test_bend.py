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
from farmhand.batch.output import OutputFile
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


def test_whatever_is_asked_no_price_of_what_is_used_is_higher() -> None:
    """Neither in a long prompt, nor in the cache, nor by either way of asking."""
    table = price_table()
    for model in table.models:
        for asked in (Task(id="x", prompt="p", model=model, economy=economy) for economy in (False, True)):
            for way in ("economy", "haiku"):
                if isinstance(used := bending(way).used(asked), str):
                    continue
                for prompt in (1, 100_000, 100_001, 200_001, 1_000_000):
                    old = table.rates(asked.model, prompt, economy=asked.economy)
                    new = table.rates(used.model, prompt, economy=used.economy)
                    assert old is not None
                    assert new is not None
                    assert all(a <= b for a, b in zip(new, old, strict=True) if a is not None and b is not None)


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
        self.prices = {"sonnet": 10, "economy": 3, "haiku": 1, **prices}
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


@pytest.mark.parametrize(("way", "left"), [("economy", 0), ("haiku", 6)])
def test_the_rest_goes_on_at_a_lower_price_and_each_result_says_so(tmp_path: Path, way: str, left: int) -> None:
    batch = made(tmp_path, way, [{"prompt": f"p{n}", "model": "sonnet"} for n in range(10)])
    host, purse = Worker("one"), Purse(79)
    host.outcome = purse
    batch.run(host)
    found = {result["n"]: result for result in batch.results()}
    assert batch.coordinator.error is None
    assert sorted(found) == list(range(1, 11))
    assert set(purse.ran.values()) == {1}
    assert purse.room == left
    bent = [result["bent"] for result in found.values() if "bent" in result]
    assert len(bent) == 3
    assert batch.journal.bent.counts() == {way: 3}
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


def test_where_no_room_is_left_even_so_it_stops_and_more_money_goes_on_at_the_price_asked(tmp_path: Path) -> None:
    batch = made(tmp_path, "economy", [{"prompt": f"p{n}", "model": "sonnet"} for n in range(10)], ordered=True)
    host, purse = Worker("one"), Purse(74)
    host.outcome = purse
    batch.run(host)
    assert isinstance(batch.coordinator.error, Refused)
    assert (batch.book.totals.succeeded, batch.book.totals.left) == (8, 2)
    assert batch.journal.bent.counts() == {"economy": 1}
    batch.close()
    purse.room = 20
    again = Batch(tmp_path, ordered=True)
    again.run(host)
    assert [("bent" in result) for result in again.results()] == [False] * 7 + [True, False, False]
    assert (set(purse.ran.values()), purse.room) == ({1}, 0)
    assert again.journal.bent.counts() == {"economy": 1}


def test_what_cannot_bend_stays_as_asked_and_does_not_stop_the_others(tmp_path: Path) -> None:
    lines = [{"prompt": f"p{n}", "model": "sonnet", **({"tools": ["Read"]} if n in (3, 8) else {})} for n in range(10)]
    batch = made(tmp_path, "economy", lines)
    host, purse = Worker("one"), Purse(100 + 7 * 3, sonnet=100)
    host.outcome = purse
    batch.run(host)
    assert isinstance(batch.coordinator.error, Refused)
    assert sorted(result["n"] for result in batch.results()) == [1, 2, 3, 5, 6, 7, 8, 10]
    assert batch.journal.totals()["total"] == 10
    assert batch.book.totals.left == 2
    batch.close()
    purse.room = 200
    again = made(tmp_path, "economy", None)
    again.run(host)
    assert again.coordinator.error is None
    assert sorted(purse.ran.values()) == [1] * 10


def test_room_that_comes_back_when_other_tasks_end_is_used(tmp_path: Path) -> None:
    """Economy tasks reserve the most that they may cost until they end: what had no room then is tried again."""
    batch = made(tmp_path, "economy", [{"prompt": f"p{n}", "model": "sonnet"} for n in range(9)])
    host = Worker("one")
    while not batch.coordinator.over:
        purse = host.outcome = Purse(7)  # what the tasks before have reserved is free again
        assert batch.turn(host)
        assert purse.room >= 0
    assert batch.coordinator.error is None
    assert sorted(result["n"] for result in batch.results()) == list(range(1, 10))


def test_work_classes_bend_each_in_its_way(tmp_path: Path) -> None:
    lines = [
        {"prompt": f"{name}{n}", "model": "sonnet", "work_class": name} for n in range(4) for name in ("a", "b", "c")
    ]
    batch = made(tmp_path, "stop,a=economy,b=haiku", lines)
    host, purse = Worker("one"), Purse(25)
    host.outcome = purse
    batch.run(host)
    assert isinstance(batch.coordinator.error, Refused)
    ways = Counter((result.get("bent") or {}).get("way") for result in batch.results())
    assert ways == {None: 2, "economy": 1, "haiku": 2}
    assert not [name for name in purse.ran if name.startswith("c")]


@pytest.mark.parametrize("seed", range(12))
def test_no_line_runs_twice_or_is_lost_whatever_happens_as_it_bends(tmp_path: Path, seed: int) -> None:
    """Clients are killed and a host is lost at any moment, and its results come late; each has money of its own."""
    chance = random.Random(seed)  # noqa: S311  (no secret)
    way = chance.choice(["economy", "haiku"])
    hosts = [Worker("one"), Worker("two")]
    purses = [Purse(chance.randint(0, 600)) for _ in hosts]
    for host, purse in zip(hosts, purses, strict=True):
        host.outcome = purse
    lines = [{"prompt": f"p{n}", "model": "sonnet"} for n in range(120)]
    batch = made(tmp_path, way, lines, workers=2, ordered=seed % 2 == 0)
    for _ in range(80):
        host = chance.choice(hosts)
        host.works = chance.random() < 0.7
        roll = chance.random()
        if roll < 0.15 or (roll < 0.3 and batch.coordinator.over):
            batch.close()
            batch = made(tmp_path, way, None, workers=2, ordered=seed % 2 == 0)
        elif roll < 0.3:
            batch.turn(host, lost=True)
        else:
            batch.turn(host)
    batch.close()
    batch = made(tmp_path, way, None, workers=2, ordered=seed % 2 == 0)
    for host, purse in zip(hosts, purses, strict=True):
        host.works, purse.room = True, 2000
    batch.run(*hosts)
    found = batch.results()
    assert sorted(result["n"] for result in found) == list(range(1, 121))
    assert {result["state"] for result in found} == {"succeeded"}
    # What ran on both hosts is counted as that: nothing else ran twice.
    ran = sum(sum(purse.ran.values()) for purse in purses)
    totals = batch.journal.totals()
    assert ran - totals["duplicates"] == 120
    assert totals["cost_pico"] == ran * 10_000_000
    for result in found:
        # A result says how it was made, whoever was first.
        assert (purse.form(known_task(hosts, result)) == "sonnet") == ("bent" not in result)


def known_task(hosts: list[Worker], result: dict[str, Any]) -> dict[str, Any]:
    """The task of which this is the result, as the host got it."""
    [host] = [host for host in hosts if host.name == result["host"]]
    [task] = [known["task"] for lease, known in host.known.items() if result["text"] == f"did {lease}"]
    return dict(task)


def test_a_refusal_of_a_revoked_lease_fails_nothing(tmp_path: Path) -> None:
    batch = Batch(tmp_path, ["a"], workers=2)
    one, two = Worker("one"), Worker("two")
    one.works = two.works = False
    batch.turn(one)
    batch.turn(one, lost=True)
    batch.turn(two)
    [lease] = one.known
    one.end(lease, {"state": "failed", "error": {"code": "budget", "message": "the budget of the batch has no room"}})
    batch.turn(one)
    assert batch.results() == []
    two.works = True
    batch.run(two)
    assert [(result["host"], result["state"]) for result in batch.results()] == [("two", "succeeded")]


def test_a_table_has_a_column_for_it_and_is_known_again(tmp_path: Path) -> None:
    batch = made(tmp_path, "haiku", [{"prompt": f"p{n}", "model": "sonnet"} for n in range(2)])
    with batch.journal.transaction():
        batch.journal.note("bends", "yes")
        batch.journal.note("columns", "[]")
    host = Worker("one")
    host.outcome = Purse(11)
    batch.run(host)
    out = tmp_path / "out.csv"
    OutputFile(out, batch.journal, ordered=True).close()
    head, first, second = out.read_text().splitlines()
    assert head.startswith("n,id,state,bent,text,")
    assert ",succeeded,,did " in first
    assert f",succeeded,haiku: {SONNET} by api was asked; the budget of the batch has no room: …,did " in second
    before = out.read_bytes()
    OutputFile(out, batch.journal, ordered=True).close()
    assert out.read_bytes() == before


def test_a_journal_of_an_earlier_farmhand_goes_on(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [{"prompt": "a", "model": "sonnet"}])
    batch.journal._do("DROP TABLE bent")
    batch.close()
    again = made(tmp_path, "haiku", None)
    host = Worker("one")
    host.outcome = Purse(3)
    again.run(host)
    assert [result["bent"]["way"] for result in again.results()] == ["haiku"]
    assert again.journal.bodies([WAITING])
