"""Scripted faults: what goes wrong, for which requests, how often."""

from __future__ import annotations

from typing import Literal

import msgspec

from tests.support.messages_api.errors import ApiError

Kind = Literal["status", "spend_limit", "slow", "stalled", "cut", "garbage", "stream_error", "reset"]
FOREVER = -1


class Fault(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One fault in the queue.

    kind: `status` (refuse with `status`), `spend_limit` (the final 429), `slow` (wait `delay_s`, then answer as usual),
    `stalled` (headers and `after_events` events, then silence for `delay_s`, 0 meaning until the client goes),
    `cut` (drop the connection after `after_events` events, or in the middle of a plain body), `garbage` (200 with a
    body that is no JSON), `stream_error` (an `event: error` after `after_events` events), `reset` (no answer at all).
    `count` is how many requests it hits, -1 for all; `skip` how many matching requests it lets pass first.
    `model` and `match` (a part of the raw body) narrow it down.
    """

    kind: Kind
    count: int = 1
    skip: int = 0
    model: str = ""
    match: str = ""
    status: int = 500
    message: str = ""
    retry_after: float | None = None
    delay_s: float = 0.0
    after_events: int = 2

    def hits(self, model: str, raw: bytes) -> bool:
        """Whether it is about this request."""
        return (not self.model or self.model == model) and (not self.match or self.match.encode() in raw)

    def refusal(self) -> ApiError | None:
        """The error to answer with, for the kinds that are one."""
        headers = {} if self.retry_after is None else {"retry-after": f"{self.retry_after:g}"}
        if self.kind == "spend_limit":
            return ApiError(
                429,
                self.message or "You have reached your usage tier's monthly spend limit.",
                details={"error_code": "enforced_spend_limit_reached"},
            )
        if self.kind == "status":
            return ApiError(self.status, self.message, headers=headers)
        return None


class Faults:
    """The queue, oldest first. A fault leaves it when its count is used up."""

    def __init__(self) -> None:
        self._queue: list[Fault] = []

    def add(self, *faults: Fault) -> None:
        """Put faults at the end."""
        self._queue.extend(faults)

    def clear(self) -> None:
        """Forget all."""
        self._queue.clear()

    def pending(self) -> list[Fault]:
        """What is still in the queue."""
        return list(self._queue)

    def take(self, model: str, raw: bytes) -> Fault | None:
        """The first fault that is about this request, counted down."""
        for fault in self._queue:
            if not fault.hits(model, raw):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if fault.count != FOREVER:
                fault.count -= 1
                if fault.count <= 0:
                    self._queue.remove(fault)
            return fault
        return None
