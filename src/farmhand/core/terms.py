"""The terms beside the tokens that determine the price of an answer, as reported in its `usage`.

Source: the provider's pages on data residency (`inference_geo`), fast mode (`speed`) and service tiers, read 2026-11.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import msgspec

from farmhand.core.errors import NotConfigured

_MAX_FACTOR = 100


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The terms of one answer; "" means that the answer did not report the field.

    `unknown` names the fields that are implausible, or missing although required: the cost is then unknown.
    `estimated`: the answer was cut off, and its output tokens are estimated, rather high, from the text that arrived.
    """

    inference_geo: str = ""
    speed: str = ""
    service_tier: str = ""
    unknown: tuple[str, ...] = ()
    estimated: bool = False

    @property
    def text(self) -> str:
        """Return the non-standard terms on one line for the ledger; "" for an answer on standard terms."""
        said = [f"{name}={value}" for name in KINDS if (value := getattr(self, name)) not in ("", *USUAL[name])]
        said += [f"unknown={','.join(self.unknown)}"] if self.unknown else []
        return " ".join([*said, "output=estimated"] if self.estimated else said)


#: The fields of `usage` that change a price.
KINDS = ("inference_geo", "speed", "service_tier")
#: The values that do not change a price. `not_available`: an older model, which has no choice of location.
USUAL = {"inference_geo": ("global", "not_available"), "speed": ("standard",), "service_tier": ("standard", "batch")}
STANDARD = Terms()
#: The most expensive terms possible: a workspace's own default, which applies without a request for it. The meter
#: rejects requests for anything else that costs more (`speed`, another tier).
DEAREST = Terms(inference_geo="us")


def factors_of(written: dict[str, dict[str, Decimal]], where: str) -> dict[str, dict[str, Fraction]]:
    """Return the factors of a price file, by KINDS and value. Raise NotConfigured with the error and `where`."""
    for kind, values in written.items():
        if kind not in KINDS:
            raise NotConfigured(f"{where}: factors: {kind} is none of {', '.join(KINDS)}", hint="see docs/cost.md")
        for value, factor in values.items():
            if not (factor.is_finite() and 0 < factor <= _MAX_FACTOR):
                message = f"{where}: factors: {kind}: {value} is {factor}, not above 0 and at most {_MAX_FACTOR}"
                raise NotConfigured(message, hint="see docs/cost.md")
    return {kind: {name: Fraction(factor) for name, factor in written.get(kind, {}).items()} for kind in KINDS}
