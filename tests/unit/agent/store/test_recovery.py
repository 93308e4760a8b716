"""What a start makes of what ran when the agent ended: who is to blame, who goes on, what stays spent."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from farmhand.agent.store.commands import AttemptEnd, ChargeRow, NoLongerQueued
from farmhand.agent.store.ledger import Ledger
from farmhand.agent.store.outbox import MessageBatchStore
from farmhand.core.task import Result, Task, Usage


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.db")
    yield opened
    opened.close()


async def running(ledger: Ledger, *names: str) -> list[int]:
    """Tasks that run."""
    seqs = []
    for name in names:
        await ledger.submit([Task(id=name, prompt="hello", batch="b")], "queued", "fp")
        seqs.append(ledger.known(name).seq)
        await ledger.start(seqs[-1], "fp")
    return seqs


async def again(ledger: Ledger, attempts: int = 3) -> None:
    """The agent crashes, starts, and gets its key."""
    await ledger.recover(attempts)
    await ledger.resume("fp")


async def test_a_crash_counts_for_those_that_ran_and_for_no_other(ledger: Ledger) -> None:
    seqs = await running(ledger, "a", "b")
    await ledger.submit([Task(id="c", prompt="hello")], "queued", "fp")
    await again(ledger)
    assert ledger.suspected() == set(seqs)
    assert [(one.id, one.crashes, one.engine) for one in ledger.suspects()] == [("a", 1, "api"), ("b", 1, "api")]
    await ledger.start(seqs[0], "fp")
    await again(ledger)
    # Those first that were there the least often.
    assert [(one.id, one.crashes) for one in ledger.suspects()] == [("b", 1), ("a", 2)]
    await ledger.start(seqs[0], "fp")
    await again(ledger)
    result = ledger.result("a")
    assert (result.state, result.attempts) == ("failed", 3)
    assert result.error is not None
    assert result.error.code == "agent_crashed"
    assert ledger.suspected() == {seqs[1]}
    assert ledger.known("c").state == "queued"
    assert ledger.batch("b").failed == 1


async def test_what_ended_by_itself_is_suspected_no_more(ledger: Ledger) -> None:
    [seq] = await running(ledger, "a")
    await again(ledger)
    await ledger.start(seq, "fp")
    await ledger.end(seq, AttemptEnd(outcome="succeeded"), Result(id="a", state="succeeded"))
    assert ledger.suspected() == set()
    assert ledger.suspects() == []


async def test_what_is_reserved_is_spent_until_it_is_known(ledger: Ledger) -> None:
    [seq] = await running(ledger, "a")
    for request, most in ((1, 50), (2, 70), (3, None)):
        await ledger.reserve(seq, request, most)
    day = partial(ledger.spent_between, 0, 1e12)
    assert ledger.spent_by_task("a") == ledger.spent_by_batch("b") == day() == 120
    # The first is known, the second may have cost 30 more than it told, nobody knows of the third.
    known = [ChargeRow(request_id="1", model="m", usage=Usage(requests=1), cost_pico=5),
             ChargeRow(request_id="2", model="m", usage=Usage(requests=1), cost_pico=40)]  # fmt: skip
    so_far = AttemptEnd(outcome="running", charges=known, price_version="v", held={2: 30, 3: None})
    await ledger.charge(seq, so_far)
    assert ledger.spent_by_task("a") == ledger.spent_by_batch("b") == day() == 75
    await again(ledger)
    assert ledger.result("a").uncertain == 2
    await ledger.start(seq, "fp")
    await ledger.reserve(seq, 1, 7)
    assert ledger.spent_by_task("a") == 82
    await ledger.end(seq, AttemptEnd(outcome="succeeded"), Result(id="a", state="succeeded"))
    assert ledger.spent_by_task("a") == ledger.spent_by_batch("b") == day() == 75
    assert ledger.finished(0, 1)[0]["uncertain_usd"] is None


async def test_nothing_is_reserved_for_what_does_not_run(ledger: Ledger) -> None:
    await ledger.submit([Task(id="a", prompt="hello")], "queued", "fp")
    with pytest.raises(NoLongerQueued):
        await ledger.reserve(ledger.known("a").seq, 1, 5)


async def test_a_message_batch_is_to_blame_until_one_of_its_results_is(ledger: Ledger) -> None:
    outbox = MessageBatchStore(ledger)
    names = ("a", "b")
    await ledger.submit([Task(id=name, prompt="hello", economy=True) for name in names], "queued", "fp")
    sent, out = await outbox.begin({ledger.known(name).seq: 9 for name in names}, "fp")
    await ledger.recover(3)
    assert outbox.unended()[0].crashes == 0  # it was not being taken in
    await outbox.collecting(sent.no)
    await ledger.recover(3)
    assert outbox.unended()[0].crashes == 1
    assert outbox.unended()[0].suspected
    await outbox.collecting(sent.no)
    await ledger.recover(3)
    assert outbox.unended()[0].crashes == 2
    await outbox.collecting(sent.no)
    await outbox.handling(sent.no, out[0].seq)
    await ledger.recover(3)
    # It came as far as to that result.
    assert (outbox.unended()[0].crashes, outbox.unended()[0].suspected) == (0, True)
    assert [one.crashes for one in outbox.out(sent.no)] == [1, 0]
    await outbox.collecting(sent.no)
    await outbox.handling(sent.no, out[0].seq)
    await outbox.collected(sent.no)
    await ledger.recover(3)
    assert [one.crashes for one in outbox.out(sent.no)] == [1, 0]
    await outbox.collecting(sent.no)
    await outbox.handling(sent.no, out[1].seq)
    await ledger.end(out[1].seq, AttemptEnd(outcome="succeeded"), Result(id="b", state="succeeded"))
    await ledger.recover(3)
    # Whose result is recorded is to blame no more.
    assert outbox.unended()[0].crashes == 1
    assert [one.crashes for one in outbox.out(sent.no)] == [1]
    # Economy tasks run at the provider, and beside whatever else does.
    assert ledger.suspected() == set()
    held = ledger.held(out[0].seq, 1)
    assert held is not None
    assert held[0] == 9


async def test_sums_of_what_was_rescued_are_made_once_more(ledger: Ledger) -> None:
    seqs = await running(ledger, "a", "b", "c")
    await ledger.end(seqs[0], AttemptEnd(outcome="succeeded"), Result(id="a", state="succeeded"))
    counts, batch = ledger.counts(), ledger.batch("b")

    def lose(db: sqlite3.Connection) -> None:
        db.execute("DROP TRIGGER task_goes")
        db.execute("DELETE FROM task WHERE id = 'c'")
        db.execute("DELETE FROM batch")
        db.execute("UPDATE counter SET value = 0")
        db.execute("UPDATE tally SET cost_pico = 7, last_done = 9")

    await ledger.write(lose)
    await ledger.recount()
    assert ledger.counts() == counts | {"running": 1}
    found = ledger.batch("b")
    assert (found.running, found.succeeded, found.cost_usd, found.last_done) == (1, 1, batch.cost_usd, 1)
    await ledger.end(seqs[1], AttemptEnd(outcome="succeeded"), Result(id="b", state="succeeded"))
    assert ledger.batch("b").last_done == 2
