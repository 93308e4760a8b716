"""The state of a worker, and the size of its portions: it never waits for us, and gets no more than it can soon do."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from farmhand.batch.bend import Bending
from farmhand.core.errors import POT_SPENT, FarmhandError
from farmhand.core.keys import redact
from farmhand.core.readable import counted
from farmhand.places.base import Limit

#: Seconds that an exchange waits for results, and the additional time after which the worker is regarded as lost.
EXCHANGE_S = 4.0
ECONOMY_EXCHANGE_S = 10.0
SILENT_S = 25.0
#: A draining worker whose agent is only being restarted is back sooner than this.
HELD_S = 60.0
#: The most items in one request of the wire.
MOST = 1000
#: The size of a first portion if other workers share the work: about what 32 slots complete in a few seconds.
_FIRST = 256
#: The usual maximum time from the end of an exchange to the arrival of the next portion.
_GAP_S = 1.0
#: How many times in a row a worker may be given tasks and have none of them afterwards.
MOST_FRUITLESS = 3
_BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)


@dataclass(frozen=True, kw_only=True)
class WorkerLimits:
    """The limits that were requested. `patience_s`: how long all workers may be silent after one has answered.

    `bending`: what becomes of the rest when the budget has no room; None: it stops.
    """

    max_usd: float | None = None
    concurrency: int | None = None
    patience_s: float = 120.0
    economy: bool = False
    bending: Bending | None = None


@dataclass
class WorkerState:
    """A worker of this run. Times are from the monotonic clock."""

    name: str
    no: int
    cost_pico: int = 0
    slots: int = 0
    rate: float = 0.0
    fresh: bool = True
    lost: bool = False
    ever: bool = False
    error: FarmhandError | None = None
    failures: int = 0
    not_before: float = 0.0
    halted_until: float = 0.0
    halted: FarmhandError | None = None
    unfinished: int = 0
    held_since: float | None = None
    denied: bool = False
    stop_asked: bool = False
    stopped: bool = False
    due_at: float | None = None
    heard_at: float = field(default_factory=time.monotonic)
    limit: Limit | None = None
    cursor: int = 0
    said: str = ""
    given: int = 0
    fruitless: int = 0

    def miss(self, error: FarmhandError, now: float) -> None:
        """Record a failed exchange, and back off, longer each time."""
        self.lost = self.fresh = True
        self.limit = None
        self.error = error
        self.not_before = now + _BACKOFF_S[min(self.failures, len(_BACKOFF_S) - 1)]
        self.failures += 1

    def hear(self, finished: int, slots: int, now: float, waiting: Sequence[dict[str, Any]] = ()) -> None:
        """Record an answer; `waiting` has the reasons why its tasks wait."""
        self.lost, self.ever, self.failures, self.error = False, True, 0, None
        took = max(now - self.heard_at, 0.05)
        self.heard_at = now
        if finished:
            measured = finished / took
            self.rate = measured if not self.rate else 0.5 * (self.rate + measured)
        self.slots = slots or self.slots
        # A draining worker may keep its tasks for as long as its running ones take.
        held = any(one.get("reason") == "draining" for one in waiting)
        self.held_since = (self.held_since or now) if held else None

    def news(self, waiting: Sequence[dict[str, Any]], *, all_given: bool) -> str:
        """Return, once, that tasks wait for a pot to be filled, or that all are with the provider; else "".

        `all_given`: workers have all tasks that there are.
        """
        reasons = {wait["reason"]: wait for wait in waiting}
        spent = [wait for wait in waiting if wait["reason"] == POT_SPENT]
        sent = reasons.get("economy_sent") if all_given and "economy" not in reasons else None
        told = spent or ([] if sent is None else [sent])
        before, self.said = self.said, "; ".join(redact(str(one.get("detail") or ""))[:200] for one in told)
        if self.said in ("", before):
            return ""
        tasks = sum(int(one.get("tasks") or 0) for one in told)
        what = counted(tasks, "task waits", "tasks wait") + ":" if spent else counted(tasks, "task")
        safe = "; stopping is safe" if spent else ""
        return f"{self.name}: {what} {self.said}{safe}: the same command goes on"

    def takes(self, now: float) -> bool:
        """Return whether it can be given tasks."""
        return not self.lost and self.halted_until <= now

    @property
    def is_out(self) -> bool:
        """Return whether nothing can be expected of it at present."""
        return self.lost or (self.halted is not None and not self.unfinished)

    def holds(self, now: float) -> bool:
        """Return whether it has held tasks for so long that others should get them."""
        return self.held_since is not None and now - self.held_since > HELD_S

    def wants(self, leased: int, waiting: int, live: int) -> int:
        """Return how many more tasks to give a worker with `leased` tasks, if `live` workers share `waiting` tasks."""
        fair = math.ceil(waiting / live)
        slots = self.slots or 32
        if self.rate:
            target = max(2 * slots, math.ceil(self.rate * (EXCHANGE_S + 2 * _GAP_S))) + slots
        else:
            # A place may have room for all of it before it has finished any.
            target = max(MOST if live == 1 else _FIRST, 3 * self.slots)
        return max(0, min(target - leased, MOST, fair))

    def low(self, given: int, leased: int) -> int:
        """Return the number of unfinished tasks at which it should request more, while there are more."""
        return min(max(self.slots or 32, math.ceil(self.rate * _GAP_S)), max(given, leased) // 2)
