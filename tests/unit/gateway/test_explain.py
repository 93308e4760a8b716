"""Explain: every rule and reason of a decision, from what the ledger has of it, and what would happen."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from farmhand.core.task import Usage
from farmhand.gateway import advice, classify
from farmhand.gateway.config import parse
from farmhand.gateway.explain import again, document, text, what_if
from farmhand.gateway.ledger import DecisionRecord, GatewayLedger, TurnCharge, charges, read
from farmhand.gateway.policy import Rule, decide
from farmhand.gateway.turn import BackendState, Carries, Facts
from tests.unit.gateway.turns import DAY, DOWN, facts, local, metered, plan, turn

CANARY = "canary bird"
RULES = (
    Rule(classes=("planning", "review"), order=("local", "subscription")),
    Rule(classes=("agent",), tokens_over=60_000, order=("local", "metered")),
    Rule(order=("local", "subscription", "metered")),
    Rule(order=("local",)),
)
AGENT = facts(work_class="agent", class_source="header", tools=12, tokens=40_000, max_tokens=4096, session="0123456789")


def record(case: Facts, *states: BackendState, last: str = "") -> DecisionRecord:
    return DecisionRecord(
        at=1_796_000_000.0, decision=decide(case, states, RULES, last, "fh-8f2c"), states=states, rules=RULES, last=last
    )


def test_advice_in_lines() -> None:
    given = record(AGENT, local(closed=DOWN), plan(), metered(spent_pico=DAY), last="metered")
    assert text(given) == (
        "fh-8f2c  advice: no backend took the turn  2026-11-30 00:53:20 UTC\n"
        "\n"
        "facts\n"
        "  class        agent (header)\n"
        "  dialect      messages\n"
        "  tokens       about 40,000, answer up to 4096\n"
        "  carries      tools: 12\n"
        "  session      01234567, before: metered\n"
        "\n"
        "rules\n"
        "  1   try local, subscription: for planning, review\n"
        "  2   try local, metered: for more than 60,000 tokens\n"
        "  3   try local, subscription, metered: this one decides\n"
        "  4   try local: not looked at: rule 3 matches\n"
        "\n"
        "backends\n"
        "  local:qwen: not running (connection refused, 127.0.0.1:8080)\n"
        "  subscription: not for agent turns (H1)\n"
        "  metered: the price of this turn is not known (H2)\n"
        "\n"
        "decision\n"
        "  advice: nothing was asked of any backend, and nothing spent\n"
        "  H1: the subscription takes text turns of the classes planning, review and chat only\n"
        "  H2: a metered turn needs an open gate, and at its most must fit the limits of a turn and of the day"
    )


def test_each_way_to_a_backend_is_said() -> None:
    states = (local("a"), local("b"), plan())
    for case, last, said in (
        (facts(), "", "local:a, by rule 3"),
        (facts(work_class="review"), "local:b", "local:b, where the session was before"),
        (facts(backend="local:b"), "", "local:b, which the client named by an alias"),
    ):
        lines = text(record(case, *states, last=last))
        assert f"\ndecision\n  {said}" in lines
        assert "answers" in lines
        assert "subscription: not asked" in lines
    assert "1   try local, subscription: not looked at: an alias names the backend" in lines


def test_the_same_as_json() -> None:
    given = document(record(AGENT, local(closed=DOWN), metered(), last=""))
    assert msgspec.json.decode(msgspec.json.encode(given)) == given
    assert given["facts"]["carries"]["tools"] == 12
    assert [rule["matches"] for rule in given["rules"]] == [False, False, True, False]
    assert given["rules"][1] == {
        "number": 2,
        "try": ["local", "metered"],
        "matches": False,
        "why_not": "for more than 60,000 tokens",
    }
    by_name = {backend["name"]: backend["refused"] for backend in given["backends"]}
    assert by_name["metered"]["hard"] == "H2"
    assert by_name["local:qwen"] == {"code": "down", "words": DOWN.words, "hard": None}
    assert by_name["subscription"]["code"] == "off"
    assert given["decision"]["backend"] is None
    assert given["same_again"] is True


def test_a_decision_of_another_policy_is_said_to_be_one() -> None:
    given = record(AGENT, local())
    assert again(given)
    other = msgspec.structs.replace(given, decision=msgspec.structs.replace(given.decision, backend="metered"))
    assert not again(other)
    assert "this version would decide otherwise" in text(other)
    assert document(other)["same_again"] is False


def test_what_would_happen() -> None:
    config = parse('[local.qwen]\nurl = "http://127.0.0.1:1"\ncontext = 32768\nimages = "yes"')
    small = what_if(config, work_class="agent", tools=12, tokens=20_000)
    assert (small.decision.backend, small.decision.facts.carries.tools) == ("local:qwen", 12)
    large = what_if(config, work_class="agent", tools=12, tokens=40_000)
    assert large.decision.backend == ""
    assert "local:qwen: 40000 tokens > 32768 maximum" in text(large)
    assert "metered: off" in text(large)
    down = what_if(config, (local(closed=DOWN), *config.closed()), work_class="planning")
    assert DOWN.words in text(down)
    assert again(down)


def test_what_the_ledger_has_is_explained_the_same(tmp_path: Path) -> None:
    given = record(AGENT, local(context=9), plan(), last="subscription")
    given = msgspec.structs.replace(given, decision=msgspec.structs.replace(given.decision, id="fh-00aabbccdd"))
    ledger = GatewayLedger(tmp_path / "gateway.db")
    ledger.decided(given)
    ledger.close()
    kept = read(tmp_path / "gateway.db")
    assert kept is not None
    assert text(kept) == text(given)
    assert document(kept) == document(given)


def test_what_an_answer_used_is_said_with_its_exact_cost(tmp_path: Path) -> None:
    given = record(facts(), local())
    assert "\nused\n" not in text(given)
    ledger = GatewayLedger(tmp_path / "gateway.db")
    usage = Usage(input_tokens=1000, cache_read_input_tokens=15_800, output_tokens=7)
    base = TurnCharge(
        decision="fh-8f2c",
        created_at=time.time(),
        model="qwen3",
        work_class="chat",
        residency="local",
        backend="local:qwen",
        usage=usage,
        seconds=1.25,
        pico=0,
        labels={"project": "p"},
    )
    unknown = msgspec.structs.replace(base, pico=None, outcome="failed", status=502, terms="estimated", model="")
    for charge in (base, unknown, msgspec.structs.replace(base, decision="fh-other")):
        ledger.charged(charge)
    ledger.close()
    used = charges(tmp_path / "gateway.db", "fh-8f2c")
    assert used == [base, unknown]
    read_ = "16,800 tokens read, 15,800 of them from the cache, 7 written"
    assert text(given, used).endswith(
        f"\n\nused\n  qwen3: {read_}, US$ 0.00; done after 1.2 s\n"
        f"  local:qwen: {read_}, at a cost that is not known; failed (estimated) after 1.2 s"
    )
    assert [one["cost_usd"] for one in document(given, used)["used"]] == ["0.00", None]
    assert charges(tmp_path / "gateway.db", "fh-none") == []


def test_no_text_of_a_prompt_is_in_ledger_decision_and_explain(tmp_path: Path) -> None:
    """The canary is in every place of a request that a harness fills, and where a client could put words."""
    body = {
        "system": CANARY,
        "messages": [{"role": "user", "content": CANARY}],
        "tools": [{"type": CANARY, "name": CANARY, "description": CANARY}],
        "metadata": {"user_id": f"user_x_session_{CANARY}"},
        "stop_sequences": [CANARY],
    }
    given = turn(
        fields=body,
        model=CANARY,
        headers={"x-session-id": CANARY, "user-agent": f"pi/1 ({CANARY})"},
        carries=Carries(tools=1, hosted_tools=(CANARY,), stop_sequences=True),
    )
    states = (local(), *parse("").closed())
    made = decide(classify.facts(given, None, parse("")), states, parse("").rules, "", "fh-00aabbccdd")
    kept = DecisionRecord(at=1.0, decision=made, states=states, rules=parse("").rules)
    ledger = GatewayLedger(tmp_path / "gateway.db")
    ledger.decided(kept).result(60)
    found = [msgspec.json.encode(made), text(kept).encode(), msgspec.json.encode(document(kept))]
    found += [advice.text(made).encode(), advice.answer(made, given).body]
    found += [path.read_bytes() for path in tmp_path.iterdir()]
    ledger.close()
    found += [path.read_bytes() for path in tmp_path.iterdir()]
    assert len(found) >= 7
    for one in found:
        assert b"canary" not in one.lower()


def test_what_would_be_paid_for() -> None:
    lines = '[metered]\nenabled = true\nbudget_day_usd = "2"\n[[rule]]\nclass = "agent"\ntry = ["metered"]\n'
    config = parse(lines)
    small, large = (what_if(config, work_class="agent", tokens=tokens) for tokens in (1000, 400_000))
    assert small.decision.backend == "metered"
    assert large.decision.refusals[0].reason.code == "budget_turn"
    assert "this turn may cost US$" in text(large)
