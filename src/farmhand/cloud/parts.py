"""Results on their way to the bucket: in parts, each an object of its own that is made once.

The rows of the ledger go before the results they belong to, so a result in the bucket always has its cost there too.
Nothing is dropped: what the bucket does not take is tried again until the container ends, and then named in its log.
The daemon's ledger on the container's disk has it as long as that.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from farmhand.cloud.calls import CallFailed, ContainerBucket
from farmhand.cloud.ending import say
from farmhand.core.bucket_keys import BatchKeys, PartName
from farmhand.core.shard import PART_RESULTS, PART_S

_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
#: Seconds of a wait after which SIGTERM is noticed.
_GLANCE_S = 0.5
#: So many parts may wait. Then no new work is begun: what it costs might be lost.
MOST_WAITING = 4


@dataclass
class _Part:
    """A part that is not in the bucket yet: `where` is out or ledger; `ids` are those of its results."""

    where: str
    body: bytes
    ids: tuple[str, ...] = ()


class PartWriter:
    """Writes the parts of one attempt, in a thread of its own, from the number in `name` on."""

    def __init__(
        self,
        bucket: ContainerBucket,
        keys: BatchKeys,
        name: PartName,
        *,
        size: int = PART_RESULTS,
        age_s: float = PART_S,
    ) -> None:
        self._bucket = bucket
        self._prefixes = {"out": keys.results(), "ledger": keys.ledgers()}
        self._name = name
        self._numbers = dict.fromkeys(self._prefixes, name.part)
        self._lines: list[bytes] = []
        self._ids: list[str] = []
        self._since = 0.0
        self._queue: deque[_Part] = deque()
        self._changed = threading.Condition()
        self._failing_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="parts", daemon=True)
        self._thread.start()

    def add(self, result: dict[str, Any]) -> None:
        """Take a result, as on the wire."""
        if not self._lines:
            self._since = time.monotonic()
        self._lines.append(json.dumps(result, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        self._ids.append(str(result["id"]))

    @property
    def due(self) -> bool:
        """Return whether the results make a part: they are many, or old."""
        return len(self._lines) >= PART_RESULTS or bool(self._lines and time.monotonic() - self._since >= PART_S)

    @property
    def full(self) -> bool:
        """Return whether so many parts wait that no new work should begin."""
        return len(self._queue) >= MOST_WAITING

    def failing_s(self) -> float:
        """Return for how many seconds the bucket has taken nothing; 0 if it does."""
        since = self._failing_since
        return 0.0 if since is None else time.monotonic() - since

    def flush(self, ledger: Callable[[], bytes]) -> None:
        """Make parts of all results. `ledger` returns the part of the ledger that has their costs, b"" for none."""
        parts = [_Part("ledger", rows)] if (rows := ledger()) else []
        for start in range(0, len(self._lines), PART_RESULTS):
            end = start + PART_RESULTS
            parts.append(_Part("out", b"".join(self._lines[start:end]), tuple(self._ids[start:end])))
        self._lines, self._ids = [], []
        with self._changed:
            self._queue.extend(parts)
            self._changed.notify_all()

    def close(self, until: Callable[[], float]) -> list[str]:
        """Wait until everything is in the bucket, at most until then (monotonic clock; it may come nearer meanwhile).

        Return the ids that are not.
        """
        with self._changed:
            while self._queue and (left := until() - time.monotonic()) > 0:
                self._changed.wait(min(left, _GLANCE_S))
            return [task_id for part in self._queue for task_id in part.ids]

    def _run(self) -> None:
        tries = 0
        while True:
            with self._changed:
                while not self._queue:
                    self._changed.wait()
                part = self._queue[0]
            try:
                self._write(part)
            except Exception as error:
                # Whatever it is, the part stays and is tried again: its results have been paid for.
                if self._failing_since is None:
                    self._failing_since = time.monotonic()
                say(str(error) if isinstance(error, CallFailed) else f"writing a part: {type(error).__name__}: {error}")
                time.sleep(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
                tries += 1
                continue
            tries, self._failing_since = 0, None
            with self._changed:
                self._queue.popleft()
                self._changed.notify_all()

    def _write(self, part: _Part) -> None:
        """Write a part under the first number that is free. Raise CallFailed."""
        while True:
            name = self._name._replace(part=self._numbers[part.where])
            made = self._bucket.put_new(self._prefixes[part.where] + name.path, part.body)
            self._numbers[part.where] += 1
            if made:
                return
            say(f"there is a part {name.path} of another container already")
