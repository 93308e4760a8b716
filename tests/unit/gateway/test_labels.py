"""The labels of a turn, and the budget that each may have of a day."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from farmhand.core.errors import NotConfigured
from farmhand.gateway import purse as purses
from farmhand.gateway.config import parse
from farmhand.gateway.labels import labels_of
from farmhand.gateway.ledger import GatewayLedger, TurnCharge
from farmhand.gateway.policy import HARD, Rule, decide
from farmhand.gateway.purse import Purse
from farmhand.gateway.turn import BadRequest, LabelBudget
from tests.unit.gateway.turns import CENT, facts, metered

PAID = (Rule(order=("metered",)),)
NAMED = '[metered]\nbudget_label_usd = {{ "{name}" = "{amount}" }}'


@pytest.mark.parametrize(
    ("headers", "labels"),
    [
        ({}, {}),
        ({"user-agent": "claude-cli/2.1.330 (external, cli)"}, {"client": "claude-cli"}),
        ({"user-agent": "OpenAI/JS 5.1"}, {"client": "openai"}),
        ({"user-agent": "/x"}, {}),
        ({"user-agent": "a", "x-farmhand-client": "Pi"}, {"client": "pi"}),
        ({"x-farmhand-project": "web-site.2"}, {"project": "web-site.2"}),
    ],
)
def test_what_a_client_says_of_itself(headers: dict[str, str], labels: dict[str, str]) -> None:
    assert labels_of(headers) == labels


@pytest.mark.parametrize("name", ["x-farmhand-client", "x-farmhand-project"])
@pytest.mark.parametrize("value", ["", "my project", "a:b", "*", "a" * 65, "ä", "a, b"])
def test_a_name_that_is_none_is_refused_by_its_header(name: str, value: str) -> None:
    with pytest.raises(BadRequest, match=r"X-Farmhand-(Client|Project): .* is not a name"):
        labels_of({name: value, "user-agent": "pi"})


@pytest.mark.parametrize(
    ("name", "amount", "says"),
    [
        ("website", "1", "names no label"),
        ("project:My", "1", "names no label"),
        ("team:a", "1", "names no label"),
        ("project:a", "", "is not an amount"),
        ("client:*", "0", "is not an amount"),
    ],
)
def test_a_budget_of_no_label_or_of_nothing_is_refused(name: str, amount: str, says: str) -> None:
    with pytest.raises(NotConfigured, match=says):
        parse(NAMED.format(name=name, amount=amount))


def test_the_star_is_each_label_without_a_budget_of_its_own() -> None:
    table = parse('[metered]\nbudget_label_usd = { "project:a" = "1", "project:*" = "0.5", "client:pi" = "2" }').metered
    assert table.label_picos({"project": "a", "client": "x"}) == {"project:a": 100 * CENT}
    assert table.label_picos({"project": "b", "client": "pi"}) == {"project:b": 50 * CENT, "client:pi": 200 * CENT}
    assert table.label_picos({}) == {}


def label(name: str, spent: int) -> LabelBudget:
    return LabelBudget(name=name, limit_pico=10 * CENT, spent_pico=spent)


@pytest.mark.parametrize(
    ("labels", "refused"),
    [
        ({"project": "a"}, True),
        ({"project": "b"}, False),
        ({"client": "a"}, False),
        ({}, False),
        ({"project": "b", "client": "pi"}, True),
    ],
)
def test_a_label_without_room_is_not_paid_for(labels: dict[str, str], refused: bool) -> None:
    state = metered(
        labels=(label("project:a", 10 * CENT), label("project:b", 9 * CENT), label("client:pi", 91 * 10**9))
    )
    made = decide(facts(most_pico=CENT, labels=labels), (state,), PAID)
    assert bool(made.refusals and made.refusals[0].reason.code == "budget_label") is refused
    assert (made.backend == "metered") is not refused
    if labels == {"project": "a"}:
        words = made.refusals[0].reason.words
        assert words == "0.00 of today's US$ 0.1 of the project a are left, this turn may cost 0.01; resets 00:00 UTC"
    assert HARD["budget_label"] == "H2"


def test_what_was_spent_on_a_label_is_known_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_796_000_000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    row: dict[str, Any] = {"created_at": clock[0], "model": "m", "work_class": "chat", "backend": "metered"}

    def spend(book: GatewayLedger, decision: str, pico: int, **more: Any) -> None:
        book.charged(TurnCharge(decision=decision, residency="metered", pico=pico, **(row | more)))

    book = GatewayLedger(tmp_path / "gateway.db")
    spend(book, "fh-1", 3, labels={"project": "a", "client": "pi"})
    spend(book, "fh-2", 5, labels={"project": "b"}, held=2)
    spend(book, "fh-3", 70)
    book.close()
    book = GatewayLedger(tmp_path / "gateway.db")
    purse = Purse(book)
    found = purse.labels({"project:a": 9, "project:b": 9, "client:pi": 9, "project:c": 9})
    assert {one.name: one.spent_pico for one in found} == {
        "project:a": 3,
        "project:b": 7,
        "client:pi": 3,
        "project:c": 0,
    }
    assert purse.day.spent_pico == 80
    clock[0] += purses.DAY_S
    assert [one.spent_pico for one in purse.labels({"project:a": 9})] == [0]
    book.close()
