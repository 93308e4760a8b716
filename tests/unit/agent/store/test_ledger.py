from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from farmhand.agent.store.commands import AttemptEnd, ChargeRow, NoLongerQueued
from farmhand.agent.store.damage import LedgerDamaged
from farmhand.agent.store.identity import IdConflict
from farmhand.agent.store.ledger import Ledger
from farmhand.agent.store.queries import NoSuchBatch
from farmhand.core.money import pico
from farmhand.core.task import Result, Task, TaskError, Usage


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.db")
    yield opened
    opened.close()


def task(name: str = "one", **more: Any) -> Task:
    return Task(id=name, prompt="hello", **more)


def end(*costs: str | None, outcome: str = "succeeded", uncertain: int = 0, tokens: int = 3) -> AttemptEnd:
    """The end of an attempt with a charge of each cost, None for an unknown one."""
    charges = [
        ChargeRow(
            request_id=f"req_{number}",
            model="m",
            usage=Usage(output_tokens=tokens, requests=1),
            cost_pico=None if cost is None else pico(Decimal(cost)),
        )
        for number, cost in enumerate(costs)
    ]
    return AttemptEnd(outcome=outcome, charges=charges, uncertain=uncertain, price_version="v")


def done(name: str = "one", state: Any = "succeeded", **more: Any) -> Result:
    return Result(id=name, state=state, **more)


async def run(ledger: Ledger, name: str, attempt: AttemptEnd | None = None, **more: Any) -> None:
    """The task starts and succeeds."""
    seq = ledger.known(name).seq
    await ledger.start(seq, "fp")
    await ledger.end(seq, attempt or end("0.1"), done(name, **more))


@pytest.mark.parametrize("how", ["empty", "gone"])
async def test_a_write_ahead_log_without_its_file_is_not_thrown_away(tmp_path: Path, how: str) -> None:
    path, wal = tmp_path / "ledger.db", tmp_path / "ledger.db-wal"
    ledger = Ledger(path)
    await ledger.submit([task()], "queued", "fp")
    left = wal.read_bytes()
    ledger.close()
    assert left
    wal.write_bytes(left)
    path.write_bytes(b"") if how == "empty" else path.unlink()
    with pytest.raises(LedgerDamaged, match=r"ledger\.db-wal"):
        Ledger(path)
    assert wal.read_bytes() == left


def test_a_ledger_that_is_new_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        Ledger(tmp_path / "ledger.db").close()
    [told] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert told.getMessage() == f"the ledger {tmp_path}/ledger.db is new: there was none"


async def test_what_is_recorded_is_there_after_reopening(tmp_path: Path) -> None:
    spec = task(schema={"type": "object"}, labels={"a": "b"}, max_usd=Decimal("0.5"), tools=("Bash",), priority=2)
    ledger = Ledger(tmp_path / "again.db")
    await ledger.submit([spec], "queued", "fp")
    await run(ledger, "one", end("0.0000005"), structured={"n": [1]}, stop_reason="end_turn")
    before = ledger.result("one")
    ledger.close()
    again = Ledger(tmp_path / "again.db")
    assert again.result("one") == before
    assert again.spec(again.known("one").seq) == spec
    again.close()
    assert before.cost_usd == Decimal("0.0000005")
    assert before.structured == {"n": [1]}


async def test_a_known_id_keeps_its_state_and_refuses_other_content(ledger: Ledger) -> None:
    assert await ledger.submit([task()], "awaiting_key", None) == {"one": "awaiting_key"}
    assert await ledger.submit([task()], "queued", "fp") == {"one": "awaiting_key"}
    with pytest.raises(IdConflict):
        await ledger.submit([task("two"), task("one", model="opus")], "queued", "fp")
    with pytest.raises(KeyError):
        ledger.result("two")


async def test_recovery_makes_every_unfinished_task_await_a_key(ledger: Ledger) -> None:
    await ledger.submit([task("a"), task("b"), task("c")], "queued", "fp")
    seq = ledger.known("a").seq
    await ledger.start(seq, "fp")
    await ledger.reserve(seq, 1, 5)
    await ledger.end(ledger.known("c").seq, None, done("c", "cancelled"))
    assert await ledger.recover() == 2
    assert [ledger.result(name).state for name in "abc"] == ["awaiting_key", "awaiting_key", "cancelled"]
    assert [ledger.result(name).uncertain for name in "abc"] == [1, 0, 0]
    assert ledger.line("api", 9) == []
    assert await ledger.resume("new") == 2
    assert [waiting.id for waiting in ledger.line("api", 9)] == ["a", "b"]
    assert await ledger.start(seq, "new") == 2
    await ledger.reserve(seq, 1, 5)
    assert await ledger.recover() == 2
    assert ledger.result("a").attempts == ledger.result("a").uncertain == 2


