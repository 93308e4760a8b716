"""A shared memory limit for large request bodies."""

from __future__ import annotations

import asyncio
from collections import deque


class BodyRoom:
    """A number of bytes that may be held at once. Waiters are served in order."""

    def __init__(self, size: int) -> None:
        self.free = size
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    async def take(self, size: int) -> None:
        """Wait until `size` bytes are free, then hold them. `size` must not exceed the total."""
        if not self._waiting and size <= self.free:
            self.free -= size
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, size))
        try:
            await turn
        except asyncio.CancelledError:
            # Pass on the room that this waiter already got, and its place in the queue.
            self.give(size if turn.done() and not turn.cancelled() else 0)
            raise

    def give(self, size: int) -> None:
        """Release `size` bytes."""
        self.free += size
        while self._waiting and (self._waiting[0][0].done() or self._waiting[0][1] <= self.free):
            turn, wanted = self._waiting.popleft()
            if not turn.done():
                self.free -= wanted
                turn.set_result(None)
