"""The pots of an agent: which one pays, when one is closed, and what that is counted by. The clock is set by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from farmhand.agent.pots import Pot, Pots
from farmhand.agent.store.commands import AttemptEnd, ChargeRow
from farmhand.agent.store.ledger import Ledger
from farmhand.core.errors import UsageError
from farmhand.core.task import Task, Usage
from farmhand.meter.budget import BudgetSpent
from farmhand.meter.errors import ApiError, problem_from_answer
from farmhand.meter.grants import Key
from farmhand.wire.requests import Funding
from tests.support.messages_api.errors import CREDIT, USAGE_LIMIT, WORKSPACE_LIMIT

PLAN, PAID = Key("sk-ant-test-plan-0000000000000000"), Key("sk-ant-test-paid-0000000000000000")
EMPTY = ApiError("billing_error", "Your credit balance is too low", status=402)
MONTHLY = Funding(amount_usd=Decimal(100), cycle_day=31, next="paid")


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def set(self, text: str) -> None:
        self.at = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.set("2027-02-27 12:00")
    return clock


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.db", now=clock)) as found:
        yield found


@pytest.fixture
def pots(ledger: Ledger) -> Pots:
    found = Pots(ledger)
    found.bring("plan", PLAN, "", MONTHLY)
    found.bring("paid", PAID, "", None)
    return found


async def charged(ledger: Ledger, pot: str, pico: int) -> None:
    """A task of the pot was run and charged."""
    task = Task(id=f"t{ledger.now():.0f}-{pico}", prompt="hello", pot=pot)
    await ledger.submit([task], "queued", None)
    seq = ledger.known(task.id).seq
    await ledger.start(seq, PLAN.fingerprint, pot)
    row = ChargeRow(request_id="r", model="m", usage=Usage(requests=1), cost_pico=pico)
    await ledger.end(seq, AttemptEnd(outcome="succeeded", charges=[row]), "queued")


def spend(pot: Pot, pico: int) -> None:
    pot.budget.reserve(pico)
    pot.budget.settle(pico, pico)


async def test_what_was_spent_counts_from_the_day_on_which_the_cycle_turned(ledger: Ledger, clock: Clock) -> None:
    clock.set("2027-01-30 23:59")
    await charged(ledger, "plan", 7)
    clock.set("2027-01-31 00:00")
    await charged(ledger, "plan", 5)
    await charged(ledger, "paid", 1000)
    pots = Pots(ledger)
    pots.bring("plan", PLAN, "", MONTHLY)
    assert pots["plan"].budget.spent_pico == 5
    clock.set("2027-02-28 00:00")  # a month without a 31st turns on its last day
    assert pots["plan"].as_dict()["spent_usd"] == 0
    clock.set("2027-02-01 00:00")  # and a clock that is set back finds what was there
    assert pots["plan"].as_dict()["spent_usd"] == Decimal("5E-12")


async def test_a_call_that_is_open_when_the_cycle_turns_is_charged_to_the_new_one(pots: Pots, clock: Clock) -> None:
    pot = pots["plan"]
    pot.budget.reserve(10)
    clock.set("2027-02-28 00:00")
    assert pot.as_dict()["reserved_usd"] == Decimal("1E-11")
    pot.budget.settle(10, 4)
    assert pot.budget.spent_pico == 4


async def test_a_pot_that_the_api_refuses_is_closed_until_its_cycle_turns(
    pots: Pots, ledger: Ledger, clock: Clock
) -> None:
    assert pots.key("plan", None) == (pots["plan"], PLAN)
    assert pots["plan"].stops(PLAN, EMPTY)
    assert pots.key("plan", None) == (pots["paid"], PAID)
    assert (
        "the API refuses it, and by the ledger US$ 100.00 is left; it is filled again on 2027-02-28"
        in pots["plan"].said()
    )
    again = Pots(ledger)  # after a restart
    await ledger.put_batch("b", None, None)  # what was recorded before is committed
    again.bring("plan", PLAN, "", MONTHLY)
    assert Pots(ledger)["plan"].keys.default is None
    assert again["plan"].closed
    clock.set("2027-02-28 00:00")
    assert not again["plan"].closed
    assert pots.key("plan", None)[1] is PLAN


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"type": "invalid_request_error", "message": CREDIT}),
        (400, {"type": "invalid_request_error", "message": USAGE_LIMIT}),
        (400, {"type": "invalid_request_error", "message": WORKSPACE_LIMIT}),
        (402, {"type": "billing_error", "message": "Payment Required"}),
        (429, {"type": "rate_limit_error", "message": "no", "error_code": "enforced_spend_limit_reached"}),
    ],
    ids=["credit", "own limit", "workspace limit", "402", "429"],
)
async def test_whatever_the_status_no_money_closes_it(pots: Pots, status: int, error: dict[str, str]) -> None:
    body = json.dumps({"type": "error", "error": error}).encode()
    assert pots["plan"].stops(PLAN, problem_from_answer(status, body))
    assert pots.key("plan", None) == (pots["paid"], PAID)


async def test_a_full_moment_of_the_api_closes_nothing(pots: Pots) -> None:
    busy = problem_from_answer(429, b'{"error": {"type": "rate_limit_error", "message": "slow down"}}')
    assert not pots["plan"].stops(PLAN, busy)
    assert not pots["plan"].closed


async def test_another_key_opens_it_again(pots: Pots, ledger: Ledger) -> None:
    pots["plan"].stops(PLAN, EMPTY)  # the API's words for a key that has gone stale, too
    new = Key("sk-ant-test-next-0000000000000000")
    pots.bring("plan", new, PLAN.fingerprint, None)
    assert pots.key("plan", PLAN.fingerprint) == (pots["plan"], new)
    pots.bring("plan", PLAN, "", None)  # a client that has not heard of it
    assert pots.key("plan", None) == (pots["plan"], new)
    # By the ledger it is spent whichever key it has.
    pots["plan"].close("ledger")
    assert pots["plan"].closed
    assert "the API refuses" not in pots["plan"].said()


async def test_another_amount_opens_it_again(pots: Pots) -> None:
    pots["plan"].stops(PLAN, EMPTY)
    pots.bring("plan", PLAN, "", MONTHLY)  # the same once more
    assert pots["plan"].closed
    pots.bring("plan", PLAN, "", Funding(amount_usd=Decimal(150), cycle_day=31))
    assert not pots["plan"].closed


async def test_a_request_without_room_closes_its_pot_and_no_other_budget_does(pots: Pots) -> None:
    pot = pots["plan"]
    assert not pot.stops(PLAN, BudgetSpent("the budget of the batch b has no room"))
    assert not pot.closed
    spend(pot, 99 * 10**12)
    assert pot.stops(PLAN, pot.budget.spent(2 * 10**12))
    assert pot.closed
    assert "US$ 1.00 is left" in pot.said()
    assert pots.why("plan") == {}  # the next one pays


async def test_spent_to_the_last_it_is_closed_by_itself(pots: Pots) -> None:
    spend(pots["plan"], 100 * 10**12)
    assert pots.key("plan", None)[0] is pots["paid"]


async def test_without_a_next_one_its_tasks_wait(pots: Pots) -> None:
    pots["plan"].fund(Funding(amount_usd=Decimal(1)))
    spend(pots["plan"], 10**12)
    assert pots.key("plan", PLAN.fingerprint) == (pots["plan"], None)
    assert pots.why("plan")["reason"] == "pot_spent"
    assert "it is not filled again" in pots["plan"].said()


async def test_a_refused_key_closes_no_pot_without_an_amount(pots: Pots) -> None:
    assert pots["paid"].stops(PAID, EMPTY)
    assert not pots["paid"].closed
    assert pots.why("paid")["reason"] == "billing_error"
    revoked = ApiError("authentication_error", "invalid x-api-key", status=401)
    assert pots["plan"].stops(PLAN, revoked)
    assert (pots["plan"].closed, pots.key("plan", None)) == (False, (pots["plan"], None))  # no other key instead


async def test_pots_that_lead_in_a_ring_end_somewhere(pots: Pots) -> None:
    pots["plan"].fund(Funding(amount_usd=Decimal(1), expires="2020-01-01", next="paid"))
    pots["paid"].fund(Funding(amount_usd=Decimal(1), expires="2020-01-01", next="plan"))
    assert pots.key("plan", None)[1] is None
    assert "has expired (2020-01-01)" in pots.why("plan")["message"]


async def test_no_pot_gets_the_key_of_another(pots: Pots) -> None:
    with pytest.raises(UsageError, match="the key of the pot paid is that of the pot plan"):
        pots.bring("paid", PLAN, "", None)
    with pytest.raises(UsageError, match="is that of the pot paid"):
        pots.bring("plan", PAID, PLAN.fingerprint, None)
    pots.bring("plan", Key("sk-ant-test-next-0000000000000000"), PLAN.fingerprint, None)
    with pytest.raises(UsageError, match="is that of the pot plan"):
        pots.bring("paid", PLAN, "", None)  # it is in reserve there


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount_usd": Decimal(0)},
        {"amount_usd": Decimal("1e-7")},
        {"cycle_day": 3},
        {"cycle_day": 0},
        {"amount_usd": Decimal(1), "cycle_day": 0},
        {"amount_usd": Decimal(1), "cycle_day": 32},
        {"amount_usd": Decimal(1), "expires": ""},
        {"expires": "x"},
    ],
    ids=str,
)
def test_a_funding_that_is_none_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"amount_usd|need funding_usd|expires|not 1 to 31"):
        Funding(**wrong)  # type: ignore[arg-type]
