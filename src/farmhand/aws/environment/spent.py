"""What ran on AWS and what its containers came to: as the bucket has it, and as AWS tells it of what has not ended."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import msgspec

from farmhand.aws.client import Aws
from farmhand.aws.environment.stretches import ContainerRun, Stretch, gather
from farmhand.aws.errors import code_of, explained
from farmhand.aws.places.batch_jobs import BatchJobs
from farmhand.aws.places.bucket import BatchBucket
from farmhand.aws.places.generations import Account, JobList
from farmhand.aws.places.shards import cost_of
from farmhand.aws.places.task_tries import EndedTry, TaskTry, placed, run_of
from farmhand.aws.prices import CloudPrices
from farmhand.core.bucket_keys import BatchKeys
from farmhand.core.errors import FarmhandError
from farmhand.core.shard import BatchItem, ShardManifest, SingleOrder, SingleResult, read_item, read_ledger
from farmhand.core.typed import ready

_KEY = re.compile(r"[^/]+/batches/([^/]+)/(.+)")
_GENERATION = re.compile(r"in/(\d+)/jobs\.json")
_HUNDRED = 100
#: How far a container's clock may be ahead of this machine's, in seconds.
_SKEW_S = 3600
#: How long the bucket keeps what is of batches (aws/data.yaml).
KEPT_S = 30 * 86400
T = TypeVar("T")


@dataclass
class ContainerSum:
    """What the containers of a generation of a batch, or of a try of a single task, came to.

    `source` is the bucket's key that says so, or would. What is not `settled` may still change: it is what AWS says of
    containers that run. The time of `unknown` containers is not known any more: nobody noted it, and AWS has forgotten.
    """

    source: str
    id: str
    kind: str
    stretches: list[Stretch] = field(default_factory=list)
    settled: bool = False
    unknown: int = 0
    spot: bool = False


class _OpenTry(NamedTuple):
    """The last try of a single task that nobody has noted the end of."""

    keys: BatchKeys
    id: str
    one: TaskTry
    order: SingleOrder


class SpentRecords:
    """What is in the environment's bucket now. Raise FarmhandError."""

    def __init__(self, aws: Aws, prices: CloudPrices, now: float | None = None) -> None:
        self._aws, self._prices = aws, prices
        self._now = time.time() if now is None else now
        self.bucket = BatchBucket(aws)
        self._open: list[_OpenTry] = []
        #: What `sums` could not read; all else was summed.
        self.damaged: list[FarmhandError] = []

    @cached_property
    def by_id(self) -> dict[str, dict[str, str]]:
        """The keys of each batch and single task: by its id, and by what comes below its prefix."""
        found: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for key in self.bucket.keys(f"{self._aws.names.environment}/batches/"):
            if parts := _KEY.fullmatch(key):
                found[parts[1]][parts[2]] = key
        return dict(found)

    @property
    def ledgers(self) -> list[str]:
        """The keys of all parts of ledgers."""
        return [key for keys in self.by_id.values() for rest, key in keys.items() if rest.startswith("ledger/")]

    def sums(self, skip: Container[str] = ()) -> Iterator[ContainerSum]:
        """Yield what all containers came to, but for settled sums from the keys in `skip`."""
        self._open, self.damaged = [], []
        for name, keys in self.by_id.items():
            single = "in/order.json" in keys
            try:
                found = [*(self._tries(name, keys, skip) if single else self._generations(name, keys, skip))]
            except FarmhandError as error:
                if error.code != "bad_answer":
                    raise
                self.damaged.append(error)
                continue
            yield from found
        yield from self._open_tries()

    def model_pico(self, name: str) -> int | None:
        """Return the model's cost of a single task, that of all its tries; None if nothing is known of it."""
        keys = self.by_id.get(name, {})
        key = keys.get("out/result.json")
        found = self._read(key, SingleResult) if key else None
        try:
            pico = cost_of(found.result) if found and found.result.get("cost_usd") is not None else None
        except (ArithmeticError, ValueError):
            raise self._damaged(str(key), "its cost is no number") from None
        if found and sum(rest.startswith("in/runs/") for rest in keys) < 2:
            return pico
        # A result is that of one try. What a try without one has cost is in its ledger.
        ledgers = [key for rest, key in keys.items() if rest.startswith("ledger/")]
        return sum(map(self._charged, ledgers)) if ledgers else pico

    def _charged(self, key: str) -> int:
        try:
            return sum(cost_of(msgspec.json.decode(row)) for row in read_ledger(self.bucket.get(key) or b"")[1])
        except (ArithmeticError, AttributeError, ValueError):
            raise self._damaged(key, "it is no part of a ledger") from None

    def _generations(self, name: str, keys: dict[str, str], skip: Container[str]) -> Iterator[ContainerSum]:
        base = BatchKeys.of(self._aws.names.environment, name)
        for rest in keys:
            if not (found := _GENERATION.fullmatch(rest)):
                continue
            source = f"{base.order(int(found[1]))}account.json"
            if source in skip:
                continue
            manifest = self._read(base.manifest(int(found[1])), ShardManifest)
            made = ContainerSum(source, name, "batch", spot=manifest.place.spot)
            if source in keys.values():
                made.stretches, made.settled = self._read(source, Account).stretches, True
            else:
                self._look(made, self._read(keys[rest], JobList), manifest)
            yield made

    def _look(self, made: ContainerSum, listed: JobList, manifest: ShardManifest) -> None:
        """Ask AWS Batch for the containers of a generation that nobody has collected."""
        jobs, runs = BatchJobs(self._aws, made.id), []
        sent = [job for job in listed.jobs if job.id]
        known = jobs.describe([job.id for job in sent])
        for job in sent:
            if job.id not in known:
                made.unknown += job.size
                continue
            tries = jobs.attempts(job, self._now)
            runs += [ContainerRun(one.began_at, one.ended_at) for one in tries if one.ended_at > one.began_at]
        made.stretches = gather(runs, manifest.place, self._prices)
        made.settled = len(sent) == len(listed.jobs) and all(job.id in known and known[job.id].ended for job in sent)

    def _tries(self, name: str, keys: dict[str, str], skip: Container[str]) -> Iterator[ContainerSum]:
        base = BatchKeys.of(self._aws.names.environment, name)
        begun = keys.get("in/run.json", "")
        last = self._read(begun, TaskTry) if begun and begun not in skip else None
        for key in keys.values():
            if base.try_of(key) is not None and key not in skip:
                ended = self._read(key, EndedTry)
                yield ContainerSum(key, name, "task", ended.stretches, settled=True, spot=ended.spot)
        known = set(keys.values())
        numbers = range(1, last.number + 1 if last else 0)
        missing = [one for one in numbers if base.tried(one) not in known and base.tried(one) not in skip]
        if last and not missing and base.output("result.json") in known:
            # Nothing will be begun any more.
            yield ContainerSum(begun, name, "task", settled=True)
        for number in missing:
            source = base.tried(number)
            if last and number == last.number:
                self._open.append(_OpenTry(base, name, last, self._read(base.single, SingleOrder)))
            else:
                yield ContainerSum(source, name, "task", unknown=1)

    def _open_tries(self) -> Iterator[ContainerSum]:
        """Yield tries whose end nobody has noted: by ECS, which knows a task for an hour, or the container's clock."""
        for start in range(0, len(self._open), _HUNDRED):
            some = self._open[start : start + _HUNDRED]
            known = self._described([one.one.arn for one in some if one.one.arn])
            for keys, name, one, order in some:
                task = known.get(one.arn, {})
                place, runs = placed(order.place, task), run_of(task, self._now)
                if not runs and keys.output("result.json") in self.by_id[name].values():
                    runs = self._own_clock(keys.output("result.json"))
                made = ContainerSum(keys.tried(one.number), name, "task", spot=place.spot)
                made.stretches = gather(runs, place, self._prices)
                made.unknown = 0 if runs or task else 1
                made.settled = bool(task.get("stoppedAt"))
                yield made

    def _own_clock(self, key: str) -> list[ContainerRun]:
        """Return the run that a task's result tells of. The container wrote it: a time that cannot be is no run."""
        try:
            done = self._read(key, SingleResult)
        except FarmhandError as error:
            self.damaged.append(error)
            return []
        if done.started_at <= done.stopped_at <= self._now + _SKEW_S:
            return [ContainerRun(done.started_at, done.stopped_at)]
        self.damaged.append(self._damaged(key, "its times cannot be"))
        return []

    def _described(self, arns: list[str]) -> dict[str, dict[str, Any]]:
        if not arns:
            return {}
        with explained("asking how far tasks are"):
            try:
                found = self._aws.client("ecs").describe_tasks(cluster=self._aws.names.base, tasks=arns)["tasks"]
            except Exception as error:
                if code_of(error) != "ClusterNotFoundException":
                    raise
                return {}
        return {str(task["taskArn"]): task for task in found}

    def _read(self, key: str, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(self.bucket.get(key) or b"", type=ready(kind))
        except ValueError as error:
            raise self._damaged(key, str(error)) from None

    def _damaged(self, key: str, why: str) -> FarmhandError:
        return FarmhandError(f"{key} in the bucket {self.bucket.name} is damaged: {why}", code="bad_answer")


def batch_items(aws: Aws) -> Iterator[tuple[str, BatchItem]]:
    """Yield the batches of the table with their items. Raise FarmhandError; a table that is not there has none."""
    table, prefix = aws.names.base, "batch#"
    with explained(f"reading the table {table}"):
        pages = (
            aws.client("dynamodb")
            .get_paginator("scan")
            .paginate(
                TableName=table,
                FilterExpression="begins_with(pk, :prefix)",
                ExpressionAttributeValues={":prefix": {"S": prefix}},
            )
        )
        try:
            for page in pages:
                for item in page["Items"]:
                    name = item.pop("pk")["S"].removeprefix(prefix)
                    yield name, read_item(item)
        except Exception as error:
            if code_of(error) != "ResourceNotFoundException":
                raise
