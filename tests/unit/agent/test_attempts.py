"""A running task and what befalls it, with parts that do what they are told; the real ones are in tests/integration."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from farmhand.agent.attempts import Room, Run
from farmhand.agent.engines import Answer
from farmhand.agent.ledger import Ledger, LedgerStuck
from farmhand.cost.prices import price_table
from farmhand.meter import Key
from farmhand.task import Task

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


class Engine:
    """Answers at once."""

    async def run(self, *_: Any) -> Answer:
        return Answer(text="done", structured=None, stop_reason="end_turn")


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_result_that_waits_for_the_disk_is_kept_when_the_agent_stops(tmp_path: Path, cancelled: bool) -> None:
    ledger = FullDisk(tmp_path / "ledger.sqlite3")
    await ledger.submit([Task(id="one", prompt="hello")], "queued", KEY.fingerprint)
    nothing = SimpleNamespace(of=lambda _: (), prove=lambda _: None, done=lambda _: None)
    config = SimpleNamespace(task_timeout_max_s=60, attempts=3, prices=price_table)
    room = Room(cast(Any, config), ledger, {"api": cast(Any, Engine())}, *cast(Any, [nothing] * 4))
    live = SimpleNamespace(text=[], tell=lambda _: None, say=lambda _: None, cancelled=cancelled, grant=None)
    run = asyncio.create_task(Run(room, ledger.line("api", 1)[0], "api", KEY, cast(Any, live)).run())
    await ledger.stuck.wait()
    run.cancel()
    await run
    assert ledger.known("one").state == ("cancelled" if cancelled else "succeeded")
    ledger.close()
