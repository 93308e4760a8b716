"""Who may call: a task token opens one grant, and dies with its task."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from farmhand.core.keys import fingerprint
from farmhand.core.task import Usage
from farmhand.core.terms import STANDARD, Terms
from farmhand.meter.budget import Budget
from farmhand.meter.errors import ApiError


class Key:
    """A metered API key in memory. It prints as its fingerprint and cannot be pickled."""

    __slots__ = ("_value", "fingerprint")

    def __init__(self, value: str) -> None:
        self._value = value
        self.fingerprint = fingerprint(value)

    def reveal(self) -> str:
        """The key itself, for the one header that needs it."""
        return self._value

    def __repr__(self) -> str:
        return f"Key({self.fingerprint})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Key is not serialised")


async def _nobody(_request: int, _most_pico: int | None) -> None:
    """Nobody keeps what is reserved."""


#: Requests of one task that are under way at once; more wait. It bounds what their bodies take of the agent's memory.
_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Charge:
    """One answered request: its usage, and the API's own id of it ("" where it gave none).

    Not `complete`: the answer broke off, and `usage` is what the API had told until then, its output estimated from
    what had passed. `terms` are what else decides its price.
    """

    usage: Usage
    request_id: str = ""
    complete: bool = True
    terms: Terms = STANDARD


@dataclass(slots=True)
class Grant:
    """What one task token allows, and what was used through it.

    `max_tokens` bounds each answer, `budgets` the cost; `turns` is held by each request of a client; `started` counts
    requests. `charges` are the answered requests in order. `uncertain` counts requests that the API may have charged
    for without our knowing how much: sent, and then cut, timed out or left before their answer's end. `retries` counts
    requests sent again; `problem` is the error that the last request met, if it did, and `again_at` when what met it is
    tried again (Unix time; 0: not at a time that is known here); `cut_short`: the last answer broke off or met
    `max_tokens`; `revoked`: its token is used; `calls` are under way. `on_charge` is called after each charge.

    `sent` counts what has left; what is sent again after it was lost counts again. `held` has what those of unknown
    cost may have cost, under way or lost: number → pico-dollars, None where the price is unknown. `on_hold` is awaited
    with both before a request leaves; what it raises keeps it here.
    """

    task_id: str
    key: Key
    model: str
    max_tokens: int = 128_000
    budgets: tuple[Budget, ...] = ()
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE), repr=False)
    started: int = 0
    charges: list[Charge] = field(default_factory=list)
    uncertain: int = 0
    retries: int = 0
    problem: ApiError | None = None
    again_at: float = 0.0
    cut_short: bool = False
    revoked: bool = False
    calls: set[asyncio.Task[Any]] = field(default_factory=set, repr=False)
    on_charge: Callable[[], None] = field(default=lambda: None, repr=False)
    held: dict[int, int | None] = field(default_factory=dict)
    sent: int = 0
    on_hold: Callable[[int, int | None], Awaitable[None]] = field(default=_nobody, repr=False)

    @property
    def usage(self) -> Usage:
        """The sum over all charges."""
        total = Usage()
        for charge in self.charges:
            total.add(charge.usage)
        return total


class Grants:
    """The live task tokens. Only their hashes are kept, so a look-up tells nothing by its timing."""

    def __init__(self) -> None:
        self._by_hash: dict[bytes, Grant] = {}

    def issue(self, grant: Grant) -> str:
        """A fresh token for `grant`: 43 characters of URL-safe base64 after `jt-`."""
        token = "jt-" + secrets.token_urlsafe(32)
        self._by_hash[self._hash(token)] = grant
        return token

    def find(self, token: str) -> Grant | None:
        """The grant that `token` opens, or None for an unknown or used one."""
        return self._by_hash.get(self._hash(token))

    async def revoke(self, token: str) -> None:
        """End `token` and the calls that are under way with it: after this, all that they cost is charged.

        Ending it twice is the same as once.
        """
        grant = self._by_hash.pop(self._hash(token), None)
        if grant is None:
            return
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
