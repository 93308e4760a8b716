"""The ready queue: the next task per engine, read from the ledger in small portions, highest priority first."""

from __future__ import annotations

from collections import Counter, deque

from farmhand.agent.store.ledger import Ledger
from farmhand.agent.store.queries import QueuedTask

#: Tasks to read ahead per engine, in addition to those that are about to start.
_PORTION = 64


class ReadyQueue:
    """A queue that hands out each waiting task once, until the task is released.

    A task is `claimed` from when it is handed out until `release`. Its start may not be committed yet, so the ledger
    may still show it as queued. Only the portion that is read ahead is kept in memory.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._ahead: dict[str, deque[QueuedTask]] = {}
        self._claimed: set[int] = set()
        self._running: Counter[str] = Counter()
        self.limits: dict[str, int] = ledger.batch_limits("concurrency")
        #: Unfinished tasks that ran when the agent crashed; the queue does not hand them out.
        self.suspects: set[int] = set()
        #: Batches that are being cancelled: none of their tasks may start.
        self.closed: set[str] = set()

    def changed(self) -> None:
        """Discard the tasks read ahead, because the queue has changed other than by handing out tasks."""
        self._ahead.clear()

    def added(self, priority: int) -> None:
        """Take note of new tasks with priorities of up to `priority`."""
        for engine, ahead in list(self._ahead.items()):
            if ahead and ahead[-1].priority < priority:
                del self._ahead[engine]

    def is_full(self, batch: str) -> bool:
        """Return whether no task of the batch may start now."""
        limit = self.limits.get(batch)
        return batch in self.closed or (limit is not None and self._running[batch] >= limit)

    def full(self) -> set[str]:
        """Return all batches of which no task may start now."""
        return self.closed | {batch for batch in self.limits if self.is_full(batch)}

    def take(self, engine: str) -> QueuedTask | None:
        """Claim and return the next task to start, or None if none may start."""
        while True:
            ahead = self._ahead.get(engine)
            if not ahead:
                ahead = self._ahead[engine] = self._read(engine)
                if not ahead:
                    return None
            while ahead:
                task = ahead.popleft()
                if task.seq not in self._claimed and not self.is_full(task.batch):
                    self.claim(task)
                    return task

    def claim(self, task: QueuedTask) -> None:
        """Mark the task as about to start."""
        self._claimed.add(task.seq)
        self._running[task.batch] += 1

    def next_suspects(self) -> list[QueuedTask]:
        """Return the queued tasks that ran when the agent crashed, except those of batches that are being cancelled."""
        return [task for task in self._ledger.suspects() if task.batch not in self.closed]

    def _read(self, engine: str) -> deque[QueuedTask]:
        taken = self._claimed | self.suspects
        tasks = self._ledger.line(engine, _PORTION + len(self._claimed) + len(self.suspects), self.full())
        return deque(task for task in tasks if task.seq not in taken)

    def release(self, task: QueuedTask) -> None:
        """Release a claimed task that has left its slot."""
        was_full = self.is_full(task.batch)
        self._claimed.discard(task.seq)
        self._running[task.batch] -= 1
        if not self._running[task.batch]:
            del self._running[task.batch]
        if was_full:
            # Tasks of the batch were skipped.
            self.changed()
