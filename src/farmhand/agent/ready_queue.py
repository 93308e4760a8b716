"""The ready queue: the next task per engine, read from the ledger in small portions, highest priority first."""

from __future__ import annotations

from collections import Counter, deque

from farmhand.agent.events import TaskRegistry
from farmhand.agent.store.ledger import Ledger
from farmhand.agent.store.queries import QueuedTask

#: Tasks to read ahead per engine, in addition to those that are about to start.
_PORTION = 64


class ReadyQueue:
    """A queue that hands out each waiting task once. Only the portion that is read ahead is kept in memory.

    The ledger may still show a running task as queued: its start may not be committed yet.
    """

    def __init__(self, ledger: Ledger, registry: TaskRegistry) -> None:
        self._ledger = ledger
        self._registry = registry
        self._ahead: dict[str, deque[QueuedTask]] = {}
        self.limits = ledger.concurrency_limits()
        #: Unfinished tasks that ran when the agent crashed; the queue does not hand them out.
        self.suspects: set[int] = set()
        #: Batches that are being cancelled: none of their tasks may start.
        self.closed: set[str] = set()

    def changed(self) -> None:
        """Discard the tasks read ahead, because the queue has changed other than by handing out tasks."""
        self._ahead.clear()

    def is_full(self, batch: str) -> bool:
        """Return whether no task of the batch may start now."""
        limit = self.limits.get(batch)
        return batch in self.closed or (limit is not None and self._running()[batch] >= limit)

    def full(self) -> set[str]:
        """Return all batches of which no task may start now."""
        running = self._running()
        return self.closed | {batch for batch, limit in self.limits.items() if running[batch] >= limit}

    def _running(self) -> Counter[str]:
        return Counter(task.batch for task in self._registry.claims())

    def take(self, engine: str) -> QueuedTask | None:
        """Return the next task to start, or None if none may start."""
        while True:
            ahead = self._ahead.get(engine)
            if not ahead:
                taken = self.suspects | {task.seq for task in self._registry.claims()}
                tasks = self._ledger.line(engine, _PORTION + len(taken), self.full())
                ahead = self._ahead[engine] = deque(task for task in tasks if task.seq not in taken)
                if not ahead:
                    return None
            while ahead:
                task = ahead.popleft()
                if not self.is_full(task.batch):
                    return task
