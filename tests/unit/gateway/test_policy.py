"""The policy, case by case. test_hard.py has the constraints over random configurations."""

from __future__ import annotations

from typing import Any

import pytest

from farmhand.gateway.config import parse
from farmhand.gateway.policy import Rule, decide
from farmhand.gateway.turn import Allowance, BackendState, Decision, Facts, Reason
from tests.unit.gateway.turns import CENT, DAY, DOWN, SHUT, facts, local, metered, plan

#: All that a state can be able to.
ABLE = dict.fromkeys(("documents", "hosted_tools", "image_urls", "vision", "schema", "prefill", "safeguards"), True)
ALL = (Rule(order=("local", "subscription", "metered")),)


def reasons(decision: Decision) -> dict[str, str]:
    return {refusal.backend: refusal.reason.code for refusal in decision.refusals}


@pytest.mark.parametrize(
    ("case", "backend"),
    [
        ({"work_class": "planning"}, "subscription"),
        ({"work_class": "review"}, "subscription"),
        ({}, "subscription"),
        ({"work_class": "planning", "tools": 3}, "metered"),
        ({"images": 1}, ""),
        ({"schema": True}, ""),
        ({"stop_sequences": True}, "metered"),
        ({"tool_history": True}, "metered"),
        ({"work_class": "quick-edit"}, "metered"),
        ({"work_class": "agent", "tools": 12}, "metered"),
        ({"background": True}, ""),
    ],
)
def test_with_the_local_server_down_the_class_decides(case: dict[str, Any], backend: str) -> None:
    made = decide(facts(most_pico=CENT, **case), (local(closed=DOWN), plan(), metered()), ALL, id="fh-1")
    assert made.backend == backend
    assert made.refusals[0].reason == DOWN
    assert decide(made.facts, (local(vision=True, schema=True), plan(), metered()), ALL).backend == "local:qwen"


def test_the_shipped_rules_try_local_servers_only() -> None:
    rules, open_ones = parse("").rules, (plan(), metered())
    made = decide(facts(most_pico=1), open_ones, rules)
    assert (made.backend, made.rule) == ("", 1)
    assert reasons(made) == {"subscription": "rule", "metered": "shut", "local": "none"}
    assert decide(facts(), (local(), *open_ones), rules).backend == "local:qwen"


def allowed(limit: int = 10 * CENT, spent: int = 0, *classes: Any, **more: Any) -> BackendState:
    """A metered backend that the operator has opened for a time."""
    given = Allowance(classes=classes or ("agent",), until=9e9, limit_pico=limit, spent_pico=spent)
    return metered(allowance=given, **more)


def test_an_allowance_opens_for_its_classes_what_no_rule_names() -> None:
    rules = parse("").rules
    shut: dict[str, Any] = {"closed": SHUT, "day_pico": None}
    for state in (allowed(), allowed(**shut)):
        made = decide(facts(work_class="agent", most_pico=CENT), (local(closed=DOWN), state), rules)
        assert (made.backend, made.by_allowance) == ("metered", True)
        assert decide(facts(work_class="agent", most_pico=CENT), (local(), state), rules).backend == "local:qwen"
        other = decide(facts(work_class="chat", most_pico=CENT), (local(closed=DOWN), state), rules)
        assert (other.backend, reasons(other)["metered"]) == ("", "shut")
        assert decide(facts(work_class="agent", most_pico=CENT, only="local"), (state,), rules).backend == ""
    ruled = decide(facts(work_class="agent", most_pico=CENT), (allowed(),), ALL)
    assert (ruled.backend, ruled.by_allowance) == ("metered", False)


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (allowed(CENT, 1), "budget_allowed"),
        (allowed(day_pico=DAY, spent_pico=DAY - 1), "budget_day"),
        (allowed(turn_pico=1), "budget_turn"),
        (allowed(closed=Reason("key", "refused")), "key"),
    ],
)
def test_an_allowance_is_no_way_around_a_limit(state: BackendState, code: str) -> None:
    made = decide(facts(work_class="agent", most_pico=CENT), (state,), parse("").rules)
    assert (made.backend, reasons(made)["metered"]) == ("", code)


def test_the_first_rule_that_matches_decides() -> None:
    rules = (
        Rule(classes=("planning",), order=("subscription",)),
        Rule(classes=("agent",), tokens_over=60_000, order=("metered",)),
        Rule(classes=("agent", "chat"), order=("local",)),
    )
    states = (local(), plan(), metered())
    for case, backend, number in (
        (facts(work_class="planning"), "subscription", 1),
        (facts(work_class="agent", tokens=60_001, most_pico=1), "metered", 2),
        (facts(work_class="agent", tokens=60_000, most_pico=1), "local:qwen", 3),
        (facts(work_class="review"), "", 0),
    ):
        made = decide(case, states, rules)
        assert (made.backend, made.rule) == (backend, number)


def test_a_rule_may_name_one_server_and_an_empty_one_means_advice() -> None:
    states = (local("small"), local("big"))
    assert decide(facts(), states, (Rule(order=("local:big", "local")),)).backend == "local:big"
    made = decide(facts(documents=1), states, (Rule(order=()),))
    assert reasons(made) == {"local:small": "rule", "local:big": "rule", "subscription": "off", "metered": "off"}


