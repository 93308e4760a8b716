"""What large bodies may take of the memory, all of them together."""

from __future__ import annotations

import asyncio
from collections import deque


class BodyRoom:
    """Bytes that may be held at once; who finds no room waits, first come first served."""

    def __init__(self, size: int) -> None:
        self.free = size
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    async def take(self, size: int) -> None:
        """Hold `size` bytes, not more than there are in all, as soon as there is room."""
        if not self._waiting and size <= self.free:
            self.free -= size
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, size))
        try:
            await turn
        except asyncio.CancelledError:
            # What it has got already is another's, and so is its place.
            self.give(size if turn.done() and not turn.cancelled() else 0)
            raise

    def give(self, size: int) -> None:
        """Give `size` bytes back."""
        self.free += size
        while self._waiting and (self._waiting[0][0].done() or self._waiting[0][1] <= self.free):
            turn, wanted = self._waiting.popleft()
            if not turn.done():
                self.free -= wanted
                turn.set_result(None)
