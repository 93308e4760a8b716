"""The places on a plan: one at a time, few that wait, none while it is closed, and all of it across a reload."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from farmhand.gateway.backends import Declined, plan_turns
from farmhand.gateway.backends.plan_turns import PlanTurns
from farmhand.gateway.ledger import GatewayLedger
from farmhand.gateway.tables import SubscriptionTable
from farmhand.gateway.turn import Reason
from farmhand.subscription import rate

TABLE = SubscriptionTable(queue=2)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of all gateways is below the home."""
    monkeypatch.setenv("HOME", str(tmp_path))


def code(turns: PlanTurns) -> str | None:
    reason = turns.closed(TABLE)
    return reason.code if reason else None


async def test_one_works_two_wait_and_the_next_is_declined() -> None:
    turns = PlanTurns()
    await turns.enter(TABLE)
    assert code(turns) is None
    waiting = [asyncio.create_task(turns.enter(TABLE)) for _ in range(2)]
    await asyncio.sleep(0)
    assert code(turns) == "busy"
    with pytest.raises(Declined, match="2 wait"):
        await turns.enter(TABLE)
    turns.leave()
    await waiting[0]
    waiting[1].cancel()
    await asyncio.wait(waiting)
    turns.leave()
    assert code(turns) is None
    await turns.enter(TABLE)


async def test_a_turn_right_after_another_waits_although_nothing_is_queued() -> None:
    """Its process has still to end, and one is started for the next turn: nobody may pay elsewhere meanwhile."""
    turns, table = PlanTurns(), SubscriptionTable(queue=0)
    await turns.enter(table)
    with pytest.raises(Declined, match="being answered"):
        await turns.enter(table)
    turns.end()
    waits = asyncio.create_task(turns.enter(table))
    await asyncio.sleep(0)
    with pytest.raises(Declined, match="1 wait"):
        await turns.enter(table)
    turns.leave()
    await waits
    with pytest.raises(Declined, match="being answered"):
        await turns.enter(table)


async def test_who_waits_too_long_is_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_turns, "WAIT_S", 0.01)
    turns = PlanTurns()
    await turns.enter(TABLE)
    with pytest.raises(Declined):
        await turns.enter(TABLE)
    turns.leave()
    await turns.enter(TABLE)


async def test_who_waits_is_declined_if_the_plan_closes_meanwhile() -> None:
    turns = PlanTurns()
    await turns.enter(TABLE)
    waits = asyncio.create_task(turns.enter(TABLE))
    await asyncio.sleep(0)
    turns.refuse(Reason("login", "it is refused"))
    turns.leave()
    with pytest.raises(Declined, match="it is refused"):
        await waits
    turns.reopen()
    await turns.enter(TABLE)


@pytest.mark.parametrize(
    ("said", "closes"),
    [
        ({"status": "rejected", "isUsingOverage": True}, "overage"),
        ({"unifiedWindows": {"five_hour": {"utilization": 0.85}}}, "reserve"),
    ],
)
def test_a_window_closes_it_until_it_begins_again(
    said: dict[str, Any], closes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1_796_000_000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    turns, ends = PlanTurns(), clock[0] + 600
    for window in said.get("unifiedWindows", {}).values():
        window["resetsAt"] = ends
    use = rate.read({"status": "allowed", "resetsAt": ends} | said)
    assert use is not None
    turns.note(use, TABLE)
    assert code(turns) == closes
    turns.reopen()
    # What a turn says that began before does not open it.
    turns.note(rate.PlanUse(), TABLE)
    clock[0] = ends - 1
    assert code(turns) == closes
    assert not turns.idle(TABLE)
    clock[0] = ends + 1
    assert code(turns) is None


async def test_a_refusal_without_a_time_closes_it_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_796_000_000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    turns = PlanTurns()
    assert turns.used_up(TABLE).code == "used_up"
    clock[0] += 3599
    assert code(turns) == "used_up"
    clock[0] += 2
    assert code(turns) is None


async def test_of_two_gateways_one_works_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its own ledger: the lock is the operator's."""
    one, other = PlanTurns(), PlanTurns()
    await one.enter(TABLE)
    waits = asyncio.create_task(other.enter(TABLE))
    for _ in range(5):
        await asyncio.sleep(0.05)
    assert not waits.done()
    one.leave()
    await waits
    monkeypatch.setattr(plan_turns, "WAIT_S", 0.01)
    with pytest.raises(Declined, match="its one place was taken"):
        await one.enter(TABLE)
    # Who leaves while it waits leaves nothing behind.
    monkeypatch.setattr(plan_turns, "WAIT_S", 100)
    gone = asyncio.create_task(one.enter(TABLE))
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.wait({gone})
    other.leave()
    await one.enter(TABLE)
    one.leave()


async def test_without_a_lock_nothing_is_drawn_from_the_plan(tmp_path: Path) -> None:
    (tmp_path / ".local").write_text("in the way")
    with pytest.raises(Declined, match=r"plan\.lock cannot be locked"):
        await PlanTurns().enter(TABLE)


OVER = {"status": "allowed", "isUsingOverage": True}
FULL = {"unifiedWindows": {"five_hour": {"utilization": 0.85, "resetsAt": 1_796_003_600}}}


@pytest.mark.parametrize(
    ("said", "closes", "opens"),
    [
        (OVER, "overage", SubscriptionTable(allow_overage=True)),
        (FULL, "reserve", SubscriptionTable(reserve=0.1)),
        ({"status": "rejected"}, "used_up", None),
    ],
)
async def test_a_used_window_is_remembered_over_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], closes: str, opens: SubscriptionTable | None
) -> None:
    clock = [1_796_000_000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    use = rate.read({"resetsAt": 1_796_003_600} | said)
    assert use is not None
    path = tmp_path / "gateway.db"
    book = GatewayLedger(path)
    first = PlanTurns(book)
    first.use("mine")
    first.note(use, TABLE)
    book.flush()
    # Another gateway with the same ledger sees it at its next turn, and this one after a restart.
    beside = PlanTurns(book)
    beside.use("mine")
    assert code(beside) == closes
    book.close()
    book = GatewayLedger(path)
    for account, wanted in (("mine", closes), ("another login's", None), ("mine", closes)):
        again = PlanTurns(book)
        again.use(account)
        assert code(again) == wanted
    if opens is not None:
        assert again.closed(opens) is None
        assert again.used == first.used
    clock[0] += 3601
    assert code(again) is None
    book.close()


async def test_what_another_gateway_has_used_up_meanwhile_is_seen_before_the_cli_is_asked(tmp_path: Path) -> None:
    book = GatewayLedger(tmp_path / "gateway.db")
    one, other = PlanTurns(book), PlanTurns(book)
    for each in (one, other):
        each.use("mine")
    one.used_up(TABLE)
    book.flush()
    with pytest.raises(Declined, match="is used up"):
        await other.enter(TABLE)
    book.close()
