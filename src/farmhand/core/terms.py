"""What beside its tokens decides the price of an answer, as the answer's own `usage` says it.

Source: the provider's pages on data residency (`inference_geo`), fast mode (`speed`) and service tiers, read 2026-11.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import msgspec

from farmhand.core.errors import NotConfigured

_MAX_FACTOR = 100


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The terms of one answer; "" is what the answer did not say.

    `unknown` names what it said and is not to be believed, or left out and has to say: its cost is not known.
    `estimated`: it broke off, and its output tokens are estimated, rather high, from the text that had come.
    """

    inference_geo: str = ""
    speed: str = ""
    service_tier: str = ""
    unknown: tuple[str, ...] = ()
    estimated: bool = False

    @property
    def text(self) -> str:
        """In one line for the ledger, only what is not the standard; "" for an answer on the standard terms."""
        said = [f"{name}={value}" for name in KINDS if (value := getattr(self, name)) not in ("", *USUAL[name])]
        said += [f"unknown={','.join(self.unknown)}"] if self.unknown else []
        return " ".join([*said, "output=estimated"] if self.estimated else said)


#: The fields of `usage` that change a price.
KINDS = ("inference_geo", "speed", "service_tier")
#: The values that change nothing; `not_available`: an older model, which cannot be bound to a place.
USUAL = {"inference_geo": ("global", "not_available"), "speed": ("standard",), "service_tier": ("standard", "batch")}
STANDARD = Terms()
#: What an answer may cost at the most beside its tokens: a workspace's own default, which no request has to ask for.
#: What else would cost more (`speed`, another tier) the meter does not let a request ask for.
DEAREST = Terms(inference_geo="us")


def factors_of(written: dict[str, dict[str, Decimal]], where: str) -> dict[str, dict[str, Fraction]]:
    """The factors of a price file, by KINDS and value. NotConfigured says what is wrong in the file `where`."""
    for kind, values in written.items():
        if kind not in KINDS:
            raise NotConfigured(f"{where}: factors: {kind} is none of {', '.join(KINDS)}", hint="see docs/cost.md")
        for value, factor in values.items():
            if not (factor.is_finite() and 0 < factor <= _MAX_FACTOR):
                message = f"{where}: factors: {kind}: {value} is {factor}, not above 0 and at most {_MAX_FACTOR}"
                raise NotConfigured(message, hint="see docs/cost.md")
    return {kind: {name: Fraction(factor) for name, factor in written.get(kind, {}).items()} for kind in KINDS}