@pytest.mark.parametrize(
    ("case", "state", "code"),
    [
        ({"documents": 1}, local(), "documents"),
        ({"hosted_tools": ("web_search",)}, local(), "hosted_tools"),
        ({"image_urls": True}, local(vision=True), "image_urls"),
        ({"images": 2}, local(), "images"),
        ({"schema": True}, local(), "schema"),
        ({"prefill": True}, local(), "prefill"),
        ({"tokens": 4097}, local(context=4096), "context"),
        ({"safeguards": True}, local(), "safeguards"),
        ({"only": "metered"}, local(), "asked"),
        ({"backend": "local:other"}, local(), "asked"),
    ],
)
def test_why_a_local_server_cannot(case: dict[str, Any], state: BackendState, code: str) -> None:
    rules = (Rule(order=("local",)),)
    assert reasons(decide(facts(**case), (state, local("able", **ABLE)), rules))["local:qwen"] == code
    taken = decide(facts(**case), (state, local("able", **ABLE)), rules).backend
    assert taken == ("" if code == "asked" else "local:able")


def test_the_next_server_takes_what_the_first_cannot() -> None:
    states = (local("blind", context=4096), local("seeing", vision=True, context=65_536))
    made = decide(facts(images=1), states, ALL)
    assert (made.backend, reasons(made)) == ("local:seeing", {"local:blind": "images"})
    assert decide(facts(tokens=5000), states, ALL).backend == "local:seeing"


@pytest.mark.parametrize(
    ("most", "changed", "words"),
    [
        (None, {}, "the price of this turn is not known"),
        (50 * CENT + 1, {}, "this turn may cost US$ 0.500000000001, the limit is 0.50"),
        (CENT, {"spent_pico": DAY}, "today's US$ 2 are spent (2.00), resets 00:00 UTC"),
        (2 * CENT, {"spent_pico": DAY - CENT}, "today's US$ 2 have no room for 0.02 (1.99 spent), resets 00:00 UTC"),
        (CENT, {"day_pico": None}, "it has no limit"),
        (CENT, {"turn_pico": None}, "it has no limit"),
        (CENT, {"spent_pico": None}, "it has no limit"),
        (CENT, {"closed": SHUT}, "off"),
    ],
)
def test_what_is_not_paid_for(most: int | None, changed: dict[str, Any], words: str) -> None:
    made = decide(facts(most_pico=most), (metered(**changed),), ALL)
    assert [r.reason.words for r in made.refusals if r.backend == "metered"] == [words]
    assert decide(facts(most_pico=50 * CENT), (metered(spent_pico=150 * CENT),), ALL).backend == "metered"


def test_titles_are_paid_for_only_if_the_operator_says_so() -> None:
    title = facts(background=True, most_pico=CENT)
    assert decide(title, (metered(),), ALL).backend == ""
    assert decide(title, (metered(background=True),), ALL).backend == "metered"


def test_what_the_client_asks_for_narrows_and_never_widens() -> None:
    states, rules = (local(closed=DOWN), plan(), metered()), (Rule(order=("local", "subscription")),)
    assert decide(facts(), states, rules).backend == "subscription"
    assert reasons(decide(facts(only="local"), states, rules))["subscription"] == "asked"
    assert decide(facts(only="metered", most_pico=1), states, rules).backend == ""


class TestAConversationStaysWithItsBackend:
    """`last` is the backend that the session had."""

    rules = (Rule(order=("local", "metered")),)

    def at(self, last: str, states: tuple[BackendState, ...], **case: Any) -> Decision:
        return decide(facts(most_pico=CENT, **case), states, self.rules, last)

    def test_amid_a_tool_loop_it_stays_where_it_is(self) -> None:
        made = self.at("metered", (local(), metered()), may_move=False)
        assert (made.backend, made.rule) == ("metered", 0)

    def test_the_users_next_words_bring_it_back_to_what_the_rule_prefers(self) -> None:
        made = self.at("metered", (local(), metered()), may_move=True)
        assert (made.backend, made.rule) == ("local:qwen", 1)

    def test_it_does_not_change_between_two_servers_that_cost_the_same(self) -> None:
        assert self.at("local:b", (local("a"), local("b")), may_move=True).backend == "local:b"

    def test_it_leaves_what_cannot_go_on(self) -> None:
        assert self.at("local:qwen", (local(closed=DOWN), metered()), may_move=False).backend == "metered"
        assert self.at("metered", (local(), metered(spent_pico=DAY)), may_move=False).backend == "local:qwen"
        assert self.at("local:gone", (local(),), may_move=False).backend == "local:qwen"

    def test_it_does_not_stay_where_the_rule_no_longer_sends_it(self) -> None:
        made = decide(facts(may_move=False), (local(), plan()), self.rules, "subscription")
        assert made.backend == "local:qwen"

    def test_one_that_has_outgrown_its_server_can_be_made_shorter(self) -> None:
        states = (local(context=4096),)
        assert reasons(self.at("local:qwen", states, tokens=5000))["local:qwen"] == "outgrown"
        assert reasons(self.at("", states, tokens=5000))["local:qwen"] == "context"


def test_an_alias_names_the_backend_whatever_the_rules_say() -> None:
    made = decide(facts(backend="local:b"), (local("a"), local("b")), (Rule(order=("local:a",)),), "local:a")
    assert (made.backend, made.rule) == ("local:b", 0)
    assert decide(facts(backend="subscription", tools=1), (plan(),), ()).backend == ""


def test_a_decision_has_its_facts_and_its_id() -> None:
    case: Facts = facts()
    made = decide(case, (local(),), ALL, id="fh-7")
    assert (made.id, made.facts, made.residency, made.refusals) == ("fh-7", case, "local", ())
    assert decide(case, (local(closed=Reason("x", "y")),), ALL).residency is None
