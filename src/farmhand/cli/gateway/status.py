"""`farmhand gateway status`: the running gateway, its local servers, and what became of its turns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from farmhand.cli.gateway.allow import text
from farmhand.cli.gateway.verb import gateway_verb
from farmhand.cli.verb import VerbResult
from farmhand.core.money import plain
from farmhand.core.readable import counted, local_time
from farmhand.gateway import config, control


@gateway_verb("status")
def command(path: Path, *, as_json: bool) -> VerbResult:
    """Show the gateway's state. Exit 4: none runs; 3: none ever did, so that there is no token."""
    found = control.ask(config.load(path), "GET", "/farmhand/v1/status")
    # `version` is that of this document, as for every verb.
    shown = {"gateway_version" if name == "version" else name: value for name, value in found.items()}
    return VerbResult(shown, "\n".join(_lines(found)))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    since = local_time(found["started_at"])
    stops = ", stops" if found["draining"] else ""
    turns = counted(found["open_turns"], "turn")
    yield f"gateway {found['version']} on {found['listen']} since {since}, {turns} open{stops}"
    for state in found["states"]:
        if state["closed"]:
            yield f"{state['name']}: {state['closed']['words']}"
        if state["allowance"]:
            yield text(state["allowance"])
        if state["closed"]:
            continue
        used = f", {state['used']:.0%} of its window used" if state["used"] is not None else ""
        context = f", {state['context']:,} tokens" if state["context"] else ""
        seen = ", sees images" if state["vision"] else ""
        if state["residency"] == "metered":
            seen = f", US$ {plain(state['spent_pico'])} of {plain(state['day_pico'])} used today"
        yield f"{state['name']}: {state['model']}{context}{seen}{used}"
        for label in state.get("labels", ()):  # a gateway that runs may be older
            spent, limit = plain(label["spent_pico"]), plain(label["limit_pico"])
            yield f"  {label['name'].replace(':', ' ')}: US$ {spent} of {limit} used today"
    if found["terms"]:
        yield f"subscription: {found['terms']}"
    for turn in found["turns"]:
        yield f"{counted(turn['turns'], turn['work_class'] + ' turn')} {turn['outcome']} ({turn['backend']})"
