"""The place `aws-batch`: one worker, the environment, to which a batch gives all its tasks at once.

They are cut into shards, and the children of array jobs run those (docs/aws.md). To the batch the worker is like any
other: a task that is sent again is recognised, a result comes once, in an order that a cursor counts. What makes this
true after a crash is in the bucket: see shards and generations. The batch sends a new command all that has no result
yet, so the tasks that such a command does not find in the bucket are those that never arrived.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from farmhand.aws.client import Aws
from farmhand.aws.environment import requirements
from farmhand.aws.places.bucket import BatchBucket
from farmhand.aws.places.running_batch import NAME, Pace, RunningBatch
from farmhand.aws.places.task_rows import TaskRowReader
from farmhand.core.bucket_keys import BatchKeys
from farmhand.core.errors import FarmhandError, FarmUnreachable
from farmhand.core.trace_context import traces_url
from farmhand.places.base import Dispatcher, Order, PlaceSettings, Reply, TaskRows


class AwsBatchPlace:
    """The environment of the settings. Making it checks that it is there, and makes nothing. Raise NotConfigured."""

    name = NAME

    def __init__(self, settings: PlaceSettings, aws: Aws | None = None, pace: Pace | None = None) -> None:
        self._aws = aws or Aws(settings.conf)
        self._settings = settings
        self._pace = pace or Pace()
        outputs = requirements.require(self._aws, batch=True)
        self._prices = requirements.price_tables(self._aws, settings.conf, outputs)
        self.worker = f"{NAME}:{self._aws.names.environment}"
        self._batch: RunningBatch | None = None
        self._reader: TaskRowReader | None = None

    @property
    def submitted(self) -> bool:
        """Return whether all work is with AWS, so that it goes on without this process."""
        return self._batch is not None and self._batch.submitted

    def run(self, batch: Dispatcher) -> None:
        """Run the batch; see Place."""
        while (order := batch.take(self.worker, 1)) is not None:
            batch.give(self.worker, self.exchange(order))
        batch.left(self.worker, "the batch is over")

    def exchange(self, order: Order) -> Reply:
        """Carry out an order. Raise FarmhandError if none can be any more."""
        reply = Reply(next=order.cursor)
        try:
            if self._batch is None:
                made = RunningBatch(self._aws, self._settings, self._pace, self._prices, order.batch)
                made.attach()
                self._batch = made
            self._batch.exchange(order, reply)
        except FarmUnreachable as error:
            # What was given out counts. What was taken is not with AWS yet: it is sent again, and known then.
            reply.error = type(error)(f"{self.worker}: {error.message}", hint=error.hint, code=error.code)
            reply.accepted = []
        if reply.results and traces_url(self._settings.conf.otel_endpoint):
            # They are for the spans of tasks, for which no result is given up.
            with suppress(FarmhandError):
                reply.rows = self._rows_of(reply.results, order.batch)
        return reply

    def _rows_of(self, results: list[dict[str, Any]], batch: str) -> dict[str, TaskRows]:
        if self._batch is None:
            return {}
        if self._reader is None:
            keys = BatchKeys.of(self._aws.names.environment, batch)
            self._reader = TaskRowReader(BatchBucket(self._aws), keys)
        of_shard: dict[tuple[int, int], list[str]] = {}
        for task in self._batch.index.stored(str(result["id"]) for result in results):
            of_shard.setdefault((task.generation, task.shard), []).append(task.id)
        rows: dict[str, TaskRows] = {}
        for shard, ids in of_shard.items():
            rows |= self._reader.of(ids, *shard)
        return rows

    def kill(self) -> None:
        """Wait for nothing any more; see Place. The jobs go on."""
        if self._batch is not None:
            self._batch.over = True

    def terminate(self) -> None:
        """End all jobs; see LastingPlace."""
        if self._batch is not None:
            try:
                self._batch.terminate()
            except FarmhandError as error:
                self._settings.say(f"the jobs may still run: {error}")

    def account(self) -> dict[str, Any]:
        """Return what the containers came to, for the batch's summary."""
        return self._batch.account() if self._batch is not None else {}


def place(settings: PlaceSettings) -> AwsBatchPlace:
    """Return the place with these settings; see AwsBatchPlace."""
    return AwsBatchPlace(settings)
