"""Task tokens: each opens one grant and is revoked when its task ends."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import msgspec

from farmhand.core.keys import fingerprint
from farmhand.core.task import Usage
from farmhand.core.terms import STANDARD, Terms
from farmhand.core.trace_context import TraceContext
from farmhand.meter.budget import Budget
from farmhand.meter.errors import ApiError

#: The beta without which the API takes no bearer token. Source: the provider's SDK 2.12.0, `lib/credentials`.
BEARER_BETA = "oauth-2025-04-20"


class MessageRequest(msgspec.Struct, frozen=True):
    """A checked request: `body` is what to send, `max_tokens` limits the answer including its thinking.

    `tokens` is the maximum number of input tokens, or None if only the API can count them (a PDF). `written` is how
    long the prompt cache may keep them: "" (not at all), "5m" or "1h".
    """

    body: bytes
    max_tokens: int
    tokens: int | None
    written: str


class RequestPolicy(Protocol):
    """The requests that a grant may make, and what of their headers passes. The module `policy` is that of tasks."""

    def read(self, body: bytes, *, model: str, max_tokens: int) -> MessageRequest:
        """Return the checked request in `body`. Raise ApiError if it may not be made."""

    def forwarded(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the client's `headers` (names in lower case) that may pass; its credentials never do."""


class RequestSpan(Protocol):
    """The span of one request to the API."""

    def charged(self, usage: Usage, cost_pico: int | None, stop_reason: str) -> None:
        """Note an answer, complete or not; the cost is None if it is unknown."""

    def end(self, error: str = "", retries: int = 0) -> None:
        """End it; `error` is a code, "" for none."""


class GrantTrace(Protocol):
    """The trace that a grant's requests belong to; see farmhand.telemetry.spans."""

    context: TraceContext | None

    def request(self, model: str, max_tokens: int) -> RequestSpan:
        """Return the span of a request that begins now."""


class Key:
    """A metered API key in memory, or a `bearer` token. Its repr is its fingerprint, and it cannot be pickled.

    A bearer token lasts for minutes or hours. `renew` gives the same Key the next one, so that running tasks use it
    from their next request on; the fingerprint stays that of the first.
    """

    __slots__ = ("_value", "bearer", "fingerprint")

    def __init__(self, value: str, *, bearer: bool = False, renews: str = "") -> None:
        self._value = value
        self.bearer = bearer
        self.fingerprint = renews or fingerprint(value)

    def reveal(self) -> str:
        """Return the key itself."""
        return self._value

    def renew(self, value: str) -> None:
        """Use `value` from now on."""
        self._value = value

    def signed(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the request's `headers` (names in lower case) with the key, and with no other credential."""
        if not self.bearer:
            return {**headers, "x-api-key": self._value}
        betas = ",".join(filter(None, (headers.get("anthropic-beta"), BEARER_BETA)))
        return {**headers, "authorization": f"Bearer {self._value}", "anthropic-beta": betas}

    def __repr__(self) -> str:
        return f"Key({self.fingerprint})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Key is not serialised")


async def _nobody(_request: int, _most_pico: int | None) -> None:
    """Ignore a reservation."""


#: Requests per task at a time; more wait. This limits the memory that their bodies take in the agent.
_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Charge:
    """An answered request: its usage, and the API's request id ("" if it gave none).

    If not `complete`, the answer broke off: `usage` is what the API had reported so far, with the output estimated from
    the received text. `terms` are the other conditions of its price.
    """

    usage: Usage
    request_id: str = ""
    complete: bool = True
    terms: Terms = STANDARD


@dataclass(slots=True)
class Grant:
    """The permissions of one task token, and its use so far.

    Each request holds `semaphore`. `started` counts requests, `retries` repeated ones. `charges` are the answered
    requests in order. `uncertain` counts requests that the API may have charged for at an unknown cost: sent, then cut,
    timed out or abandoned before the end of the answer. `problem` is the last request's error, if any, and `again_at`
    when that is retried (Unix time; 0: unknown here). `cut_short`: the last answer broke off or reached `max_tokens`.
    `calls` are the open requests. `on_charge` is called after each charge. `policy` None is that of tasks. `trace` None
    makes no spans.

    `sent` counts requests that were sent; a repeated one after a loss counts again. `held` has the worst-case cost of
    requests with unknown cost, open or lost: number → pico-dollars, None if the price is unknown. `on_hold` is awaited
    with both before a request is sent; if it raises, the request is not sent.
    """

    task_id: str
    key: Key
    model: str
    max_tokens: int = 128_000
    budgets: tuple[Budget, ...] = ()
    semaphore: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE), repr=False)
    started: int = 0
    charges: list[Charge] = field(default_factory=list)
    uncertain: int = 0
    retries: int = 0
    problem: ApiError | None = None
    again_at: float = 0.0
    cut_short: bool = False
    revoked: bool = False
    calls: set[asyncio.Task[Any]] = field(default_factory=set, repr=False)
    on_charge: Callable[[], object] = field(default=lambda: None, repr=False)
    held: dict[int, int | None] = field(default_factory=dict)
    sent: int = 0
    on_hold: Callable[[int, int | None], Awaitable[None]] = field(default=_nobody, repr=False)
    policy: RequestPolicy | None = None
    trace: GrantTrace | None = None


class Grants:
    """The valid task tokens. Only their hashes are kept, so that a look-up's timing reveals nothing."""

    def __init__(self) -> None:
        self._by_hash: dict[bytes, Grant] = {}

    def issue(self, grant: Grant) -> str:
        """Return a new token for `grant`: `jt-` and 43 characters of URL-safe base64."""
        token = "jt-" + secrets.token_urlsafe(32)
        self._by_hash[self._hash(token)] = grant
        return token

    def find(self, token: str) -> Grant | None:
        """Return the grant of `token`, or None if it is unknown or revoked."""
        return self._by_hash.get(self._hash(token))

    async def revoke(self, token: str) -> None:
        """Revoke `token` and cancel its open calls. When this returns, all of their cost is charged.

        Revoking it again does nothing.
        """
        if (grant := self._by_hash.pop(self._hash(token), None)) is not None:
            grant.revoked = True
            for call in grant.calls:
                call.cancel()
            if grant.calls:
                await asyncio.wait(grant.calls)

    def __len__(self) -> int:
        return len(self._by_hash)

    @staticmethod
    def _hash(token: str) -> bytes:
        return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
