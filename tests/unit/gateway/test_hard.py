"""The hard constraints over random configurations, facts and states. The checker shares no code with the policy."""

from __future__ import annotations

import random
import tomllib
from typing import Any, get_args

import msgspec
import pytest

from farmhand.core.errors import FarmhandError
from farmhand.gateway import config as configs
from farmhand.gateway.explain import again
from farmhand.gateway.ledger import DecisionRecord
from farmhand.gateway.policy import decide
from farmhand.gateway.turn import Allowance, BackendState, Carries, Facts, Reason, Residency, WorkClass
from tests.unit.gateway.turns import facts, metered, plan

NUMBER = 10_000
CLASSES = get_args(WorkClass)
SERVERS = ("a", "b", "c")


def some_toml(chance: random.Random) -> str:
    """A configuration that an operator might write, or should not."""
    lines = [f'listen = "{chance.choice(["127.0.0.1:7345", "[::1]:1", "localhost:80", "0.0.0.0:7345"])}"']
    servers = chance.sample(SERVERS, chance.randint(0, 3))
    for name in servers:
        host = chance.choices(("127.0.0.1", "localhost", "[::1]", "api.example.com", "10.0.0.7"), (9, 5, 3, 1, 1))[0]
        lines += [f"[local.{name}]", f'url = "http://{host}:8080"']
    cli = chance.choices(("claude", "/usr/bin/claude", "claude --bare", "--bare"), (9, 9, 1, 1))[0]
    on = {name: chance.random() < 0.7 for name in ("subscription", "metered")}
    lines += ["[subscription]", f"enabled = {str(on['subscription']).lower()}", f'cli = "{cli}"']
    lines += ["terms_read = 2026-11-28"] * (chance.random() < 0.9)
    lines += ["[metered]", f"enabled = {str(on['metered']).lower()}"]
    lines += [f'budget_day_usd = "{chance.choice(["0.01", "2", "100"])}"'] * (chance.random() < 0.9)
    backends = ["local", *(f"local:{name}" for name in servers), *(name for name in on if on[name])]
    if chance.random() < 0.1:
        backends.append(chance.choice(("metered", "subscription", "local:none")))
    lines += ["[aliases]"]
    if len(backends) > 1:
        lines.append(f'mine = {{ backend = "{chance.choice(backends[1:])}" }}')
    for _ in range(chance.randint(0, 4)):
        lines.append("[[rule]]")
        chosen = chance.sample(CLASSES, chance.randint(1, 3))
        lines += [f"class = {chosen!r}"] * (chance.random() < 0.6)
        lines += [f"tokens_over = {chance.choice((0, 1000, 60_000))}"] * (chance.random() < 0.4)
        lines.append(f"try = {chance.choices(backends, k=chance.randint(bool(chance.randrange(9)), 4))!r}")
    return "\n".join(lines).replace("'", '"')


def some_facts(chance: random.Random, backends: list[str]) -> Facts:
    """Facts of which most are of plain text, as else nearly all would be refused for one thing or another."""

    def rarely(value: Any, usual: Any) -> Any:
        return value if chance.random() < 0.04 else usual

    carries: dict[str, Any] = {name: rarely(True, False) for name in Carries.__struct_fields__}
    carries |= {name: rarely(chance.randint(1, 9), 0) for name in ("tools", "images", "documents")}
    carries["hosted_tools"] = rarely(("web_search",), ())
    return Facts(
        dialect=chance.choice(("messages", "chat", "responses")),
        work_class=chance.choice(CLASSES),
        class_source="header",
        carries=Carries(**carries),
        tokens=chance.choice((0, 1000, 1001, 60_000, 60_001, 10**6)),
        background=rarely(True, False),
        session=chance.choice(("", "s1")),
        only=chance.choice((*[None] * 9, *get_args(Residency))),
        backend=chance.choice((*[None] * 9, *backends)),
        most_pico=chance.choice((None, 0, 10**10, 5 * 10**11, 5 * 10**11 + 1, 3 * 10**12)),
        may_move=chance.random() < 0.5,
    )


def some_states(chance: random.Random, config: configs.GatewayConfig) -> list[BackendState]:
    """States as backends could have them, closed ones and ones without a limit among them."""

    def some(**more: Any) -> BackendState:
        flags: dict[str, Any] = {
            name: chance.random() < 0.5
            for name in ("vision", "schema", "prefill", "documents", "image_urls", "hosted_tools", "safeguards")
        }
        closed = Reason("down", "down") if chance.random() < 0.15 else None
        return BackendState(closed=closed, context=chance.choice((0, 0, 1000, 10**7)), **flags, **more)

    states = [some(name=f"local:{name}", residency="local") for name in config.local]
    if config.subscription.enabled:
        states.append(some(name="subscription", residency="subscription"))
    if config.metered.enabled:
        turn = chance.choice((None, 5 * 10**11, 5 * 10**11, 10**13))
        day = chance.choice((None, config.metered.day_pico, 10**13, 10**13))
        spent = chance.choice((None, 0, 0, 10**12, 10**13))
        more: dict[str, Any] = {"turn_pico": turn, "day_pico": day, "spent_pico": spent}
        more["background"] = chance.random() < 0.5
        if chance.random() < 0.3:
            classes = tuple(chance.sample(CLASSES, chance.randint(1, 5)))
            limit, used = chance.choice((10**10, 10**12)), chance.choice((0, 10**10))
            more["allowance"] = Allowance(classes=classes, until=0.0, limit_pico=limit, spent_pico=used)
        states.append(some(name="metered", residency="metered", **more))
    return states


