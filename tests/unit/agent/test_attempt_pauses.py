"""A task of a batch waits for an API that cannot, with pauses that grow: no loop, however long its time lasts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from farmhand.agent.attempts import Attempt
from farmhand.agent.context import RunContext
from farmhand.agent.pots import Pot
from farmhand.agent.store.ledger import Ledger
from farmhand.core.prices import price_table
from farmhand.core.task import Result, Task
from farmhand.meter.errors import ApiError
from farmhand.meter.grants import Key

KEY = Key("sk-ant-test-pauses-00000000000")


class Failing:
    """Fails for the moment, so many times."""

    makes_requests = False

    def __init__(self, times: int) -> None:
        self.left = times

    async def run(self, *_: Any) -> Result:
        if self.left:
            self.left -= 1
            raise ApiError("overloaded_error", "Overloaded", status=529, is_transient=True)
        return Result(id="one", state="succeeded", text="done", stop_reason="end_turn")


async def test_the_pauses_grow_and_are_never_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    await ledger.submit([Task(id="one", prompt="hello", batch="b")], "queued", KEY.fingerprint)
    nothing: Any = SimpleNamespace(of=lambda *_: (), prove=lambda _: None, done=lambda *_: None)
    config: Any = SimpleNamespace(task_timeout_max_s=600, attempts=3)
    context = RunContext(config, ledger, nothing, nothing, nothing, price_table())
    live = SimpleNamespace(text=[], publish=lambda _: None, add_text=lambda _: None, cancelled=False, grant=None)
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("farmhand.agent.attempts.asyncio.sleep", sleep)
    await asyncio.wait_for(
        Attempt(context, Failing(12), ledger.line("api", 1)[0], Pot("", ledger), KEY, cast(Any, live)).run(), 120
    )
    assert ledger.known("one").state == "succeeded"
    ledger.close()
    assert len(pauses) == 12
    assert all(0.25 <= pause <= 20 for pause in pauses)
    assert all(pause >= 10 for pause in pauses[6:])
