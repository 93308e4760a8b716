"""Who answers a turn: a pure function of its facts, the backends' states and the operator's rules.

The hard constraints H1 to H6 (docs/gateway.md) are code here. A rule chooses among what they leave and cannot reach
them. `decide` does no I/O and knows no text of a prompt, so a decision can be made again from what the ledger has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import get_args

import msgspec

from farmhand.core.money import plain, usd
from farmhand.gateway.turn import (
    TEXT_CLASSES,
    BackendState,
    Decision,
    Facts,
    Reason,
    Refusal,
    Residency,
    WorkClass,
)

RESIDENCIES: tuple[Residency, ...] = get_args(Residency)
#: The prefix of a local backend's name.
LOCAL = "local:"
#: The constraint behind a reason, by its code.
HARD = {
    "text_only": "H1",
    "text_class": "H1",
    "price_unknown": "H2",
    "no_limit": "H2",
    "budget_turn": "H2",
    "budget_day": "H2",
    "budget_label": "H2",
    "budget_allowed": "H2",
    "background": "H2",
    "asked": "H4",
}
#: What a turn can contain, the state that can take it, and what is said where it cannot. These are reasons that another
#: backend may not have: see `farmhand.gateway.advice`.
_PARTS = (
    ("documents", "documents", "it cannot read documents"),
    ("hosted_tools", "hosted_tools", "it cannot run the provider's own tools"),
    ("image_urls", "image_urls", "it fetches no images"),
    ("images", "vision", "it cannot see images"),
    ("schema", "schema", "it cannot follow a schema"),
    ("prefill", "prefill", "it cannot go on from a begun answer"),
)
CANNOT_CARRY = frozenset(part for part, _, _ in _PARTS)
#: The codes of backends that are open, allowed and asked, and cannot take this turn.
UNABLE = CANNOT_CARRY | {"context", "outgrown", "safeguards"}
_TEXT_ONLY = Reason("text_only", "text only")
_UNLISTED = Reason("rule", "no rule sends this turn there")
#: The same of a metered backend, which `farmhand gateway allow` opens.
_SHUT = Reason("shut", "no rule sends this turn there")
_SAFEGUARDS = Reason("safeguards", "it does not run safeguards")
_OFF = Reason("off", "off")
_NO_SERVER = Reason("none", "none is set up")


class Rule(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"classes": "class", "order": "try"}
):
    """One `[[rule]]`: the turns that it is for, and what they try, in that order. What is left out matches all.

    `order` has residencies and names of backends; a residency stands for all its backends in the file's order. An empty
    one means advice.
    """

    classes: tuple[WorkClass, ...] | None = None
    #: Matches turns of more input tokens than that.
    tokens_over: int | None = None
    order: tuple[str, ...]


def mismatch(rule: Rule, facts: Facts) -> str:
    """Return why a rule is not for a turn, "" if it is."""
    if rule.classes is not None and facts.work_class not in rule.classes:
        return f"for {', '.join(rule.classes)}"
    if rule.tokens_over is not None and facts.tokens <= rule.tokens_over:
        return f"for more than {rule.tokens_over:,} tokens"
    return ""


def matching(facts: Facts, rules: Sequence[Rule]) -> tuple[int, Rule | None]:
    """Return the first rule for a turn, and its number from 1; (0, None) if there is none."""
    for number, rule in enumerate(rules, 1):
        if not mismatch(rule, facts):
            return number, rule
    return 0, None


def decide(
    facts: Facts,
    states: Sequence[BackendState],
    rules: Sequence[Rule],
    last: str = "",
    id: str = "",  # noqa: A002
) -> Decision:
    """Return which backend answers a turn, or that none does, with each reason.

    `last` is the backend that the session had. It is kept where the rule and the constraints allow it, until a turn
    that begins with the user's own words; then too if it is of the residency that would be chosen.
    """
    number, rule = (0, None) if facts.backend else matching(facts, rules)
    order = (facts.backend,) if facts.backend else rule.order if rule is not None else ()
    listed = list(_listed(states, order))
    listed += [] if facts.backend else _allowed(facts, states, listed)
    refusals: list[Refusal] = []
    chosen: BackendState | None = None
    for state in listed:
        if (reason := why_not(facts, state)) is None:
            chosen = state
            break
        if reason.code == "context" and state.name == last:
            reason = Reason("outgrown", reason.words)
        refusals.append(Refusal(backend=state.name, reason=reason))
    if chosen is None:
        refusals += _never_tried(facts, states, listed)
        return Decision(id=id, backend="", residency=None, facts=facts, rule=number, refusals=tuple(refusals))
    if last and last != chosen.name:
        kept = next((state for state in listed if state.name == last), None)
        stays = kept is not None and (not facts.may_move or kept.residency == chosen.residency)
        if kept is not None and stays and why_not(facts, kept) is None:
            chosen, number = kept, 0
    return Decision(
        id=id,
        backend=chosen.name,
        residency=chosen.residency,
        facts=facts,
        rule=number,
        refusals=tuple(refusals),
        by_allowance=chosen.by_allowance,
    )


def why_not(facts: Facts, state: BackendState) -> Reason | None:
    """Return the first reason why a backend cannot take a turn, whatever the rules say; None if it can."""
    if facts.only is not None and facts.only != state.residency:
        return Reason("asked", f"the client asked for {facts.only} only")
    if facts.backend and facts.backend != state.name:
        return Reason("asked", f"the client asked for {facts.backend}")
    if state.closed is not None:
        return state.closed
    if state.residency == "subscription" and (reason := _not_by_plan(facts)) is not None:
        return reason
    if state.residency == "metered" and (reason := _not_paid(facts, state)) is not None:
        return reason
    for part, able, words in _PARTS:
        if getattr(facts.carries, part) and not getattr(state, able):
            return Reason(part, words)
    if state.context and facts.tokens > state.context:
        return Reason("context", f"{facts.tokens} tokens > {state.context} maximum")
    if facts.carries.safeguards and not state.safeguards:
        return _SAFEGUARDS
    return None


def _not_by_plan(facts: Facts) -> Reason | None:
    """H1: text of a text class, and nothing that the CLI would have to be given in another form."""
    if facts.work_class not in TEXT_CLASSES:
        return Reason("text_class", f"not for {facts.work_class} turns")
    carries = facts.carries
    more = carries.tools or carries.tool_history or carries.images or carries.image_urls or carries.documents
    shaped = carries.schema or carries.hosted_tools or carries.stop_sequences or carries.prefill
    return _TEXT_ONLY if more or shaped or carries.safeguards or facts.background else None


def _not_paid(facts: Facts, state: BackendState) -> Reason | None:
    """H2: the most that the turn may cost is known, and fits what is left of the turn's and the day's limit."""
    if facts.background and not state.background:
        return Reason("background", "the harness's requests for itself are not paid for")
    turn, day, spent = state.turn_pico, state.day_pico, state.spent_pico
    if turn is None or day is None or spent is None:
        return Reason("no_limit", "it has no limit")
    if facts.most_pico is None:
        return Reason("price_unknown", "the price of this turn is not known")
    if facts.most_pico > turn:
        return Reason("budget_turn", f"this turn may cost US$ {plain(facts.most_pico)}, the limit is {plain(turn)}")
    given = state.allowance
    by_allowance = state.by_allowance and given is not None and (given.limit_pico, given.spent_pico) == (day, spent)
    if facts.most_pico > day - spent and by_allowance:
        left = f"{plain(max(day - spent, 0))} of the allowed US$ {_short(day)} are left"
        return Reason("budget_allowed", f"{left}, this turn may cost {plain(facts.most_pico)}")
    if facts.most_pico > day - spent:
        limit = f"{_short(day)} are spent ({usd(spent):.2f})"
        if spent < day:
            limit = f"{_short(day)} have no room for {plain(facts.most_pico)} ({usd(spent):.2f} spent)"
        return Reason("budget_day", f"today's US$ {limit}, resets 00:00 UTC")
    for one in state.labels:
        label, _, value = one.name.partition(":")
        if facts.labels.get(label) == value and facts.most_pico > one.limit_pico - one.spent_pico:
            left = f"{plain(max(one.limit_pico - one.spent_pico, 0))} of today's US$ {_short(one.limit_pico)}"
            words = f"{left} of the {label} {value} are left, this turn may cost {plain(facts.most_pico)}"
            return Reason("budget_label", f"{words}; resets 00:00 UTC")
    return None


def _listed(states: Sequence[BackendState], order: Sequence[str]) -> Iterator[BackendState]:
    """Yield the states that a rule names, each once, in the rule's order."""
    seen: set[str] = set()
    for name in order:
        for state in states:
            if name in (state.residency, state.name) and state.name not in seen:
                seen.add(state.name)
                yield state


