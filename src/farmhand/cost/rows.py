"""The rows of a host's ledger: charges and finished tasks, one JSON line each (`/v1/charges`, `/v1/finished`).

Unknown keys come from a newer agent and are ignored.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, TypeVar

import msgspec

from farmhand.core.errors import FarmUnreachable
from farmhand.core.keys import harmless
from farmhand.core.money import pico
from farmhand.wire.schema import LATEST

#: A position in a ledger; a count of tokens or requests, of which nine thousand million sum exactly in 64 bits.
Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
Moment = Annotated[float, msgspec.Meta(ge=0, lt=LATEST)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
#: US$. A larger value is no valid cost, not even for the sums of a ledger's first version.
MAX_COST_USD = 1_000_000


class BadLedger(FarmUnreachable):
    """An error in the ledger data of a host's agent: the line cannot be valid."""

    code = "bad_answer"


class _LedgerLine(msgspec.Struct, kw_only=True):
    """The fields common to both kinds of rows. Times are Unix seconds; an unknown cost is None."""

    batch: Name = ""
    labels: dict[str, str] = {}
    work_class: str = ""
    pot: Name = ""
    model: Name
    engine: Name
    created_at: Moment
    cost_usd: Decimal | None = None

    def __post_init__(self) -> None:
        _check("cost_usd", self.cost_usd)

    @property
    def cost_pico(self) -> int | None:
        """Return the cost in pico-dollars."""
        return None if self.cost_usd is None else pico(self.cost_usd)

    @property
    def label_text(self) -> str:
        """Return the labels as text, equal for equal labels; "" if there are none."""
        return msgspec.json.encode(self.labels, order="sorted").decode() if self.labels else ""


class LedgerCharge(_LedgerLine, kw_only=True):
    """An API request, by its position in the ledger. A ledger's first version stored sums of `requests` by task."""

    number: Number = msgspec.field(name="charge_id")
    requests: Count = 1
    input_tokens: Count = 0
    output_tokens: Count = 0
    cache_creation_input_tokens: Count = 0
    cache_creation_1h_input_tokens: Count = 0
    cache_read_input_tokens: Count = 0
    economy: bool = False
    #: Of a turn of the gateway only: what it would have cost at list price, if it stayed on the operator's machine, and
    #: what may have been charged beside its cost, at the most.
    list_usd: Decimal | None = None
    held_usd: Decimal | None = None

    def __post_init__(self) -> None:
        _check("cost_usd", self.cost_usd)
        _check("list_usd", self.list_usd)
        _check("held_usd", self.held_usd)


class FinishedTask(_LedgerLine, kw_only=True):
    """A finished task, by its position in the order of finishing. `uncertain_usd`: the most of what is uncertain."""

    number: Number = msgspec.field(name="finish_seq")
    state: Name
    started_at: Moment | None = None
    finished_at: Moment
    retries: Count = 0
    uncertain: Count = 0
    error: Name | None = None
    uncertain_usd: Decimal | None = None

    def __post_init__(self) -> None:
        _check("cost_usd", self.cost_usd)
        _check("uncertain_usd", self.uncertain_usd)

    @property
    def uncertain_pico(self) -> int | None:
        """Return `uncertain_usd` in pico-dollars."""
        return None if self.uncertain_usd is None else pico(self.uncertain_usd)

    @property
    def outcome(self) -> str:
        """Return the state, or `refused` if the task did not start because a batch or day budget was full."""
        return "refused" if self.error == "budget_shared" else self.state

    @property
    def error_text(self) -> str:
        """Return the error code, or ""."""
        return self.error or ""


def _check(name: str, usd: Decimal | None) -> None:
    if usd is not None and not (usd.is_finite() and 0 <= usd < MAX_COST_USD):
        raise ValueError(f"{name} is {usd:.6g}, not 0 to {MAX_COST_USD}")


_Row = TypeVar("_Row", bound=_LedgerLine)
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in (LedgerCharge, FinishedTask)
}


def decode(kind: type[_Row], line: bytes) -> _Row:
    """Decode a charge or a finished task. Raises BadLedger."""
    try:
        row: _Row = _DECODERS[kind].decode(line)
        # Names from a host are shown and stored, so a key in one must be redacted.
        for name in row.__struct_fields__ if _is_suspect(line) else ():
            if isinstance(value := getattr(row, name), str | dict):
                setattr(row, name, harmless(value))
        return row
    except RecursionError:
        why = "it is nested too deeply"
    # Invalid UTF-8 raises its own error, and a number with a huge exponent raises a third kind.
    except (msgspec.DecodeError, ValueError, ArithmeticError) as error:
        why = str(error)[:200]
    what = "a charge" if kind is LedgerCharge else "a task"
    raise BadLedger(f"{what} of the ledger is not of its form: {why}", hint="upgrade: farmhand up")


def _is_suspect(line: bytes) -> bool:
    """Return whether the line may hold a secret, even escaped. Checking every name takes ten times all the rest."""
    return b"\\" in line or b"@" in line or b"sk-ant-" in line.lower()
