"""Sixty kills amid payments: what may have been charged is in the ledger, and the day's budget holds over all."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from farmhand.gateway.ledger import GatewayLedger, TurnCharge, new_id
from farmhand.gateway.purse import Purse
from farmhand.meter.budget import BudgetSpent

LIMIT, MOST, COST = 2_000_000, 1000, 300


def _pay(path: Path, notes: Path) -> None:
    """Be a gateway that pays, eight turns at once, and note each that was sent, and each that was answered."""
    asyncio.run(_paying(path, os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)))


async def _paying(path: Path, notes: int) -> None:
    purse = Purse(GatewayLedger(path))
    purse.limit(LIMIT)

    async def turns() -> None:
        while True:
            row = TurnCharge(
                decision=new_id(),
                created_at=1_796_000_000.0,
                model="m",
                work_class="chat",
                residency="metered",
                backend="metered",
                labels={"project": "p"},
            )
            payment = purse.pay(row, MOST, {"project:p": LIMIT}, by_allowance=False)
            try:
                for budget in payment.budgets:
                    budget.reserve(MOST)
            except BudgetSpent:
                os.write(notes, b"spent -\n")
                await asyncio.sleep(60)
            await payment.hold(1, MOST)
            os.write(notes, f"sent {row.decision}\n".encode())
            await asyncio.sleep(0)
            payment.end(msgspec.structs.replace(row, pico=COST, outcome="done"))
            for budget in payment.budgets:
                budget.settle(MOST, COST)
            os.write(notes, f"answered {row.decision}\n".encode())

    await asyncio.gather(*(turns() for _ in range(8)))


def storm(path: Path, notes: Path, kills: int) -> None:
    """Fork such a gateway again and again, and kill each at a random moment after its first note."""
    chance = random.Random(60)  # noqa: S311
    notes.touch()
    for _ in range(kills):
        before = notes.stat().st_size
        if (child := os.fork()) == 0:
            _pay(path, notes)
        while notes.stat().st_size == before:
            time.sleep(0.001)
        time.sleep(chance.random() * 0.02)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_sixty_kills_lose_no_charge(tmp_path: Path) -> None:
    path, notes = tmp_path / "gateway.db", tmp_path / "notes"
    root = Path(__file__).parents[3]
    program = "import sys; from pathlib import Path; from tests.unit.gateway.test_kills import storm; "
    program += "storm(Path(sys.argv[1]), Path(sys.argv[2]), 60)"
    # In a process without threads, which can fork.
    environ = os.environ | {"PYTHONPATH": f"{root}:{root / 'src'}"}
    subprocess.run(
        [sys.executable, "-c", program, str(path), str(notes)], cwd=root, env=environ, check=True, timeout=120
    )
    book = GatewayLedger(path)
    told = [line.split() for line in notes.read_text().splitlines()]
    with sqlite3.connect(path) as db:
        rows = {name: (pico or 0) + held for name, pico, held in db.execute("SELECT decision, pico, held FROM charge")}
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    sent = {name for what, name in told if what == "sent"}
    assert len(sent) > 60
    assert sent <= set(rows)
    assert all(rows[name] >= COST for what, name in told if what == "answered")
    day = 1_796_000_000 // 86_400 * 86_400
    assert sum(rows.values()) == book.spent(day, day + 86_400) == book.spent(day, day + 86_400, "project:p") <= LIMIT
    book.close()
