"""What `farmhand batch` says before it costs: tasks, tokens, the price here and elsewhere; and the question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from farmhand.batch.estimate import BatchEstimate, PlannedPrice, TokenCounter, estimate
from farmhand.batch.journal import Journal
from farmhand.cli.say import ask
from farmhand.core.money import PICO_PER_USD, pico_of
from farmhand.core.prices import price_table
from farmhand.core.readable import counted, dollars, money
from farmhand.core.settings import Settings


def look(journal: Journal, states: Sequence[int], conf: Settings, key: str) -> BatchEstimate:
    """Return what the lines in these states are, and their price. The provider counts a few of them, if it answers."""
    counter = TokenCounter(key, conf.upstream_url)
    return estimate(lambda: journal.bodies(states), price_table(conf.prices_path), counter)


def as_document(found: BatchEstimate, max_usd: float | None) -> dict[str, Any]:
    """Return the estimate for JSON."""
    return {
        "dry_run": True,
        "tasks": found.tasks,
        "input_tokens": found.tokens,
        "counted_tasks": found.counted,
        "uncounted": found.uncounted,
        "most_output_tokens": found.most_output,
        "open_tasks": found.open_tasks,
        "max_usd": max_usd,
        "prices": [
            {
                "model": one.model or None,
                "economy": one.economy,
                "sent_usd": _usd(one.sent_pico),
                "most_usd": _usd(one.most_pico),
            }
            for one in found.prices
        ],
    }


def in_one_line(found: BatchEstimate, max_usd: float | None) -> str:
    """Return the one line about what comes: tasks, tokens, the price, and beside it the price in other ways.

    A `max_usd` that is less than it may cost is named.
    """
    others = ", ".join(_elsewhere(one, first=bool(found.open_tasks)) for one in found.prices[1:])
    beside = f" ({others})" if others else ""
    limit = ""
    if max_usd is not None and (found.most_pico is None or found.most_pico > pico_of(max_usd)):
        limit = f"; --max-usd is {dollars(max_usd)}"
    return f"{counted(found.tasks, 'task')}, {_tokens(found)}: {_price(found)}{beside}{limit}"


def _tokens(found: BatchEstimate) -> str:
    how = "counted by the API"
    if not found.counted:
        how = f"estimated{f': {found.uncounted}' if found.uncounted else ''}"
    elif found.counted < found.tasks:
        how = f"estimated from {found.counted} that the API counted"
    return f"{counted(found.tokens, 'token')} to read ({how})"


def _price(found: BatchEstimate) -> str:
    own = found.own
    if own.sent_pico is None or own.most_pico is None:
        return "no price is known for a model of it"
    if found.open_tasks:
        many = counted(found.open_tasks, "task with tools makes", "tasks with tools make")
        return f"{money(own.sent_pico)} for the first requests; {many} more: only --max-usd limits them"
    tokens = counted(found.most_output, "token")
    return f"{money(own.sent_pico)}, and at most {money(own.most_pico)} if the answers take all {tokens}"


def _elsewhere(one: PlannedPrice, *, first: bool) -> str:
    """Return the most that it can cost in another way; with `first` what the first requests cost."""
    name = "with --economy" if one.economy else one.model
    amount = one.sent_pico if first else one.most_pico
    return f"{name} {'?' if amount is None else money(amount)}"


def confirm(found: BatchEstimate, confirm_usd: float, max_usd: float | None) -> None:
    """Ask before a batch that may cost more than `confirm_usd`. Raise UsageError where there is no terminal."""
    most = found.most_pico
    if max_usd is not None:
        limit = pico_of(max_usd)
        most = limit if most is None else min(most, limit)
    if most is not None and most <= pico_of(confirm_usd):
        return
    what = "what it may cost is not known" if most is None else f"it may cost up to {money(most)}"
    ask(f"{what}, and confirm_usd is {dollars(confirm_usd)}. Begin?", declined="no task was sent")


def _usd(amount: int | None) -> float | None:
    return None if amount is None else amount / PICO_PER_USD
