"""The tasks of a shard: read from the bucket, those that have results left out; the most that each may cost."""

from __future__ import annotations

import tempfile
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from farmhand.cloud.calls import ContainerBucket, patiently
from farmhand.cloud.ending import ContainerEnds, StopClock, say
from farmhand.cloud.ledger_rows import spent_in
from farmhand.core.bucket_keys import BatchKeys
from farmhand.core.money import pico
from farmhand.core.prices import PriceTable
from farmhand.core.request_body import request_body
from farmhand.core.shard import EXIT_CONFIG, PROMPT_KEY, Pico, read_ledger
from farmhand.core.task import Task, Usage, resolve_model
from farmhand.core.terms import DEAREST

#: Tokens that the API or the meter adds to what is sent (farmhand.meter.reserve), with room.
_ADDED_TOKENS = 1300
#: What a task with tools is taken to need at once. More is leased while it runs.
_CLI_TOKENS = 100_000


class ShardTask(NamedTuple):
    """A task, and where its line is."""

    id: str
    engine: str
    most: Pico
    start: int
    size: int


class _Answered(msgspec.Struct):
    id: str


class ShardTasks:
    """The tasks of the shard at `place` (generation, number) that have no result yet, in `todo`. Raise ContainerEnds.

    `total` counts all of them.
    """

    def __init__(
        self, bucket: ContainerBucket, keys: BatchKeys, place: tuple[int, int], prices: PriceTable, clock: StopClock
    ) -> None:
        self._bucket = bucket
        self._keys = keys
        self._prices = prices
        self._clock = clock
        generation, shard = place
        self._file = Path(tempfile.mkdtemp(prefix="shard-"), "tasks.jsonl")
        patiently(partial(bucket.fetch, keys.tasks(generation, shard), self._file), clock)
        done = self._answered(keys.results(generation, shard))
        self.todo: deque[ShardTask] = deque()
        self.total = 0
        start = 0
        with self._file.open("rb") as lines:
            for line in lines:
                if line.strip():
                    task = self._read(line, start)
                    self.total += 1
                    if task.id not in done:
                        self.todo.append(task)
                start += len(line)

    def _answered(self, prefix: str) -> set[str]:
        """Return the ids with a result of an earlier attempt."""
        done: set[str] = set()
        for key in patiently(partial(self._bucket.keys, prefix), self._clock):
            if self._keys.part_of(key) is not None:
                for line in patiently(partial(self._bucket.get, key), self._clock).splitlines():
                    try:
                        done.add(msgspec.json.decode(line, type=_Answered).id)
                    except (msgspec.DecodeError, UnicodeDecodeError):
                        say(f"{key}: a line is no result; its task runs again")
        return done

    def _read(self, line: bytes, start: int) -> ShardTask:
        try:
            found: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
            prompt = found.pop(PROMPT_KEY, None)
            elsewhere = patiently(partial(self._bucket.size, str(prompt)), self._clock) if prompt else 0
            task = msgspec.convert({"prompt": "", **found}, Task)
        except (ValueError, KeyError, RecursionError) as error:
            raise ContainerEnds(EXIT_CONFIG, f"a task of the shard cannot be read: {error}") from None
        return ShardTask(task.id, task.resolved_engine, self._most(task, elsewhere), start, len(line))

    def _most(self, task: Task, elsewhere: int) -> Pico:
        """Return the most that the task's requests at one time may cost; 0 if no price is known.

        Its prompt has `elsewhere` bytes more than its line, and in JSON some more than that.
        """
        model = resolve_model(task.model)
        if task.resolved_engine == "cli":
            usage = Usage(input_tokens=_CLI_TOKENS, output_tokens=task.max_tokens)
        else:
            # A token has at least one byte.
            tokens = len(msgspec.json.encode(request_body(task, model))) + elsewhere * 9 // 8 + _ADDED_TOKENS
            usage = Usage(input_tokens=tokens, output_tokens=task.max_tokens)
        most = self._prices.cost(model, usage, DEAREST) or 0
        return most if task.max_usd is None else min(most, pico(task.max_usd))

    def body(self, task: ShardTask, batch: str) -> dict[str, Any]:
        """Return the task as the daemon takes it. Raise CallFailed if its prompt cannot be read."""
        with self._file.open("rb") as lines:
            lines.seek(task.start)
            found: dict[str, Any] = msgspec.json.decode(lines.read(task.size))
        if key := found.pop(PROMPT_KEY, None):
            found["prompt"] = self._bucket.get(str(key)).decode("utf-8", "replace")
        return found | {"batch": batch}

    def spent_by(self, place: tuple[int, int], attempt: int) -> Pico:
        """Return what the parts of an attempt's ledger say that it has spent."""
        spent = 0
        for key in patiently(partial(self._bucket.keys, self._keys.ledgers(*place)), self._clock):
            part = self._keys.part_of(key)
            if part is not None and part.attempt == attempt:
                _, charges, _ = read_ledger(patiently(partial(self._bucket.get, key), self._clock))
                spent += sum(spent_in(row) for row in charges)
        return spent
