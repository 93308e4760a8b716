"""What a host's ledger tells of its charges and finished tasks: a JSON line each (`/v1/charges`, `/v1/finished`).

Keys that this version does not know are a newer agent's, and left alone.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

import msgspec

from farmhand.cost.money import pico
from farmhand.errors import FarmhandError

#: What is above could not be summed exactly in 64 bits, and is no request's.
Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
Moment = Annotated[float, msgspec.Meta(ge=0, lt=1e11)]


class BadLedger(FarmhandError):
    """A host's agent sent a line that is none of its ledger's."""

    code = "agent_error"


def _check_usd(name: str, usd: Decimal | None) -> None:
    if usd is not None and not (usd.is_finite() and 0 <= usd < 1_000_000):
        raise ValueError(f"{name} is {usd}")


class _Line(msgspec.Struct, kw_only=True):
    batch: str = ""
    labels: dict[str, str] = {}
    work_class: str = ""
    model: str
    engine: str
    input_tokens: Count = 0
    output_tokens: Count = 0
    cache_creation_input_tokens: Count = 0
    cache_creation_1h_input_tokens: Count = 0
    cache_read_input_tokens: Count = 0
    cost_usd: Decimal | None = None
    price_version: str | None = None

    def __post_init__(self) -> None:
        _check_usd("cost_usd", self.cost_usd)

    @property
    def tokens(self) -> tuple[int, int, int, int, int]:
        """Fresh input, output, written to the cache, of those for an hour, read from it."""
        return (
            self.input_tokens,
            self.output_tokens,
            self.cache_creation_input_tokens,
            self.cache_creation_1h_input_tokens,
            self.cache_read_input_tokens,
        )

    @property
    def cost_pico(self) -> int | None:
        """What it cost, in pico-dollars; None where no price was known."""
        return None if self.cost_usd is None else pico(self.cost_usd)

    @property
    def label_text(self) -> str:
        """The labels as one text that is equal for equal labels; "" without any."""
        return msgspec.json.encode(self.labels, order="sorted").decode() if self.labels else ""


class Charge(_Line, kw_only=True):
    """One answered request of the API; `created_at` is Unix seconds, `no` its place in the ledger.

    `requests` is more than 1 in what a ledger's first version kept as sums per task.
    """

    no: Count
    requests: Count = 1
    economy: bool = False
    created_at: Moment

    @property
    def number(self) -> int:
        """Its place in the ledger."""
        return self.no


class Finished(_Line, kw_only=True):
    """One finished task without its texts; times are Unix seconds, `done_no` its place in the order of finishing."""

    done_no: Count
    id: str
    state: str
    created_at: Moment
    started_at: Moment | None = None
    finished_at: Moment
    attempts: Count = 0
    retries: Count = 0
    uncertain: Count = 0
    requests: Count = 0
    error: str | None = None
    #: The most that the uncertain requests may have cost; None where that is not known.
    uncertain_usd: Decimal | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_usd("uncertain_usd", self.uncertain_usd)

    @property
    def uncertain_pico(self) -> int | None:
        """`uncertain_usd` in pico-dollars."""
        return None if self.uncertain_usd is None else pico(self.uncertain_usd)

    @property
    def number(self) -> int:
        """Its place in the ledger's order."""
        return self.done_no


_CHARGE = msgspec.json.Decoder(Charge)
_FINISHED = msgspec.json.Decoder(Finished)


def charge(line: bytes) -> Charge:
    """The charge in a line. Raises BadLedger."""
    try:
        return _CHARGE.decode(line)
    except msgspec.DecodeError as error:
        raise BadLedger(f"a charge of the ledger is not of its form: {error}", hint="upgrade: farmhand up") from None


def finished(line: bytes) -> Finished:
    """The finished task in a line. Raises BadLedger."""
    try:
        return _FINISHED.decode(line)
    except msgspec.DecodeError as error:
        raise BadLedger(f"a task of the ledger is not of its form: {error}", hint="upgrade: farmhand up") from None
