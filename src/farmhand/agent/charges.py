"""From what the meter counted of an attempt to what the ledger records of it."""

from __future__ import annotations

from farmhand.agent.transitions import AttemptEnd, Charge
from farmhand.cost.prices import PriceTable
from farmhand.meter import Grant


def charges_of(grant: Grant, prices: PriceTable) -> list[Charge]:
    """The answers to `grant` so far, priced on their terms. Of one that broke off what had passed is charged."""
    return [
        Charge(
            request_id=charge.request_id,
            model=grant.model,
            usage=charge.usage,
            cost_pico=prices.cost(grant.model, charge.usage, charge.terms),
            terms=charge.terms.text,
        )
        for charge in grant.charges
    ]


def attempt_end(grant: Grant, prices: PriceTable, outcome: str) -> AttemptEnd:
    """How the attempt that used `grant` ended."""
    return AttemptEnd(
        outcome=outcome,
        charges=charges_of(grant, prices),
        retries=grant.retries,
        uncertain=grant.uncertain,
        price_version=prices.version,
    )
