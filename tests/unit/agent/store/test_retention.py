from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farmhand.agent.config import Config
from farmhand.agent.store.commands import AttemptEnd, ChargeRow
from farmhand.agent.store.identity import IdConflict
from farmhand.agent.store.ledger import Ledger
from farmhand.agent.store.retention import Retention
from farmhand.core.task import Result, Task, Usage

DAY = 86_400.0
START = 1_800_000_000.0


class Clock:
    """A wall clock that can be set, beside one that only goes on."""

    def __init__(self) -> None:
        self.wall_s = START
        self.monotonic_s = 50.0

    def wall(self) -> float:
        return self.wall_s

    def monotonic(self) -> float:
        return self.monotonic_s

    def pass_by(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.db", now=clock.wall)
    yield opened
    opened.close()


def retention(ledger: Ledger, clock: Clock, **settings: Any) -> Retention:
    return Retention(Config(**settings), ledger, monotonic=clock.monotonic)


async def finish(ledger: Ledger, name: str, text: str = "an answer", batch: str = "b") -> None:
    """A task comes, runs for its price, and ends."""
    await ledger.submit([Task(id=name, prompt="hello", batch=batch, labels={"a": "b"})], "queued", "fp")
    seq = ledger.known(name).seq
    await ledger.start(seq, "fp")
    charge = ChargeRow(request_id="r", model="m", usage=Usage(input_tokens=1, requests=1), cost_pico=7)
    end = AttemptEnd(outcome="succeeded", charges=[charge], price_version="v")
    await ledger.end(seq, end, Result(id=name, state="succeeded", text=text))


async def test_content_goes_by_age_and_rows_stay(ledger: Ledger, clock: Clock) -> None:
    keeper = retention(ledger, clock, retention_days=30)
    await finish(ledger, "old")
    clock.pass_by(20 * DAY)
    await finish(ledger, "young")
    clock.pass_by(11 * DAY)
    await keeper.sweep()
    assert ledger.known("old").pruned
    assert not ledger.known("young").pruned
    assert ledger.result("young").text == "an answer"
    old = ledger.result("old")
    assert (old.text, old.state, old.usage.input_tokens, old.labels) == ("", "succeeded", 1, {"a": "b"})
    assert old.error is not None
    assert old.error.code == "pruned"
    assert [line["id"] for line in ledger.finished(0, 9)] == ["old", "young"]
    assert len(ledger.charges(0, 9)) == 2
    assert ledger.batch("b").succeeded == 2


async def test_a_pruned_id_is_not_run_again(ledger: Ledger, clock: Clock) -> None:
    keeper = retention(ledger, clock)
    await finish(ledger, "old")
    clock.pass_by(31 * DAY)
    await keeper.sweep()
    with pytest.raises(IdConflict, match="was run, and its content is pruned"):
        await ledger.submit([Task(id="old", prompt="hello", batch="b", labels={"a": "b"})], "queued", "fp")


async def test_rows_go_with_the_history_and_their_numbers_do_not_come_back(ledger: Ledger, clock: Clock) -> None:
    keeper = retention(ledger, clock, retention_days=1, history_days=10)
    await finish(ledger, "old")
    clock.pass_by(11 * DAY)
    await keeper.sweep()
    with pytest.raises(KeyError):
        ledger.known("old")
    with pytest.raises(KeyError):
        ledger.batch("b")
    assert ledger.charges(0, 9) == []
    assert sum(ledger.counts().values()) == 0
    await finish(ledger, "new")
    assert [line["finish_seq"] for line in ledger.finished(0, 9)] == [2]
    assert [charge["charge_id"] for charge in ledger.charges(0, 9)] == [2]


async def test_what_is_unfinished_is_never_touched(ledger: Ledger, clock: Clock) -> None:
    keeper = retention(ledger, clock, retention_days=1, history_days=1, retention_mb=1)
    await ledger.submit([Task(id=f"t{n}", prompt="x" * 500_000) for n in range(6)], "queued", "fp")
    await ledger.start(ledger.known("t0").seq, "fp")
    await ledger.park([], [], default=False)
    clock.pass_by(5000 * DAY)
    await keeper.sweep()
    assert ledger.counts() | {"queued": 0} == ledger.counts()
    assert all(ledger.spec(ledger.known(f"t{n}").seq).prompt == "x" * 500_000 for n in range(6))


async def test_the_oldest_content_goes_when_the_file_is_too_large(tmp_path: Path, ledger: Ledger, clock: Clock) -> None:
    keeper = retention(ledger, clock, retention_mb=4)
    for n in range(300):
        clock.pass_by(1)
        await finish(ledger, f"t{n}", text="x" * 30_000)
    file = tmp_path / "ledger.db"
    await keeper.sweep()
    assert ledger.bytes_used() <= 4 * 1024 * 1024
    assert ledger.known("t0").pruned
    assert not ledger.known("t299").pruned
    ledger.close()
    assert file.stat().st_size <= 4 * 1024 * 1024
    Ledger(file).close()


async def test_a_clock_that_jumps_ahead_takes_nothing(ledger: Ledger, clock: Clock) -> None:
    keeper = retention(ledger, clock)
    await finish(ledger, "one")
    clock.wall_s += 10_000 * DAY
    await keeper.sweep()
    assert not ledger.known("one").pruned
    await finish(ledger, "two")
    clock.wall_s = START - 5000 * DAY
    await keeper.sweep()
    assert not ledger.known("one").pruned
    assert not ledger.known("two").pruned
    # What passes meanwhile counts, by the clock that nobody sets.
    clock.wall_s = START
    clock.pass_by(31 * DAY)
    await keeper.sweep()
    assert ledger.known("one").pruned