def _allowed(facts: Facts, states: Sequence[BackendState], listed: Sequence[BackendState]) -> Iterator[BackendState]:
    """Yield the metered states that no rule names, and that the operator has opened for a time for this class."""
    for state in states:
        given = state.allowance
        if given is None or facts.work_class not in given.classes or state in listed or state.residency != "metered":
            continue
        shut = state.closed is not None and state.closed.code == "shut"
        opened = msgspec.structs.replace(state, closed=None if shut else state.closed, by_allowance=True)
        day, spent, left = state.day_pico, state.spent_pico, given.limit_pico - given.spent_pico
        # A backend that is off has no day's limit; one that is on has, or pays for nothing.
        if (day is None and shut) or (day is not None and spent is not None and left < day - spent):
            opened = msgspec.structs.replace(opened, day_pico=given.limit_pico, spent_pico=given.spent_pico)
        yield opened


def _never_tried(facts: Facts, states: Sequence[BackendState], listed: Sequence[BackendState]) -> Iterator[Refusal]:
    """Yield why the backends that no rule names have not been tried, and the residencies that are not set up."""
    tried = {state.name for state in listed}
    for state in states:
        if state.name not in tried:
            reason = why_not(facts, state)
            # What a rule excludes is not said to fail for what it cannot do: it would not be asked if it could.
            if reason is None or reason.code in UNABLE:
                reason = _SHUT if state.residency == "metered" else _UNLISTED
            elif state.residency == "metered" and state.closed is None and reason.code != "asked":
                reason = _SHUT
            yield Refusal(backend=state.name, reason=reason)
    for residency in RESIDENCIES:
        if not any(state.residency == residency for state in states):
            yield Refusal(backend=residency, reason=_NO_SERVER if residency == "local" else _OFF)


def _short(pico: int) -> str:
    """Return an amount as people write a round one: 2, 0.5."""
    amount: Decimal = usd(pico)
    return f"{amount.normalize():f}"
