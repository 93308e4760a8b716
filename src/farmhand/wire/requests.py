"""The bodies of the wire's requests, as the agent reads them. An unknown field is refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from farmhand.core import pots
from farmhand.core.money import pico
from farmhand.core.rules import MAX_USD, is_budget
from farmhand.core.task import DrainMode

T = TypeVar("T")
#: The most ids of one `POST /v1/tasks/cancel`.
MAX_IDS = 1000


class Submission(msgspec.Struct, Generic[T], forbid_unknown_fields=True):
    """The body of `POST /v1/tasks`."""

    tasks: list[T]


class Funding(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The body of `PUT /v1/key?pot=NAME`: what is in the pot, and which pot pays when it is spent; "" for none.

    See core.pots. Without `amount_usd` nothing is counted.
    """

    amount_usd: Decimal | None = None
    cycle_day: int | None = None
    expires: str | None = None
    next: str = ""

    def __post_init__(self) -> None:
        if self.amount_usd is not None and pots.amount(self.amount_usd) is None:
            raise ValueError("amount_usd is not US$ above 0 in micro-dollars")
        if broken := pots.check(self.cycle_day, self.expires, "park", funded=self.amount_usd is not None):
            raise ValueError(broken)


class TurnLimits(msgspec.Struct):
    """The limits of a batch in a turn."""

    max_usd: float | None = None
    concurrency: int | None = None


class TurnOrder(msgspec.Struct, kw_only=True):
    """The stdin of `jada-agent turn`; see wire.turn."""

    batch: str
    key: str | list[dict[str, Any]] | None = None
    tasks: list[dict[str, Any]] = []
    cancel: list[str] = []
    stop: bool = False
    after: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    low: int = 0
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0
    limits: TurnLimits | None = None


class TaskCall(msgspec.Struct, kw_only=True):
    """The stdin of `jada-agent task`: the task, and the key or those of pots, unless only its outcome is predicted."""

    task: msgspec.Raw
    key: str | list[dict[str, Any]] = ""
    check: bool = False


class Cancellation(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/tasks/cancel`."""

    ids: list[str]

    def __post_init__(self) -> None:
        if len(self.ids) > MAX_IDS:
            raise ValueError(f"a request takes up to {MAX_IDS} ids, not {len(self.ids)}")


class DrainOrder(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `PUT /v1/drain`."""

    mode: DrainMode


class BatchLimits(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `PUT /v1/batches/{batch}`: the batch's limits on its cost and on its concurrently running tasks."""

    max_usd: Decimal | None = None
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None

    def __post_init__(self) -> None:
        if self.max_usd is not None and not is_budget(self.max_usd):
            raise ValueError(f"max_usd must be above 0 and at most {MAX_USD}")

    @property
    def max_pico(self) -> int | None:
        """Return `max_usd` in pico-dollars."""
        return None if self.max_usd is None else pico(self.max_usd)
