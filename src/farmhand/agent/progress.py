"""Who waits for results of a batch, and how many tasks end per second."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable

_WINDOW_S = 60.0


class BatchProgress:
    """Told of every task that has ended; wakes those who wait for its batch. `monotonic` is the clock, in seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._began = monotonic()
        #: [second, tasks that ended in it], oldest first.
        self._seconds: deque[list[int]] = deque()
        self._waiters: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)

    def done(self, batch: str, tasks: int = 1) -> None:
        """`tasks` tasks of `batch` are final in the ledger."""
        second = int(self._monotonic())
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0])
            self._prune()
        self._seconds[-1][1] += tasks
        for waiter in self._waiters.pop(batch, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, batch: str, timeout_s: float) -> None:
        """Until a task of `batch` has ended, or the time is over."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[batch].add(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            pass
        finally:
            waiting = self._waiters.get(batch)
            if waiting is not None:
                waiting.discard(waiter)
                if not waiting:
                    del self._waiters[batch]

    def per_s(self) -> float:
        """Tasks that ended per second, over the last 60 s or since the start."""
        self._prune()
        span = min(_WINDOW_S, max(1.0, self._monotonic() - self._began))
        return round(sum(tasks for _, tasks in self._seconds) / span, 2)

    def _prune(self) -> None:
        oldest = self._monotonic() - _WINDOW_S
        while self._seconds and self._seconds[0][0] < oldest:
            self._seconds.popleft()
