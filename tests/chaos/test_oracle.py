"""The oracle can fail: a story that is right passes, and each lie in it is found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import deepcopy

import pytest

from tests.chaos.oracle import judge
from tests.chaos.plan import Moment, Plan, prompt
from tests.chaos.play import play
from tests.chaos.story import Row, Seen, Story
from tests.support.messages_api import Fault


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Twelve tasks, three of them economy; a spoilt answer, a crash."""
    tasks = [{"id": f"s0-{n}", "prompt": prompt(0, n), "batch": "b0", "economy": n > 8} for n in range(12)]
    plan = Plan(0, tasks, {"b0": None}, slots=2, latency_s=0.03)
    plan.faults = [Fault(kind="cut", match="<3>", after_events=3)]
    plan.moments = [Moment("kill", 5, 0.01)]
    return asyncio.run(play(plan, tmp_path_factory.mktemp("story")))


def _row(story: Story, number: int = 1) -> Row:
    row: Row = next(row for row in story.ledger["task"] if row["id"] == f"s0-{number}")
    return row


def _charge(story: Story, number: int = 1) -> Row:
    seq = _row(story, number)["seq"]
    charge: Row = next(one for one in reversed(story.ledger["charge"]) if one["task_seq"] == seq)
    return charge


def _request(story: Story, number: int = 1) -> Row:
    entry: Row = next(one for one in story.log if f"<{number}>" in one.get("body", ""))
    return entry


def _lost(story: Story) -> None:
    story.ledger["task"].remove(_row(story))


def _unfinished(story: Story) -> None:
    _row(story)["state"] = "running"


def _failed(story: Story) -> None:
    _row(story).update(state="failed", text="", error_code="agent_error")


def _invented_task(story: Story) -> None:
    story.ledger["task"].append({**_row(story), "id": "another", "seq": 99, "done_no": 13})


def _invented_text(story: Story) -> None:
    _row(story)["text"] = "something else"


def _invented_charge(story: Story) -> None:
    story.ledger["charge"].append({**_charge(story), "no": 99, "request_id": "req_never"})


def _charged_twice(story: Story) -> None:
    story.ledger["charge"].append({**_charge(story), "no": 99})


def _more_tokens(story: Story) -> None:
    _charge(story)["output_tokens"] += 1


def _less_money(story: Story) -> None:
    _charge(story)["cost_pico"] -= 1


def _full_price(story: Story) -> None:
    _charge(story, 9)["economy"] = 0


def _ran_twice(story: Story) -> None:
    story.log.append({**_request(story), "request_id": "req_again"})


def _economy_ran_twice(story: Story) -> None:
    entry = next(one for one in story.log if one["method"] == "BATCH")
    story.log.append({**entry, "custom_id": entry["custom_id"][:-1] + "2"})


def _attempted_twice(story: Story) -> None:
    seq = _row(story)["seq"]
    attempt = next(one for one in story.ledger["attempt"] if one["task_seq"] == seq)
    story.ledger["attempt"].append({**attempt, "number": attempt["number"] + 1})


def _unaccounted(story: Story) -> None:
    story.ledger["charge"].remove(_charge(story))


def _certain(story: Story) -> None:
    _row(story, 3)["uncertain"] = 0


def _too_uncertain(story: Story) -> None:
    _row(story)["uncertain"] += 5


def _unsaid(story: Story) -> None:
    story.seen["s0-1"].append(Seen("running", 1, ""))


def _shown_early(story: Story) -> None:
    story.seen["s0-1"].insert(0, Seen("failed", 1, ""))


def _place_reused(story: Story) -> None:
    _row(story)["done_no"] = _row(story, 2)["done_no"]


def _cancelled(story: Story) -> None:
    _row(story).update(state="cancelled", text="")


def _unreserved(story: Story) -> None:
    story.ledger["reservation"].pop()


def _reserved_for_ever(story: Story) -> None:
    story.ledger["reservation"].append({"task_seq": _row(story)["seq"], "attempt": 1, "request": 9, "pico": 5})


def _crashed_early(story: Story) -> None:
    _row(story).update(state="failed", text="", error_code="agent_crashed")


def _batch_crashed_early(story: Story) -> None:
    """One crash over a Message Batch and one over its result, of three."""
    _row(story, 9).update(state="failed", text="", error_code="agent_crashed")
    next(one for one in story.ledger["attempt"] if one["task_seq"] == _row(story, 9)["seq"])["crashes"] = 1
    for batch in story.ledger["provider_batch"]:
        batch.update(crashes=2, suspected=1)


def _poison(story: Story) -> None:
    next(one for one in story.ledger["attempt"] if one["task_seq"] == _row(story)["seq"])["crashes"] = 4


def _untold(story: Story) -> None:
    story.charges.pop()


def test_a_story_that_is_right_passes(story: Story) -> None:
    assert judge(story) == []
    assert story.crashes == 1
    assert _row(story, 3)["uncertain"] >= 1


@pytest.mark.parametrize(
    ("lie", "word"),
    [
        (_lost, "lost: s0-1"),
        (_unfinished, "lost: s0-1"),
        (_failed, "lost: s0-1"),
        (_invented_task, "invented: nobody submitted another"),
        (_invented_text, "invented: the text of s0-1"),
        (_invented_charge, "invented: s0-1 has a charge"),
        (_charged_twice, "is charged 2 times"),
        (_more_tokens, "is more than"),
        (_less_money, "prices: charge"),
        (_full_price, "invented: the charge"),
        (_ran_twice, "run twice: s0-1"),
        (_economy_ran_twice, "run twice: "),
        (_attempted_twice, "run twice: s0-1"),
        (_unaccounted, "unaccounted: "),
        (_certain, "unaccounted: "),
        (_too_uncertain, "invented: s0-1 counts"),
        (_unsaid, "invented: s0-1 was shown"),
        (_shown_early, "invented: s0-1 was shown"),
        (_place_reused, "places: "),
        (_cancelled, "nobody asked for that"),
        (_unreserved, "reserved: "),
        (_reserved_for_ever, "reserved: s0-1"),
        (_crashed_early, "lost: s0-1"),
        (_batch_crashed_early, "lost: s0-9"),
        (_poison, "poison: "),
        (_untold, "invented: the wire told"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_a_lie_is_found(story: Story, lie: Callable[[Story], None], word: str) -> None:
    told = deepcopy(story)
    lie(told)
    found = judge(told)
    assert any(word in line for line in found), found
