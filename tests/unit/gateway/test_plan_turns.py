"""The places on a plan: one at a time, few that wait, none while it is closed, and all of it across a reload."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from farmhand.gateway.backends import Declined, plan_turns
from farmhand.gateway.backends.plan_turns import PlanTurns
from farmhand.gateway.tables import SubscriptionTable
from farmhand.gateway.turn import Reason
from farmhand.subscription import rate

TABLE = SubscriptionTable(queue=2)


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