async def test_a_crash_between_two_attempts_leaves_nothing_uncertain(ledger: Ledger) -> None:
    await ledger.submit([task()], "queued", "fp")
    await ledger.start(1, "fp")
    await ledger.end(1, end("0.1", outcome="connection"), "running")
    await ledger.recover()
    assert ledger.result("one").uncertain == 0


async def test_a_final_state_stays(ledger: Ledger) -> None:
    await ledger.submit([task()], "queued", "fp")
    assert await ledger.end(1, None, done(text="first"))
    late = done(state="failed", error=TaskError(code="x", message="late"))
    assert not await ledger.end(1, None, late)
    assert ledger.result("one").text == "first"
    await ledger.end(1, None, "queued")
    assert ledger.result("one").state == "succeeded"
    with pytest.raises(NoLongerQueued):
        await ledger.start(1, "fp")


async def test_attempts_add_up_and_one_unknown_price_makes_the_sum_unknown(ledger: Ledger) -> None:
    await ledger.submit([task(batch="b")], "queued", "fp")
    for cost in ("0.1", "0.2"):
        await ledger.start(1, "fp")
        await ledger.end(1, end(cost, outcome="cut"), "running")
    assert ledger.result("one").cost_usd == Decimal("0.3")
    assert ledger.result("one").usage.output_tokens == 6
    assert ledger.batch("b").cost_usd == Decimal("0.3")
    for later in (None, "0.1"):
        await ledger.start(1, "fp")
        await ledger.end(1, end(later, outcome="cut"), "running")
        assert ledger.result("one").cost_usd is None
    assert ledger.totals(0)["unpriced"] == ledger.batch("b").unpriced == 1
    assert [charge["cost_usd"] for charge in ledger.charges(0, 9)] == [
        Decimal("0.1"),
        Decimal("0.2"),
        None,
        Decimal("0.1"),
    ]


async def test_an_attempt_that_is_ended_twice_is_charged_once(ledger: Ledger) -> None:
    await ledger.submit([task()], "queued", "fp")
    await ledger.start(1, "fp")
    for _ in range(2):
        await ledger.end(1, end("0.1", uncertain=1), done())
    assert ledger.result("one").cost_usd == Decimal("0.1")
    assert ledger.result("one").uncertain == 1
    assert len(ledger.charges(0, 9)) == 1


async def test_charges_that_were_recorded_on_the_way_are_not_recorded_again_at_the_end(ledger: Ledger) -> None:
    await ledger.submit([task()], "queued", "fp")
    await ledger.start(1, "fp")
    for until_now in (["0.1"], ["0.1"], ["0.1", "0.2"]):
        await ledger.charge(1, end(*until_now))
    assert ledger.result("one").cost_usd == Decimal("0.3")
    await ledger.end(1, end("0.1", "0.2", "0.4"), done())
    # Nothing is added to what has ended.
    await ledger.charge(1, end("0.1", "0.2", "0.4", "0.8"))
    assert (ledger.result("one").cost_usd, ledger.result("one").usage.requests) == (Decimal("0.7"), 3)
    assert len(ledger.charges(0, 9)) == 3


async def test_a_parked_attempt_does_not_count(ledger: Ledger) -> None:
    await ledger.submit([task()], "queued", "fp")
    for _ in range(2):
        await ledger.start(1, "fp")
        await ledger.end(1, end(outcome="parked"), "awaiting_key")
        assert ledger.result("one").attempts == 0
    assert await ledger.start(1, "other") == 3
    assert ledger.result("one").attempts == 1


async def test_results_come_in_order_in_pages(ledger: Ledger) -> None:
    await ledger.submit([task(f"t{n}", batch="b" if n % 2 else "") for n in range(6)], "queued", "fp")
    found, more = ledger.results(batch="b", state=None, after="t1", limit=9)
    assert ([one.id for one in found], more) == (["t3", "t5"], False)
    assert ledger.results(batch="b", state=None, after="t1", limit=2)[1]


