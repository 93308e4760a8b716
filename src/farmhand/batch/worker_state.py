"""How much a worker is given at a time: enough that it never waits for us, no more than it will soon have done."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from farmhand.core.errors import FarmhandError
from farmhand.places.base import Limit

#: Longest that an exchange waits for results, and what may pass beyond it before the worker counts as lost. Seconds.
EXCHANGE_S = 4.0
ECONOMY_EXCHANGE_S = 10.0
SILENT_S = 25.0
#: A worker that is being emptied is back sooner than this where only its agent is restarted.
HELD_S = 60.0
#: What one request of the wire may carry.
MOST = 1000
#: A first portion where others share the work: about what 32 slots do in a few seconds.
_FIRST = 256
#: From the end of an exchange to the next portion's arrival, at most, as a rule.
_GAP_S = 1.0
#: So often in a row a worker may be given tasks, and have none of them afterwards.
MOST_FRUITLESS = 3
_BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)


@dataclass(frozen=True, kw_only=True)
class WorkerLimits:
    """What was asked for. `patience_s`: how long no worker at all may answer, once one has."""

    max_usd: float | None = None
    concurrency: int | None = None
    patience_s: float = 120.0
    economy: bool = False


@dataclass
class WorkerState:
    """A worker of this run. Times are of the monotonic clock."""

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
    given: int = 0
    fruitless: int = 0

    def miss(self, error: FarmhandError, now: float) -> None:
        """It did not answer: leave it alone for a while, longer each time."""
        self.lost = self.fresh = True
        self.limit = None
        self.error = error
        self.not_before = now + _BACKOFF_S[min(self.failures, len(_BACKOFF_S) - 1)]
        self.failures += 1

    def hear(self, finished: int, slots: int, now: float, waiting: Sequence[dict[str, Any]] = ()) -> None:
        """It answered; `waiting` is why its tasks wait."""
        self.lost, self.ever, self.failures, self.error = False, True, 0, None
        took = max(now - self.heard_at, 0.05)
        self.heard_at = now
        if finished:
            measured = finished / took
            self.rate = measured if not self.rate else 0.5 * (self.rate + measured)
        self.slots = slots or self.slots
        # One that is being emptied may keep its tasks for as long as its running ones take.
        held = any(one.get("reason") == "draining" for one in waiting)
        self.held_since = (self.held_since or now) if held else None

    def halt(self, error: FarmhandError, now: float) -> None:
        """It takes no new tasks for now."""
        self.halted, self.halted_until = error, now + 5.0

    def takes(self, now: float) -> bool:
        """Whether it can be given tasks."""
        return not self.lost and self.halted_until <= now

    @property
    def is_out(self) -> bool:
        """Whether nothing can be expected of it at present."""
        return self.lost or (self.halted is not None and not self.unfinished)

    def holds(self, now: float) -> bool:
        """Whether it has held tasks for so long that others should have them."""
        return self.held_since is not None and now - self.held_since > HELD_S

    def wants(self, leased: int, waiting: int, live: int) -> int:
        """How many more tasks to give it, that has `leased` and shares `waiting` with the others of `live` hosts."""
        fair = math.ceil(waiting / live)
        slots = self.slots or 32
        if self.rate:
            target = max(2 * slots, math.ceil(self.rate * (EXCHANGE_S + 2 * _GAP_S))) + slots
        else:
            target = MOST if live == 1 else _FIRST
        return max(0, min(target - leased, MOST, fair))

    def low(self, given: int, leased: int) -> int:
        """With how many left it should come for more, while there is more."""
        return min(max(self.slots or 32, math.ceil(self.rate * _GAP_S)), max(given, leased) // 2)
