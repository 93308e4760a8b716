"""The waiting lines: the next task of each engine, read from the ledger in small portions, highest priority first."""

from __future__ import annotations

from collections import Counter, deque

from farmhand.agent.store.ledger import Ledger
from farmhand.agent.store.queries import QueuedTask

#: Tasks that are read ahead per engine, beside those that are on their way out of the queue.
_PORTION = 64


class ReadyQueue:
    """Hands out each waiting task once, until it is put back.

    A task is `claimed` from when it is handed out until `release`: its start may not be committed yet, so the ledger
    may still show it as queued. Nothing is kept of the tasks behind the portion that is read ahead.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._ahead: dict[str, deque[QueuedTask]] = {}
        self._claimed: set[int] = set()
        self._running: Counter[str] = Counter()
        self.limits: dict[str, int] = ledger.batch_limits("concurrency")
        #: Unfinished tasks that ran when the agent crashed: they are in no line.
        self.suspects: set[int] = set()
        #: Batches none of whose tasks may start, since they are being cancelled.
        self.closed: set[str] = set()

    def changed(self) -> None:
        """The queue has changed other than by its first tasks leaving: read it again."""
        self._ahead.clear()

    def added(self, priority: int) -> None:
        """Tasks of up to `priority` were put at the end of their line."""
        for engine, ahead in list(self._ahead.items()):
            if ahead and ahead[-1].priority < priority:
                del self._ahead[engine]

    def is_full(self, batch: str) -> bool:
        """Whether no task of the batch may start for now."""
        limit = self.limits.get(batch)
        return batch in self.closed or (limit is not None and self._running[batch] >= limit)

    def full(self) -> set[str]:
        """All batches none of whose tasks may start for now."""
        return self.closed | {batch for batch in self.limits if self.is_full(batch)}

    def take(self, engine: str) -> QueuedTask | None:
        """The next task to start, which is claimed by this; None when none may start."""
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
        """The task is on its way out of the queue."""
        self._claimed.add(task.seq)
        self._running[task.batch] += 1

    def next_suspects(self) -> list[QueuedTask]:
        """The queued tasks that ran when the agent crashed; those of batches that are being cancelled left out."""
        return [task for task in self._ledger.suspects() if task.batch not in self.closed]

    def _read(self, engine: str) -> deque[QueuedTask]:
        taken = self._claimed | self.suspects
        tasks = self._ledger.line(engine, _PORTION + len(self._claimed) + len(self.suspects), self.full())
        return deque(task for task in tasks if task.seq not in taken)

    def release(self, task: QueuedTask) -> None:
        """A claimed task has left its slot."""
        was_full = self.is_full(task.batch)
        self._claimed.discard(task.seq)
        self._running[task.batch] -= 1
        if not self._running[task.batch]:
            del self._running[task.batch]
        if was_full:
            # Its tasks were passed over.
            self.changed()
