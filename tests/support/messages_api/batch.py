"""One Message Batch: its requests, what became of each, and the plan it follows.

Source: the provider's API reference and its guide to batch processing, read 2026-11. What it does not tell, and is
assumed here, is marked so.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from random import Random
from typing import Annotated, Any, Literal

import msgspec

from tests.support.messages_api.answer import new_id

DAY_MS = 24 * 3600 * 1000.0
KINDS = ("succeeded", "errored", "canceled", "expired")
_Ms = Annotated[float, msgspec.Meta(ge=0)]


class Plan(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How new batches go on.

    `after_ms`: until all requests are processed, one after the other in that time; null: none is processed until the
    control endpoint says so. `expires_ms`: what is not processed by then expires; a day, as with the provider.
    `cancel_ms`: how long a batch is `canceling`; `in_flight`: requests still processed after it was cancelled.
    `order` of the results; `shuffled` is the same for the same batch.
    """

    after_ms: _Ms | None = 0.0
    expires_ms: _Ms = DAY_MS
    cancel_ms: _Ms = 0.0
    in_flight: Annotated[int, msgspec.Meta(ge=0)] = 0
    order: Literal["shuffled", "given", "reversed"] = "shuffled"


class Item(msgspec.Struct, frozen=True):
    """One request as it came; `params` is checked only when it is processed."""

    custom_id: str
    params: msgspec.Raw


def rfc3339(seconds: float | None) -> str | None:
    """A time since the epoch as the API writes it."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


class Batch:
    """A batch, from its creation until it is deleted. Requests are processed in the order given."""

    def __init__(self, items: list[Item], headers: Mapping[str, str], key: str, plan: Plan, number: int) -> None:
        self.id = new_id("msgbatch_01")
        self.items = items
        self.headers = headers
        self.key = key
        self.plan = plan
        #: The number of the log's entry that created it.
        self.number = number
        self.created = time.time()
        self.expires = self.created + plan.expires_ms / 1000
        self.cancelled: float | None = None
        self.ended: float | None = None
        self.archived: float | None = None
        #: How many the control endpoint lets be processed, and when it wants all to be.
        self.allowed = 0
        self.finish_at: float | None = None
        self.kinds: list[str] = []
        self.usage: Counter[str] = Counter()
        self._lines: list[bytes] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()

    @property
    def done(self) -> int:
        """How many requests are processed."""
        return len(self.kinds)

    def due(self, now: float) -> int:
        """How many requests should be processed by now."""
        count = len(self.items)
        if self.cancelled is not None:
            return self.allowed
        if self.finish_at is not None and now >= self.finish_at:
            return count
        if self.plan.after_ms is None:
            return self.allowed
        passed_ms = (now - self.created) * 1000
        share = 1.0 if passed_ms >= self.plan.after_ms else passed_ms / self.plan.after_ms
        return max(self.allowed, int(count * share))

    def finished(self, now: float) -> bool:
        """Whether nothing more is to be processed: all is, or cancelling is over."""
        if self.cancelled is None:
            return self.done == len(self.items)
        return now >= self.cancelled + self.plan.cancel_ms / 1000 or self.finish_at is not None

    def settle(self, result: dict[str, Any]) -> None:
        """Note what became of the next request."""
        line = msgspec.json.encode({"custom_id": self.items[self.done].custom_id, "result": result}) + b"\n"
        self._lines.append(line)
        self.kinds.append(result["type"])
        if result["type"] == "succeeded":
            usage = result["message"]["usage"]
            self.usage.update({n: v for n, v in usage.items() if isinstance(v, int)})

    def end(self, rest: Literal["canceled", "expired"]) -> None:
        """End it; what is not processed becomes `rest`. The params are let go."""
        while self.done < len(self.items):
            self.settle({"type": rest})
        self.items = [Item(item.custom_id, msgspec.Raw(b"")) for item in self.items]
        order = list(range(len(self._lines)))
        if self.plan.order == "reversed":
            order.reverse()
        elif self.plan.order == "shuffled":
            Random(self.id).shuffle(order)  # noqa: S311  # an order, no secret
        self._lines = [self._lines[i] for i in order]
        self.ended = time.time()
        self._idle.set()

    def cancel(self) -> None:
        """Begin to cancel: what the plan has in flight is still processed."""
        if self.cancelled is None and self.ended is None:
            self.allowed = min(len(self.items), self.done + self.plan.in_flight)
            self.cancelled = time.time()
            self.finish_at = None
            self.wake()

    def archive(self) -> None:
        """As after 29 days: the batch stays, its results are gone."""
        self.archived = time.time()
        self._lines = []

    def lines(self) -> list[bytes]:
        """The results, a line each; empty before the end."""
        return self._lines if self.ended is not None else []

    def wake(self) -> None:
        """Have it look at the clock and its plan again."""
        self._idle.clear()
        self._wake.set()

    async def pause(self, now: float) -> None:
        """Wait until something may be due."""
        self._idle.set()
        times = [self.expires]
        if self.cancelled is not None:
            times.append(self.cancelled + self.plan.cancel_ms / 1000)
        elif self.finish_at is not None:
            times.append(self.finish_at)
        if self.cancelled is None and self.plan.after_ms:
            each = self.plan.after_ms / 1000 / len(self.items)
            times.append(max(now + 0.01, self.created + each * (self.done + 1)))
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), max(0.001, min(times) - now))

    def release(self) -> None:
        """Let those go on that wait for a batch which is gone."""
        self._idle.set()

    async def idle(self) -> None:
        """Wait until all that is due is processed."""
        if self.ended is None:
            await self._idle.wait()

    def counts(self) -> dict[str, int]:
        """`request_counts`: all are `processing` until the end of the whole batch."""
        found = Counter(self.kinds) if self.ended is not None else Counter()
        return {"processing": len(self.items) - found.total()} | {kind: found[kind] for kind in KINDS}

    def view(self, base_url: str) -> dict[str, Any]:
        """The batch as the API shows it. Assumed: an archived one has no `results_url`."""
        status = "ended" if self.ended is not None else "in_progress" if self.cancelled is None else "canceling"
        there = self.ended is not None and self.archived is None
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": self.counts(),
            "ended_at": rfc3339(self.ended),
            "created_at": rfc3339(self.created),
            "expires_at": rfc3339(self.expires),
            "archived_at": rfc3339(self.archived),
            "cancel_initiated_at": rfc3339(self.cancelled),
            "results_url": f"{base_url}/v1/messages/batches/{self.id}/results" if there else None,
        }
