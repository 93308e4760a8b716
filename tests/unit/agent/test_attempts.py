"""A running task and what befalls it, with parts that do what they are told; the real ones are in tests/integration."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from farmhand.agent.attempts import Attempt
from farmhand.agent.context import RunContext
from farmhand.agent.pots import Pot
from farmhand.agent.store.damage import LedgerStuck
from farmhand.agent.store.ledger import Ledger
from farmhand.core.prices import price_table
from farmhand.core.task import Result, Task, Usage
from farmhand.meter.grants import Charge, Grant, Key

KEY = Key("sk-ant-test-attempts-0000000000")


class FullDisk(Ledger):
    """A ledger whose disk is full for so many ends of attempts."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.full = 1
        self.stuck = asyncio.Event()

    async def end(self, *arguments: Any) -> bool:
        if self.full:
            self.full -= 1
            self.stuck.set()
            raise LedgerStuck("no space left on device")
        return await super().end(*arguments)


def done(text: str = "done", **more: Any) -> Result:
    return Result(id="one", state="succeeded", text=text, **more)


class Engine:
    """Answers at once."""

    makes_requests = False

    async def run(self, *_: Any) -> Result:
        return done(stop_reason="end_turn")


class Odd:
    """Answers with what no ledger takes, and says that it was charged for."""

    makes_requests = False

    def __init__(self, answer: Result, charged: Sequence[Charge] = ()) -> None:
        self._answer = answer
        self._charged = charged

    async def run(self, _task: Task, grant: Grant, *_: Any) -> Result:
        for number, charge in enumerate(self._charged, start=1):
            await grant.on_hold(number, 700)
            grant.charges.append(charge)
        return self._answer


def tokens(**counts: Any) -> Charge:
    return Charge(Usage(requests=1, **counts), "req_1")


ODD = [
    Odd(done(text="half of \ud83d")),
    Odd(done(text="done", stop_reason="\udfff")),
    Odd(done(text="done", structured={"n": "\ud800"})),
    Odd(done(text="done", structured={"n": object()})),
    Odd(done(text=cast(str, object()))),
    *(
        Odd(done(text="done"), [tokens(**{name: count})])
        for name in ("input_tokens", "output_tokens", "cache_read_input_tokens")
        for count in (2**63, 2**53 + 1, 10**40, -1, 1.5, "7", float("nan"), None)
    ),
    Odd(done(text="done"), [tokens(input_tokens=1), tokens(output_tokens=2**63 - 1)]),
]


@pytest.mark.parametrize("engine", ODD, ids=range(len(ODD)))
async def test_whatever_the_engine_returns_no_task_runs_for_ever(tmp_path: Path, engine: Odd) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    await ledger.submit([Task(id="one", prompt="hello", batch="b")], "queued", KEY.fingerprint)
    await Attempt(
        _context(ledger), engine, ledger.line("api", 1)[0], Pot("", ledger), KEY, _live(cancelled=False)
    ).run()
    result = ledger.result("one")
    [(outcome,)] = ledger.rows("SELECT outcome FROM attempt")
    if engine._charged:
        # The answer was whole: only its figures are none.
        assert (result.state, result.text, outcome) == ("succeeded", "done", "succeeded")
    else:
        assert (result.state, result.text, outcome) == ("failed", "", "agent_error")
        assert result.error is not None
        assert result.error.code == "agent_error"
    # What was charged and cannot be counted stays spent at what was reserved.
    charges = len(engine._charged)
    assert result.uncertain == charges
    assert ledger.spent_by_task("one") == ledger.spent_by_batch("b") == 700 * charges
    ledger.close()


def _context(ledger: Ledger) -> RunContext:
    nothing: Any = SimpleNamespace(of=lambda *_: (), prove=lambda _: None, done=lambda *_: None)
    config: Any = SimpleNamespace(task_timeout_max_s=60, attempts=3)
    return RunContext(config, ledger, nothing, nothing, nothing, price_table())


def _live(*, cancelled: bool) -> Any:
    return SimpleNamespace(text=[], publish=lambda _: None, add_text=lambda _: None, cancelled=cancelled, grant=None)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_result_that_waits_for_the_disk_is_kept_when_the_agent_stops(tmp_path: Path, cancelled: bool) -> None:
    ledger = FullDisk(tmp_path / "ledger.sqlite3")
    await ledger.submit([Task(id="one", prompt="hello")], "queued", KEY.fingerprint)
    attempt = Attempt(
        _context(ledger), Engine(), ledger.line("api", 1)[0], Pot("", ledger), KEY, _live(cancelled=cancelled)
    )
    run = asyncio.create_task(attempt.run())
    await ledger.stuck.wait()
    run.cancel()
    await run
    assert ledger.known("one").state == ("cancelled" if cancelled else "succeeded")
    ledger.close()