async def test_results_of_a_batch_come_in_the_order_of_finishing(ledger: Ledger) -> None:
    await ledger.submit([task(name, batch="b") for name in "xyz"] + [task("other")], "queued", "fp")
    for name in ("z", "other", "x"):
        await run(ledger, name)
    assert [(one.id, one.finish_seq) for one in ledger.batch_results("b", 0, 9)] == [("z", 1), ("x", 3)]
    assert [one.id for one in ledger.batch_results("b", 1, 9)] == ["x"]
    assert [line["id"] for line in ledger.finished(1, 9)] == ["other", "x"]
    batch = ledger.batch("b")
    assert (batch.queued, batch.succeeded, batch.last_done, batch.unfinished) == (1, 2, 3, 1)


async def test_a_page_of_long_results_is_cut_short(ledger: Ledger) -> None:
    await ledger.submit([task(name, batch="b") for name in "xyz"], "queued", "fp")
    for name in "xyz":
        await run(ledger, name, text="a" * (5 * 1024 * 1024))
    assert [one.id for one in ledger.batch_results("b", 0, 9)] == ["x", "y"]
    assert ledger.results(batch="b", state=None, after=None, limit=9)[1]


async def test_the_line_goes_by_priority_and_then_by_age(ledger: Ledger) -> None:
    await ledger.submit(
        [task("a"), task("b", priority=1), task("c"), task("d", priority=1, batch="x"), task("e", priority=-1)],
        "queued",
        "fp",
    )
    assert [one.id for one in ledger.line("api", 9)] == ["b", "d", "a", "c", "e"]
    assert [one.id for one in ledger.line("api", 2)] == ["b", "d"]
    assert [one.id for one in ledger.line("api", 9, {"x"})] == ["b", "a", "c", "e"]
    assert ledger.line("cli", 9) == []


async def test_counts_follow_every_transition(ledger: Ledger) -> None:
    await ledger.submit([task(name, batch="b") for name in "abcd"], "queued", "fp")
    await run(ledger, "a")
    await ledger.start(ledger.known("b").seq, "fp")
    assert await ledger.park([], ["fp"], default=False) == 2
    assert ledger.counts() == {
        "queued": 0, "awaiting_key": 2, "running": 1, "succeeded": 1, "failed": 0, "cancelled": 0,
    }  # fmt: skip
    assert sorted(await ledger.cancel_batch("b")) == ["c", "d"]
    assert await ledger.cancel_batch("b") == []
    assert ledger.batch("b").cancelled == 2
    assert ledger.result("c").error == TaskError(code="cancelled", message="the task was cancelled")
    counted = ledger._db.execute("SELECT state, count(*) FROM task GROUP BY state").fetchall()
    assert {row[0]: row[1] for row in counted} == {name: n for name, n in ledger.counts().items() if n}


async def test_only_tasks_without_a_usable_key_are_parked(ledger: Ledger) -> None:
    for fingerprint in ("good", "bad", None):
        await ledger.submit([task(str(fingerprint))], "queued", fingerprint)
    assert await ledger.park(["good"], ["bad"], default=True) == 1
    assert ledger.result("bad").state == "awaiting_key"
    assert await ledger.park(["good"], ["bad"], default=False) == 1
    assert [one.id for one in ledger.line("api", 9)] == ["good"]


async def test_limits_of_a_batch_are_kept(ledger: Ledger) -> None:
    with pytest.raises(NoSuchBatch):
        ledger.batch("b")
    await ledger.put_batch("b", pico(Decimal("1.5")), 4)
    assert (ledger.batch("b").max_usd, ledger.batch("b").concurrency) == (Decimal("1.5"), 4)
    assert ledger.concurrency_limits() == {"b": 4}
    assert ledger.batch_budget("b") == pico(Decimal("1.5"))
    await ledger.put_batch("b", None, None)
    assert ledger.batch("b").max_usd is None
    assert ledger.batch_budget("b") is None
    assert ledger.concurrency_limits() == {}


async def test_times_never_count_backwards(tmp_path: Path) -> None:
    clock = [1_000_000.0]
    ledger = Ledger(tmp_path / "clock.db", now=lambda: clock[0])
    await ledger.submit([task("a"), task("b")], "queued", "fp")
    clock[0] -= 5000
    await run(ledger, "a")
    clock[0] += 90_000
    await run(ledger, "b")
    clock[0] -= 80_000
    await ledger.submit([task("c")], "queued", "fp")
    await run(ledger, "c")
    assert [line["id"] for line in ledger.finished(0, 9)] == ["a", "b", "c"]
    for name in "abc":
        result = ledger.result(name)
        assert result.queued_s >= 0
        assert result.run_s >= 0
    ledger.close()