def broken(made: dict[str, Any], toml: dict[str, Any], states: list[dict[str, Any]]) -> str:
    """The constraint that a decision breaks, or "". All in plain values."""
    case, name, residency = made["facts"], made["backend"], made["residency"]
    if not name:
        return "a residency without a backend" if residency else ""
    (state,) = [state for state in states if state["name"] == name]
    if state["residency"] != residency:
        return "the residency is another one's"
    if state["closed"]:
        return "the backend is closed"
    if case["only"] and case["only"] != residency:
        return "H4: not what the client asked for"
    allowed = allowed_by_toml(toml, case)
    if name not in allowed and residency not in allowed:
        given = state["allowance"]
        if given is None or case["backend"] or case["work_class"] not in given["classes"]:
            return "H4: no rule, no alias and no allowance names it"
        if case["most_pico"] is None or given["spent_pico"] + case["most_pico"] > given["limit_pico"]:
            return "H2: over the allowance"
        if not made["by_allowance"]:
            return "H2: the allowance would not be charged"
    if residency == "subscription":
        if case["work_class"] not in ("planning", "review", "chat"):
            return "H1: the class"
        if held := [part for part, value in case["carries"].items() if value]:
            return f"H1: carries {held}"
        if case["background"]:
            return "H1: a request of the harness for itself"
        if not toml["subscription"]["enabled"] or "terms_read" not in toml["subscription"]:
            return "H1: not enabled"
    elif residency == "metered":
        if not toml["metered"]["enabled"] or "budget_day_usd" not in toml["metered"]:
            return "H2: not enabled, or no budget"
        if case["background"] and not state["background"]:
            return "H2: a request of the harness for itself"
        limits = (case["most_pico"], state["turn_pico"], state["day_pico"], state["spent_pico"])
        if None in limits:
            return "H2: a limit or the price is not known"
        most, turn, day, spent = limits
        if most > turn or spent + most > day:
            return "H2: over a limit"
    else:
        url = toml["local"][name.removeprefix("local:")]["url"]
        if not any(host in url for host in ("//127.0.0.1:", "//localhost:", "//[::1]:")):
            return "H3: it leaves this machine"
    return ""


def allowed_by_toml(toml: dict[str, Any], case: dict[str, Any]) -> list[str]:
    """What the first rule of the file that matches names; the alias's backend, if the client used one."""
    if case["backend"]:
        return [case["backend"]]
    for rule in toml.get("rule", [{"try": ["local"]}]):
        if case["work_class"] in rule.get("class", CLASSES) and case["tokens"] > rule.get("tokens_over", -1):
            return list(rule["try"])
    return []


def test_no_decision_breaks_a_hard_constraint() -> None:
    seed = random.randrange(10**9)  # noqa: S311
    chance = random.Random(seed)  # noqa: S311
    done, refused, chosen = 0, 0, dict.fromkeys(("", *get_args(Residency)), 0)
    while done < NUMBER:
        text = some_toml(chance)
        toml = tomllib.loads(text)
        try:
            config = configs.parse(text)
        except FarmhandError:
            refused += 1
            continue
        assert "--" not in config.subscription.cli, f"H5, seed {seed}"
        assert config.address[0] in ("127.0.0.1", "::1", "localhost")
        for _ in range(5):
            states = some_states(chance, config)
            case = some_facts(chance, [state.name for state in states])
            last = chance.choice(["", *(state.name for state in states)])
            made = decide(case, states, config.rules, last, f"fh-{done}")
            plain = msgspec.to_builtins(made)
            assert not broken(plain, toml, msgspec.to_builtins(states)), f"seed {seed}, {plain}\n{states}\n{text}"
            record = DecisionRecord(at=0.0, decision=made, states=tuple(states), rules=config.rules, last=last)
            kept = msgspec.json.decode(msgspec.json.encode(record), type=DecisionRecord)
            assert kept == record
            assert again(kept), f"seed {seed}"
            chosen[made.residency or ""] += 1
            done += 1
    # All kinds came up, so the check had something to check.
    assert min(chosen.values()) > NUMBER // 400, chosen
    assert refused > NUMBER // 100


@pytest.mark.parametrize("part", Carries.__struct_fields__)
def test_no_part_beside_text_goes_to_the_subscription(part: str) -> None:
    kind = {"hosted_tools": ("web_search",)}.get(part, 1 if type(getattr(Carries(), part)) is int else True)
    rules = configs.parse("").rules
    alone = facts(backend="subscription")
    assert decide(alone, (plan(),), rules).backend == "subscription"
    assert decide(facts(backend="subscription", **{part: kind}), (plan(),), rules).backend == ""


def test_nothing_in_toml_reaches_a_constraint() -> None:
    """What a rule may say is its class, its size, and where to try. No key loosens anything."""
    for key in ("force", "tools", "allow_tools", "hard", "H1", "unless"):
        with pytest.raises(FarmhandError, match="unknown key"):
            configs.parse(f'[[rule]]\ntry = ["local"]\n{key} = true')
        with pytest.raises(FarmhandError, match=f"{key}: unknown key"):
            configs.parse(f"{key} = true")


def test_facts_have_no_room_for_a_prompts_text() -> None:
    """H6. Every text among the facts is of a closed set, a hash, a name from gateway.toml, or a label of a header.

    See test_classify.py and test_labels.py."""
    texts = {field.name for field in msgspec.structs.fields(Facts) if field.type is str or "str" in repr(field.type)}
    assert texts == {"session", "backend", "labels"}
    of_parts = {field.name for field in msgspec.structs.fields(Carries) if "str" in repr(field.type)}
    assert of_parts == {"hosted_tools"}


def test_a_closed_metered_backend_is_never_paid_by_its_alias() -> None:
    closed = metered(closed=Reason("shut", "off"))
    assert decide(facts(backend="metered", most_pico=1), (closed,), ()).backend == ""
