"""What answers a turn: one backend for each local server, one for the subscription, one for the metered API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

import msgspec

from farmhand.core.task import Usage
from farmhand.gateway.turn import BackendState, Decision, Dialect, LabelBudget, Reason, Turn, WorkClass


class TurnSpent(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer has used so far, as its backend knows it: see `TurnCharge`."""

    model: str
    usage: Usage
    pico: int | None
    terms: str = ""


class BackendReply(Protocol):
    """An open answer, in the dialect that the backend speaks. The server translates it if the client's is another."""

    status: int
    #: What the client gets of the upstream's headers.
    headers: dict[str, str]
    dialect: Dialect
    streamed: bool
    #: Names of what was left out of the request because it only advises.
    omitted: tuple[str, ...]

    def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raise BackendError if it is cut."""

    def spent(self) -> TurnSpent | None:
        """Return what was used so far, also of an answer that failed; None: nothing but time, as it is counted."""


class BackendError(Exception):
    """A backend failed. `status` is what the client is told: 502 before any answer, 400 for what it must not repeat."""

    def __init__(self, message: str, *, status: int = 502, code: str = "api_error", body: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        #: The upstream's own error, to be relayed byte for byte; b"" if there is none.
        self.body = body
        #: Headers that the client gets with it.
        self.headers: dict[str, str] = {}


class NoRoom(Exception):
    """A paid backend has no room for a turn any more: nothing was sent, and the turn has to be decided again."""


#: The code of a backend that has failed before its answer began. What it used by then is not known.
FAILED = "failed"


class Declined(Exception):
    """A backend does not take a turn after all: what it knew at the decision has changed.

    If nothing went to the client, the turn is decided again without it.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.words)
        self.reason = reason


class Backend(Protocol):
    """One place that answers turns."""

    name: str

    def state(self) -> BackendState:
        """Return what is known of it, for the policy, status, doctor and metrics. No I/O."""

    def wake(self) -> None:
        """Look soon whether it can take turns, if it could not: perhaps somebody has just started it."""

    def check(self, turn: Turn) -> object:
        """Raise CannotCarry, with the part's path, if a part of the turn would be lost."""

    def native(self, turn: Turn) -> bool:
        """Return whether its answer to a turn is in the client's dialect already."""

    async def count(self, turn: Turn) -> int | None:
        """Return the input tokens of a Messages request; None if it cannot count them."""

    def answer(self, turn: Turn) -> AbstractAsyncContextManager[BackendReply]:
        """Open the answer to a turn. Raise CannotCarry, Declined or BackendError.

        Leaving the context ends the upstream call.
        """


@runtime_checkable
class PaidBackend(Backend, Protocol):
    """A backend that is paid by the token. Amounts are in pico-dollars. It writes its own rows of the ledger."""

    def least(self, turn: Turn, work_class: WorkClass) -> int | None:
        """Return what the answer alone may cost at the most; None if there is no price. No I/O."""

    async def most(self, turn: Turn, decision: Decision) -> int | None:
        """Return the most that a turn may cost; None if it is not known."""

    def labelled(self, labels: Mapping[str, str]) -> tuple[LabelBudget, ...]:
        """Return the budgets that a turn with these labels has beside the others."""

    async def fitting(self, turn: Turn, decision: Decision) -> int:
        """Return the most output tokens for which a turn has room; 0 if it has none, or for next to nothing."""
