"""From what the meter counted of an attempt to what the ledger records of it."""

from __future__ import annotations

from farmhand.agent.transitions import AttemptEnd, Charge
from farmhand.cost.prices import PriceTable
from farmhand.meter import Grant


def attempt_end(grant: Grant, prices: PriceTable, outcome: str, *, cut: bool) -> AttemptEnd:
    """How the attempt that used `grant` ended. `cut`: it was ended from outside, maybe in the middle of a request."""
    charges = [
        Charge(request_id="", model=grant.model, usage=usage, cost_pico=prices.cost(grant.model, usage))
        for usage in grant.exchanges
    ]
    return AttemptEnd(
        outcome=outcome,
        charges=charges,
        retries=grant.retries,
        uncertain=grant.started - len(grant.exchanges) if cut else 0,
        price_version=prices.version,
    )
