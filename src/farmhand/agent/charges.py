"""From what the meter counted of an attempt to what the ledger records of it."""

from __future__ import annotations

from farmhand.agent.transitions import AttemptEnd, Charge
from farmhand.cost.prices import PriceTable
from farmhand.meter import Grant


def charges_of(grant: Grant, prices: PriceTable) -> list[Charge]:
    """The answers to `grant` so far, priced. Of one that broke off what the API had told is charged."""
    return [
        Charge(
            request_id=charge.request_id,
            model=grant.model,
            usage=charge.usage,
            cost_pico=prices.cost(grant.model, charge.usage),
        )
        for charge in grant.charges
    ]


def uncounted(end: AttemptEnd) -> AttemptEnd:
    """The same attempt where the ledger will not take what it used: all of it stays reserved at the most."""
    uncertain = end.uncertain + len(end.charges)
    return AttemptEnd(
        outcome="agent_error", retries=end.retries, uncertain=uncertain, price_version=end.price_version, held=None
    )


def attempt_end(grant: Grant, prices: PriceTable, outcome: str) -> AttemptEnd:
    """How the attempt that used `grant` ended."""
    return AttemptEnd(
        outcome=outcome,
        charges=charges_of(grant, prices),
        retries=grant.retries,
        uncertain=grant.uncertain,
        held=dict(grant.held),
        price_version=prices.version,
    )
