"""`farmhand gateway explain`: why a turn went where it went, from the ledger; or where one would go."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from farmhand.cli.gateway.verb import gateway_verb
from farmhand.cli.verb import VerbResult
from farmhand.core.errors import FarmUnreachable, UsageError
from farmhand.core.prices import price_table
from farmhand.gateway import config, control, explain, ledger
from farmhand.gateway.turn import BackendState

_CLASSES = click.Choice(config.CLASSES)


@gateway_verb("explain", priced=True)
@click.argument("decision", required=False, metavar="[DECISION]")
@click.option("--last", is_flag=True, help="The last decision. The same as no argument at all.")
@click.option("--class", "work_class", type=_CLASSES, help="Not a turn that was: one of this class.")
@click.option("--tools", type=click.IntRange(min=0), default=0, metavar="N", help="With --class: its number of tools.")
@click.option("--tokens", type=click.IntRange(min=0), default=0, metavar="N", help="With --class: its input tokens.")
def command(
    path: Path,
    *,
    as_json: bool,
    decision: str | None,
    last: bool,
    work_class: str | None,
    tools: int,
    tokens: int,
    prices: Path,
) -> VerbResult:
    """Explain DECISION, an id such as fh-8f2c that an answer's header or advice names. It may be cut short."""
    if work_class is None and (tools or tokens):
        raise UsageError("--tools and --tokens are of a turn that would be", hint="add --class")
    if bool(decision) + last + (work_class is not None) > 1:
        raise UsageError("an id, --last and --class exclude each other", hint="give one of them")
    used: list[ledger.TurnCharge] = []
    if work_class is not None:
        kind = msgspec.convert(work_class, config.WorkClass)
        settings = config.load(path)
        table, states = price_table(prices), _states(settings)
        found = explain.what_if(settings, states, work_class=kind, tools=tools, tokens=tokens, prices=table)
    else:
        recorded = ledger.read(ledger.default_path(), decision or "")
        if recorded is None:
            what = f"no decision, or more than one, begins with {decision[:40]!r}" if decision else "no decision yet"
            raise UsageError(what, hint="an answer's header x-farmhand-decision has its id")
        found = recorded
        used = ledger.charges(ledger.default_path(), found.decision.id)
    return VerbResult(explain.document(found, used), explain.text(found, used))


def _states(settings: config.GatewayConfig) -> tuple[BackendState, ...] | None:
    """Return the states of the running gateway's backends; None if none runs."""
    try:
        known = control.ask(settings, "GET", "/farmhand/v1/status")["states"]
    except FarmUnreachable:
        return None
    return msgspec.convert(known, tuple[BackendState, ...])
