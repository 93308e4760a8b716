"""An answer of the provider's API on its way to the client."""

from __future__ import annotations

from collections.abc import AsyncIterator

from farmhand.gateway.backends import BackendError, TurnSpent
from farmhand.gateway.turn import Dialect
from farmhand.meter.errors import ApiError
from farmhand.meter.exchange import Exchange

#: Headers of an answer that the client gets, beside `anthropic-*`. What the provider says of its own limits is left
#: out: here the operator's are in force.
_PASSED = ("request-id", "retry-after")
_LIMITS = "anthropic-ratelimit-"


class MeteredReply:
    """An open answer of the API; see `BackendReply`."""

    dialect: Dialect = "messages"

    def __init__(self, exchange: Exchange, omitted: tuple[str, ...]) -> None:
        self.status = exchange.status
        self.headers = passed(exchange.headers)
        self.streamed = exchange.streamed
        self.omitted = omitted
        self._exchange = exchange

    def spent(self) -> TurnSpent | None:
        """Implement `BackendReply`: the backend writes its own rows."""
        return None

    async def pieces(self) -> AsyncIterator[bytes]:
        """Implement `BackendReply`."""
        try:
            while piece := await self._exchange.piece():
                yield piece
        except ApiError as problem:
            raise BackendError(problem.message) from None


def passed(headers: dict[str, str]) -> dict[str, str]:
    """Return the headers of an answer that the client gets."""
    return {
        name: value
        for name, value in headers.items()
        if name in _PASSED or (name.startswith("anthropic-") and not name.startswith(_LIMITS))
    }
