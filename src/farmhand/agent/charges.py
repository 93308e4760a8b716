"""From what the meter counted of an attempt to what the ledger records of it."""

from __future__ import annotations

import logging
from dataclasses import replace

from farmhand.agent.store.commands import AttemptEnd, ChargeRow
from farmhand.core.prices import PriceTable
from farmhand.meter import Grant

log = logging.getLogger("jada-agent")


def charges_of(grant: Grant, prices: PriceTable) -> list[ChargeRow]:
    """The answers to `grant` so far, priced on their terms. Of one that broke off what had passed is charged."""
    return [
        ChargeRow(
            request_id=charge.request_id,
            model=grant.model,
            usage=charge.usage,
            cost_pico=prices.cost(grant.model, charge.usage, charge.terms),
            terms=charge.terms.text,
        )
        for charge in grant.charges
    ]


def uncounted(end: AttemptEnd) -> AttemptEnd:
    """The same attempt where the ledger will not take what it used: all of it stays reserved at the most."""
    return replace(end, charges=(), uncertain=end.uncertain + len(end.charges), held=None)


def attempt_end(grant: Grant, prices: PriceTable, outcome: str) -> AttemptEnd:
    """How the attempt that used `grant` ended. Where its charges cannot even be read, all of it stays reserved."""
    end = AttemptEnd(
        outcome=outcome,
        retries=grant.retries,
        uncertain=grant.uncertain,
        held=dict(grant.held),
        price_version=prices.version,
    )
    try:
        return replace(end, charges=charges_of(grant, prices))
    except Exception as error:
        log.exception("task %s: its charges cannot be read: %s", grant.task_id, type(error).__name__)
        return replace(end, uncertain=grant.uncertain + len(grant.charges), held=None)
