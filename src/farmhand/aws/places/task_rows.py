"""The rows of tasks in the ledgers that the containers have put into the bucket."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import msgspec

from farmhand.aws.places.bucket import BatchBucket
from farmhand.core.bucket_keys import BatchKeys
from farmhand.core.shard import read_ledger
from farmhand.core.typed import ready
from farmhand.places.base import TaskRows


class _Whose(msgspec.Struct):
    """Whose row it is: a charge has `task`, a finished task `id`."""

    task: str = ""
    id: str = ""


class TaskRowReader:
    """Reads each part of a ledger once, and keeps its rows until they are asked for."""

    def __init__(self, bucket: BatchBucket, keys: BatchKeys) -> None:
        self._bucket, self._keys = bucket, keys
        self._read: set[str] = set()
        self._rows: dict[str, TaskRows] = {}

    def of(self, ids: Iterable[str], generation: int, shard: int) -> dict[str, TaskRows]:
        """Return the rows of these tasks of a shard, each once. A part that is damaged has none."""
        for key in self._bucket.keys(self._keys.ledgers(generation, shard)):
            if key not in self._read:
                self._read.add(key)
                with suppress(ValueError):
                    self._take(self._bucket.get(key) or b"")
        return {task_id: self._rows.pop(task_id) for task_id in ids if task_id in self._rows}

    def _take(self, part: bytes) -> None:
        _, charges, finished = read_ledger(part)
        for line in charges:
            name = msgspec.json.decode(line, type=ready(_Whose)).task
            known = self._rows.get(name, TaskRows())
            self._rows[name] = known._replace(charges=(*known.charges, line))
        for line in finished:
            name = msgspec.json.decode(line, type=ready(_Whose)).id
            self._rows[name] = self._rows.get(name, TaskRows())._replace(finished=line)
