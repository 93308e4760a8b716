"""Scripted faults: what goes wrong, for which requests, how often."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Generic, Literal, TypeVar

import msgspec

from tests.support.messages_api.errors import CREDIT, USAGE_LIMIT, WORKSPACE_LIMIT, ApiError
from tests.support.messages_api.verbatim import Verbatim

Kind = Literal[
    "status",
    "spend_limit",
    "credit",
    "usage_limit",
    "workspace_limit",
    "slow",
    "stalled",
    "cut",
    "garbage",
    "stream_error",
    "reset",
    "verbatim",
]
#: The refusals of an account without money that come as a 400.
_NO_MONEY = {"credit": CREDIT, "usage_limit": USAGE_LIMIT, "workspace_limit": WORKSPACE_LIMIT}
FOREVER = -1


class Scripted(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What every fault has: `count` is how often it hits, -1 for always; `skip` how many it lets pass first."""

    count: int = 1
    skip: int = 0


class Fault(Scripted, forbid_unknown_fields=True, kw_only=True):
    """One fault in the queue.

    kind: `status` (refuse with `status`), `spend_limit` (the final 429), `credit`, `usage_limit` and `workspace_limit`
    (the 400 of an account whose balance, own limit or workspace's limit is used up), `slow` (wait `delay_s`, then
    answer as usual), `stalled` (headers and `after_events` events, then silence for `delay_s`, 0 meaning until the
    client goes), `cut` (drop the connection after `after_events` events, or in the middle of a plain body), `garbage`
    (200 with a body that is no JSON), `stream_error` (an `event: error` after `after_events` events), `reset` (no
    answer at all), `verbatim` (`answer`, byte for byte, in place of the answer to a request that is in order).
    `headers` go into a refusal, and `raw` in place of its JSON.
    `model` and `match` (a part of the raw body) narrow it down. Without `path` it is about /v1/messages and
    count_tokens; `path`, with `*` for any part, names other endpoints (`/v1/messages/batches/*/results`), and `method`
    a method of theirs. There an event is a line of results, and `cut` has the call done and its answer lost.
    """

    kind: Kind
    model: str = ""
    match: str = ""
    path: str = ""
    method: str = ""
    status: int = 500
    message: str = ""
    retry_after: float | None = None
    headers: dict[str, str] = {}
    raw: str | None = None
    delay_s: float = 0.0
    after_events: int = 2
    answer: Verbatim | None = None

    def hits(self, method: str, path: str, model: str, raw: bytes) -> bool:
        """Whether it is about this request."""
        here = fnmatchcase(path, self.path) if self.path else path in ("/v1/messages", "/v1/messages/count_tokens")
        if not here or (self.method and self.method != method):
            return False
        return (not self.model or self.model == model) and (not self.match or self.match.encode() in raw)

    def refusal(self) -> ApiError | None:
        """The error to answer with, for the kinds that are one."""
        headers = dict(self.headers)
        if self.retry_after is not None:
            headers["retry-after"] = f"{self.retry_after:g}"
        if self.kind == "spend_limit":
            return ApiError(
                429,
                self.message or "You have reached your usage tier's monthly spend limit.",
                details={"error_code": "enforced_spend_limit_reached"},
            )
        if self.kind in _NO_MONEY:
            return ApiError(400, self.message or _NO_MONEY[self.kind], headers=headers)
        if self.kind == "status":
            return ApiError(self.status, self.message, headers=headers, raw=self.raw)
        return None


class BatchFault(Scripted, forbid_unknown_fields=True, kw_only=True):
    """What goes wrong with one request of a Message Batch: it is `errored` (with `status`) or `expired`.

    `custom_id`, `model` and `match` (a part of the raw params) narrow it down.
    """

    result: Literal["errored", "expired"] = "errored"
    custom_id: str = ""
    model: str = ""
    match: str = ""
    status: int = 500
    message: str = ""

    def hits(self, custom_id: str, model: str, raw: bytes) -> bool:
        """Whether it is about this request of a batch."""
        if (self.custom_id and self.custom_id != custom_id) or (self.model and self.model != model):
            return False
        return not self.match or self.match.encode() in raw


F = TypeVar("F", bound=Scripted)


class Queue(Generic[F]):
    """Faults, oldest first. One leaves the queue when its count is used up."""

    def __init__(self) -> None:
        self._queue: list[F] = []

    def add(self, *faults: F) -> None:
        """Put faults at the end."""
        self._queue.extend(faults)

    def clear(self) -> None:
        """Forget all."""
        self._queue.clear()

    def pending(self) -> list[F]:
        """What is still in the queue."""
        return list(self._queue)

    def take(self, hits: Callable[[F], bool]) -> F | None:
        """The first fault that hits, counted down."""
        for fault in self._queue:
            if not hits(fault):
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
