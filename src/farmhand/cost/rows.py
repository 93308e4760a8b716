"""What a host's ledger says of its charges and finished tasks: a JSON line each (`/v1/charges`, `/v1/finished`).

Keys that this version does not know are a newer agent's, and left alone.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, TypeVar

import msgspec

from farmhand.core.errors import FarmUnreachable
from farmhand.core.keys import harmless
from farmhand.core.money import pico
from farmhand.wire.schema import LATEST

#: A place in a ledger; and tokens or requests, of which nine thousand million such are summed exactly in 64 bits.
Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
Moment = Annotated[float, msgspec.Meta(ge=0, lt=LATEST)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
#: US$; what is above is no cost, not even of what a ledger's first version kept as one sum.
MAX_COST_USD = 1_000_000
#: Characters of a decoder's words about a line that are shown.
_SHOWN = 200


class BadLedger(FarmUnreachable):
    """A host's agent sent a line that cannot be one of a ledger."""

    code = "bad_answer"


class _LedgerLine(msgspec.Struct, kw_only=True):
    """Times are Unix seconds."""

    batch: Name = ""
    labels: dict[str, str] = {}
    work_class: str = ""
    model: Name
    engine: Name
    created_at: Moment
    cost_usd: Decimal | None = None

    def __post_init__(self) -> None:
        self.cost_pico  # noqa: B018  (checks it)

    @property
    def cost_pico(self) -> int | None:
        """What it cost, in pico-dollars; None where no price was known. ValueError for what is no cost."""
        return _pico("cost_usd", self.cost_usd)

    @property
    def label_text(self) -> str:
        """The labels as one text that is equal for equal labels; "" without any."""
        return msgspec.json.encode(self.labels, order="sorted").decode() if self.labels else ""


class LedgerCharge(_LedgerLine, kw_only=True):
    """One answered request of the API; `number` is its place in the ledger.

    `requests` is more than 1 in what a ledger's first version kept as sums per task.
    """

    number: Number = msgspec.field(name="no")
    requests: Count = 1
    input_tokens: Count = 0
    output_tokens: Count = 0
    cache_creation_input_tokens: Count = 0
    cache_creation_1h_input_tokens: Count = 0
    cache_read_input_tokens: Count = 0
    economy: bool = False


class FinishedTask(_LedgerLine, kw_only=True):
    """One finished task without its texts; `number` is its place in the order of finishing."""

    number: Number = msgspec.field(name="done_no")
    state: Name
    started_at: Moment | None = None
    finished_at: Moment
    retries: Count = 0
    uncertain: Count = 0
    error: Name | None = None
    #: The most that the uncertain requests may have cost; None where that is not known.
    uncertain_usd: Decimal | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.uncertain_pico  # noqa: B018  (checks it)

    @property
    def uncertain_pico(self) -> int | None:
        """`uncertain_usd` in pico-dollars."""
        return _pico("uncertain_usd", self.uncertain_usd)

    @property
    def outcome(self) -> str:
        """Its state, and `refused` where a budget of its batch or of the host's day had no room: it did not begin."""
        return "refused" if self.error == "budget_shared" else self.state

    @property
    def error_text(self) -> str:
        """The code of its error, or ""."""
        return self.error or ""


def _pico(name: str, usd: Decimal | None) -> int | None:
    if usd is None:
        return None
    if not (usd.is_finite() and 0 <= usd < MAX_COST_USD):
        raise ValueError(f"{name} is {usd:.6g}, not 0 to {MAX_COST_USD}")
    return pico(usd)


_Row = TypeVar("_Row", bound=_LedgerLine)
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in (LedgerCharge, FinishedTask)
}


def decode(kind: type[_Row], line: bytes) -> _Row:
    """The charge or the finished task in a line. Raises BadLedger."""
    try:
        row: _Row = _DECODERS[kind].decode(line)
        # A host's names are shown and kept: a key among them is neither.
        for name in row.__struct_fields__ if _is_suspect(line) else ():
            if isinstance(value := getattr(row, name), str | dict):
                setattr(row, name, harmless(value))
        return row
    except RecursionError:
        why = "it is nested too deeply"
    # Bytes that are no UTF-8 are an error of their own, and a number with a huge exponent a third kind.
    except (msgspec.DecodeError, ValueError, ArithmeticError) as error:
        why = str(error)[:_SHOWN]
    what = "a charge" if kind is LedgerCharge else "a task"
    raise BadLedger(f"{what} of the ledger is not of its form: {why}", hint="upgrade: farmhand up")


def _is_suspect(line: bytes) -> bool:
    """Whether a name in it may hold a secret, or hide one by escapes: to look at each takes ten times all else."""
    return b"\\" in line or b"@" in line or b"sk-ant-" in line.lower()
