"""Money: integer pico-dollars (1e-12 US$) in sums and in the ledger, Decimal US$ at the edges, never a float.

One token at the cheapest price costs 10,000 pico-dollars, 5,000 at half price; micro-dollars would be too coarse. A
signed 64-bit integer holds 9.2 million US$, so SQLite's own sums are exact.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

PICO_PER_USD = 10**12


def usd(pico: int) -> Decimal:
    """Return `pico` in US$, exactly."""
    return Decimal(pico).scaleb(-12)


def pico(usd: Decimal) -> int:
    """Return `usd` in pico-dollars; fractions are rounded half to even."""
    return int((usd * PICO_PER_USD).to_integral_value(ROUND_HALF_EVEN))


def pico_of(amount: float | str | Decimal) -> int:
    """Return US$ as JSON and settings have them in pico-dollars. The decimal text of a float is what is meant."""
    return pico(Decimal(str(amount)))


def plain(pico: int) -> str:
    """Return `pico` in US$, exactly, as people write it: at least cents, no exponent, no trailing zeros."""
    sign, (whole, rest) = "-" if pico < 0 else "", divmod(abs(pico), PICO_PER_USD)
    return f"{sign}{whole}.{f'{rest:012d}'.rstrip('0'):0<2}"
