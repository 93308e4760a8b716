"""Why a decision is what it is: its facts, each rule, each backend's reason, as text and as JSON.

The decision is made again from what the ledger has of it. If the outcome differs, that is said: the policy of this
version is then another one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from farmhand.core.money import plain
from farmhand.core.prices import PriceTable, price_table
from farmhand.core.readable import duration
from farmhand.core.task import Usage
from farmhand.core.terms import DEAREST
from farmhand.gateway.config import hard_texts
from farmhand.gateway.dialects.to_messages import ANSWER_TOKENS
from farmhand.gateway.ledger import DecisionRecord, TurnCharge
from farmhand.gateway.policy import HARD, LOCAL, decide, matching, mismatch, why_not
from farmhand.gateway.tables import PLAN_CONTEXT, GatewayConfig
from farmhand.gateway.turn import BackendState, Carries, Dialect, Facts, Residency, WorkClass

#: The id of a decision that was not made: `farmhand gateway explain --class agent --tools 12`.
WHAT_IF = "fh-what-if"


def again(record: DecisionRecord) -> bool:
    """Return whether the policy decides the same from what the record has."""
    made = record.decision
    return decide(made.facts, record.states, record.rules, record.last, made.id) == made


def what_if(
    config: GatewayConfig,
    states: Sequence[BackendState] | None = None,
    *,
    work_class: WorkClass = "chat",
    tools: int = 0,
    tokens: int = 0,
    dialect: Dialect = "messages",
    only: Residency | None = None,
    carries: Carries | None = None,
    prices: PriceTable | None = None,
) -> DecisionRecord:
    """Return what would be decided for such a turn. Without `states` each local server and the plan count as open.

    A metered turn is taken to have an answer of ANSWER_TOKENS at the most, at the shipped prices unless given.
    """
    if states is None:
        states = (*assumed(config), *config.closed())
    usage = Usage(input_tokens=tokens, output_tokens=ANSWER_TOKENS)
    facts = Facts(
        dialect=dialect,
        work_class=work_class,
        class_source="header",
        carries=msgspec.structs.replace(carries or Carries(), tools=tools),
        tokens=tokens,
        only=only,
        most_pico=(prices or price_table()).cost(config.metered.model_of(work_class), usage, DEAREST),
    )
    made = decide(facts, states, config.rules, id=WHAT_IF)
    return DecisionRecord(at=time.time(), decision=made, states=tuple(states), rules=config.rules)


def assumed(config: GatewayConfig) -> tuple[BackendState, ...]:
    """Return the states of the backends as gateway.toml has them, each of them open; the metered one is unspent."""
    local = tuple(
        BackendState(
            name=LOCAL + name,
            residency="local",
            context=server.context,
            vision=server.images == "yes",
            schema=True,
            hosted_tools=server.omit_hosted_tools,
            model=server.model,
        )
        for name, server in config.local.items()
    )
    plan = BackendState(name="subscription", residency="subscription", context=PLAN_CONTEXT)
    table = config.metered
    paid = BackendState(
        name="metered",
        residency="metered",
        vision=True,
        schema=True,
        turn_pico=table.turn_pico,
        day_pico=table.day_pico,
        spent_pico=0,
    )
    return (*local, *((plan,) if config.subscription.enabled else ()), *((paid,) if table.enabled else ()))


def document(record: DecisionRecord, charges: Sequence[TurnCharge] = ()) -> dict[str, Any]:
    """Return a decision as JSON: `facts`, `rules`, `backends`, `decision`, and whether it can be made again.

    `used` has the charges of its answers. A cost is exact US$ as text, or null if it is not known.
    """
    made = record.decision
    number, _ = matching(made.facts, record.rules)
    refused = {refusal.backend: refusal.reason for refusal in made.refusals}
    backends = [
        {"name": state.name, "residency": state.residency, "refused": _reason(refused.get(state.name)), "state": state}
        for state in record.states
    ]
    absent = [name for name in refused if all(state.name != name for state in record.states)]
    backends += [{"name": name, "residency": name, "refused": _reason(refused[name]), "state": None} for name in absent]
    whole = {
        "id": made.id,
        "at": record.at,
        "facts": made.facts,
        "rules": [
            {
                "number": at,
                "try": rule.order,
                "matches": at == number and not made.facts.backend,
                "why_not": _passed_over(record, at, number),
            }
            for at, rule in enumerate(record.rules, 1)
        ],
        "backends": backends,
        "decision": {
            "backend": made.backend or None,
            "residency": made.residency,
            "rule": made.rule or None,
            "how": how(record),
        },
        "used": [
            {
                **{name: getattr(charge, name) for name in ("model", "status", "outcome", "seconds", "terms", "usage")},
                "cost_usd": None if charge.pico is None else plain(charge.pico),
            }
            for charge in charges
        ],
        "same_again": again(record),
    }
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(whole))
    return decoded


def text(record: DecisionRecord, charges: Sequence[TurnCharge] = ()) -> str:
    """Return a decision as lines for people, with the charges of its answers."""
    made, facts = record.decision, record.decision.facts
    at = datetime.fromtimestamp(record.at, UTC)
    lines = [f"{made.id}  {made.backend or 'advice: no backend took the turn'}  {at:%Y-%m-%d %H:%M:%S} UTC"]
    lines += ["", "facts", *(f"  {name:<12} {value}" for name, value in _facts(facts, record.last))]
    number, _ = matching(facts, record.rules)
    lines += ["", "rules"]
    for at_rule, rule in enumerate(record.rules, 1):
        why = _passed_over(record, at_rule, number)
        lines.append(f"  {at_rule:<3} try {', '.join(rule.order) or 'nothing'}: {why or 'this one decides'}")
    lines += ["", "backends"]
    refused = {refusal.backend: refusal.reason for refusal in made.refusals}
    hard: dict[str, str] = {}
    for name in [*(state.name for state in record.states), *refused]:
        if any(line.startswith(f"  {name}: ") for line in lines):
            continue
        reason = refused.get(name)
        law = HARD.get(reason.code, "") if reason else ""
        if law:
            hard[law] = hard_texts()[law]
        why = f"{reason.words}{f' ({law})' if law else ''}" if reason else "answers" if name == made.backend else ""
        lines.append(f"  {name}: {why or _not_asked(record, name)}")
    lines += ["", "decision", f"  {how(record)}"]
    lines += [f"  {law}: {says}" for law, says in sorted(hard.items())]
    if charges:
        lines += ["", "used", *(f"  {_used(charge)}" for charge in charges)]
    if not again(record):
        lines.append("  this version would decide otherwise: it was made by another one")
    return "\n".join(lines)


def how(record: DecisionRecord) -> str:
    """Return in one sentence how the decision came about."""
    made = record.decision
    if not made.backend:
        return "advice: nothing was asked of any backend, and nothing spent"
    if made.facts.backend:
        return f"{made.backend}, which the client named by an alias"
    if made.rule == 0:
        return f"{made.backend}, where the session was before"
    return f"{made.backend}, by rule {made.rule}"


def _used(charge: TurnCharge) -> str:
    usage, cost = charge.usage, "at a cost that is not known" if charge.pico is None else f"US$ {plain(charge.pico)}"
    tokens = f"{usage.prompt_tokens:,} tokens read, {usage.cache_read_input_tokens:,} of them from the cache"
    how = f"{charge.outcome}{f' ({charge.terms})' if charge.terms else ''} after {duration(charge.seconds)}"
    return f"{charge.model or charge.backend}: {tokens}, {usage.output_tokens:,} written, {cost}; {how}"


def _passed_over(record: DecisionRecord, at: int, decides: int) -> str:
    """Return why a rule has not decided, "" if it has."""
    facts = record.decision.facts
    if facts.backend:
        return "not looked at: an alias names the backend"
    if decides and at > decides:
        return f"not looked at: rule {decides} matches"
    return mismatch(record.rules[at - 1], facts)


def _not_asked(record: DecisionRecord, name: str) -> str:
    """Return why a backend that gave no reason did not answer."""
    state = next(state for state in record.states if state.name == name)
    reason = why_not(record.decision.facts, state)
    return f"not asked ({reason.words})" if reason else "not asked"


def _reason(reason: Any) -> dict[str, Any] | None:
    return reason and {"code": reason.code, "words": reason.words, "hard": HARD.get(reason.code)}


def _facts(facts: Facts, last: str) -> list[tuple[str, str]]:
    """Return the facts that say something, as names and words."""
    source = {"derived": "from what it carries", "path": "from the path"}.get(facts.class_source, facts.class_source)
    carries = []
    for field in msgspec.structs.fields(Carries):
        value = getattr(facts.carries, field.name)
        name = field.name.replace("_", " ")
        if value is True:
            carries.append(name)
        elif value:
            carries.append(f"{name}: {', '.join(value) if isinstance(value, tuple) else value}")
    found = [
        ("class", f"{facts.work_class} ({source}){', a request of the harness for itself' * facts.background}"),
        ("dialect", facts.dialect),
        ("tokens", f"about {facts.tokens:,}, answer up to {facts.max_tokens or 'any length'}"),
        ("carries", "; ".join(carries) or "text"),
        ("asked for", facts.only or facts.backend or ""),
        ("labels", ", ".join(f"{label} {value}" for label, value in facts.labels.items())),
        ("session", f"{facts.session[:8]}, before: {last or 'nothing'}" if facts.session else ""),
    ]
    return [(name, value) for name, value in found if value]
