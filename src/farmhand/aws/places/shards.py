"""A batch in the bucket: shards of tasks go in by generations, parts of results come out in an order that is kept.

Beside the objects of the contract (core.shard), all by the workstation alone:

    in/G/index            a line for each task of the generation: shard, digest of the task, id
    in/G/jobs.json        the jobs of the generation: see batch_jobs.PlannedJob
    in/G/account.json     what the generation's containers came to, written once when it has ended
    seen/NNNNNN.json      parts in the order in which they were first seen: [key, results, pico-dollars] each

A cursor counts results in the order of seen/. So it means the same to every command that attaches to the batch.
"""

from __future__ import annotations

import hashlib
import tempfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec

from farmhand import __version__
from farmhand.aws.places.bucket import BatchBucket
from farmhand.aws.places.task_index import IndexedTask, TaskIndex
from farmhand.core import money
from farmhand.core.bucket_keys import BatchKeys
from farmhand.core.errors import FarmhandError
from farmhand.core.shard import MAX_INLINE_PROMPT, PROMPT_KEY, LeaseName, LedgerPart, ShardManifest
from farmhand.core.task import Engine, Task
from farmhand.core.typed import ready
from farmhand.wire.decode import MAX_BYTES, Misfit, decode
from farmhand.wire.schema import ListedResult

#: The tasks of a shard: about ten minutes of one container. A task with tools counts as much as 25 without.
TEXT_TASKS, CLI_TASKS = 500, 20
#: Results in a reply, more or less: what one part has comes together.
MOST_RESULTS = 2000
#: Parts that are read at once, and whose results are kept until they are given out. Others are read again then.
MOST_PARTS = 100
#: Objects of seen/ that are read in one step, and how many of them at the same moment.
_MOST_LOGS, _LOGS_AT_ONCE = 200, 16
#: Containers that begin at the same moment ask the API at the same moment: seconds for each but one, and in all.
_JITTER_S, _MOST_JITTER_S = 0.1, 30.0
_CLI_WEIGHT = TEXT_TASKS // CLI_TASKS


class TaskHead(msgspec.Struct):
    """The fields of a task that say where it can run."""

    id: str
    prompt: str = ""
    engine: Engine = "auto"
    tools: tuple[str, ...] = ()
    economy: bool = False
    repo: Any = None

    @property
    def needs(self) -> tuple[str, str] | None:
        """Return what it needs that AWS Batch does not have, and where it runs instead; None if nothing."""
        if self.economy:
            return "economy", "leave --place out"
        return ("repo", "farmhand code --place fargate") if self.repo is not None else None

    @property
    def is_cli(self) -> bool:
        """Return whether it needs the CLI."""
        return Task(id=self.id, prompt="", engine=self.engine, tools=self.tools).resolved_engine == "cli"


def digest_of(line: bytes) -> bytes:
    """Return the digest of a task's line, which says whether two lines are the same task."""
    return hashlib.sha256(line).digest()[:8]


class ShardDraft:
    """A generation in the making. Full shards are uploaded and forgotten; `close` uploads the rest and the manifest.

    Until then no job knows of it, so that one that is never closed is overwritten by the next. Its tasks are in the
    index of the batch: `upload` notes there where they are.
    """

    def __init__(self, bucket: BatchBucket, keys: BatchKeys, index: TaskIndex, generation: int, shard: int = 0) -> None:
        """Begin it, with `shard` tasks in each shard; 0 means about ten minutes' work."""
        self.generation = generation
        self.cli = False
        #: The tasks that are not uploaded yet: their lines and weights by id.
        self.waiting: dict[str, tuple[bytes, int]] = {}
        self._bucket, self._keys, self._index, self._shard = bucket, keys, index, shard
        self._uploaded = self._shards = 0
        self._digest = hashlib.sha256()

    def __len__(self) -> int:
        return self._uploaded + len(self.waiting)

    def add(self, head: TaskHead, line: bytes) -> None:
        """Add a task; `upload` brings it to the bucket."""
        self.cli = self.cli or head.is_cli
        if len(head.prompt) * 4 > MAX_INLINE_PROMPT and len(text := head.prompt.encode()) > MAX_INLINE_PROMPT:
            key = self._keys.prompt(self.generation, head.id)
            self._bucket.put(key, text)
            fields = msgspec.json.decode(line)
            del fields["prompt"]
            line = msgspec.json.encode(fields | {PROMPT_KEY: key})
        self.waiting[head.id] = (line, 1 if self._shard or not head.is_cli else _CLI_WEIGHT)

    def drop(self, task_id: str) -> bool:
        """Take out a task and return True, or False if it is in the bucket already."""
        return self.waiting.pop(task_id, None) is not None

    def upload(self, *, rest: bool = False) -> None:
        """Upload the full shards, and with `rest` the last one."""
        most = self._shard or TEXT_TASKS
        while self.waiting:
            ids, weight = [], 0
            for task_id, (_, one) in self.waiting.items():
                ids.append(task_id)
                weight += one
                if weight >= most:
                    break
            if weight < most and not rest:
                return
            whole = b"".join(self.waiting[task_id][0] + b"\n" for task_id in ids)
            self._bucket.put(self._keys.tasks(self.generation, self._shards), whole)
            self._digest.update(whole)
            self._index.store(self.generation, self._shards, ids)
            for task_id in ids:
                del self.waiting[task_id]
            self._uploaded += len(ids)
            self._shards += 1

    def close(self, batch: str, environment: str, concurrency: int | None, **about: Any) -> ShardManifest:
        """Upload the rest, the index and last the manifest, which is returned; `about` are more of its fields."""
        self.upload(rest=True)
        if concurrency is not None and concurrency < self._shards:
            self._gather(concurrency)
        with tempfile.TemporaryFile() as file:
            lines = (f"{one.shard} {one.digest.hex()} {one.id}\n" for one in self._index.of(self.generation))
            file.writelines(line.encode() for line in lines)
            file.seek(0)
            self._bucket.put(f"{self._keys.order(self.generation)}index", file)
        manifest = ShardManifest(
            batch=batch,
            generation=self.generation,
            environment=environment,
            digest=self._digest.hexdigest(),
            shards=self._shards,
            tasks=self._uploaded,
            farmhand=__version__,
            engine="cli" if self.cli else "api",
            concurrency=concurrency,
            jitter_s=min(_MOST_JITTER_S, _JITTER_S * (self._shards - 1)),
            **about,
        )
        self._bucket.put(self._keys.manifest(self.generation), msgspec.json.encode(manifest))
        return manifest

    def _gather(self, most: int) -> None:
        """Put the shards into `most` ones, since each runs at least one task at a time."""
        for number in range(most):
            parts = [self._keys.tasks(self.generation, one) for one in range(number, self._shards, most)]
            self._bucket.put(parts[0], b"".join(self._bucket.get(key) or b"" for key in parts))
        self._index.gather(self.generation, most)
        self._shards = most


def read_index(bucket: BatchBucket, keys: BatchKeys, generation: int) -> Iterator[IndexedTask]:
    """Yield the tasks of a closed generation. Raise FarmhandError `bad_answer`."""
    key = f"{keys.order(generation)}index"
    try:
        for line in bucket.lines(key):
            shard, digest, task_id = line.decode().split(" ")
            yield IndexedTask(task_id, bytes.fromhex(digest), generation, int(shard))
    except ValueError:
        raise FarmhandError(f"{key} in the bucket {bucket.name} is damaged", code="bad_answer") from None


def lines_of(bucket: BatchBucket, keys: BatchKeys, generation: int, shard: int) -> Iterator[tuple[TaskHead, bytes]]:
    """Yield the tasks of a shard in the bucket, and their lines."""
    for line in (bucket.get(keys.tasks(generation, shard)) or b"").splitlines():
        yield msgspec.json.decode(line, type=ready(TaskHead)), line


class SeenPart(NamedTuple):
    """A part of the results as first seen; `first` is the cursor before it. One without a key is a remainder of cost.

    That is what the generation's ledgers have beyond its results: it counts as one result in the cursor.
    """

    key: str
    results: int
    pico: int
    first: int


class Collection:
    """The parts of a batch in the order of seen/, with the results of those that were not given out yet."""

    def __init__(self, bucket: BatchBucket, keys: BatchKeys) -> None:
        self.parts: list[SeenPart] = []
        #: The generations that may have more parts than `look` has read.
        self.behind: set[int] = set()
        self._unread: dict[int, list[str]] = {}
        self._bucket, self._keys = bucket, keys
        self._seen: set[str] = set()
        self._to_load: list[str] = []
        self._logs = 0
        self._results: dict[int, list[dict[str, Any]]] = {}

    @property
    def end(self) -> int:
        """Return the cursor after everything."""
        return self.parts[-1].first + self.parts[-1].results if self.parts else 0

    @property
    def loading(self) -> int:
        """Return how many objects of seen/ were not read yet. Before it is 0, nothing is looked for or given out."""
        return len(self._to_load)

    def begin_load(self) -> None:
        """Find what earlier commands have seen; `load_some` reads it, for a long batch in many steps."""
        self._to_load = list(self._bucket.keys(f"{self._keys.base}seen/"))

    def load_some(self) -> None:
        """Read some of what earlier commands have seen. Raise FarmhandError `bad_answer`."""
        some = self._to_load[:_MOST_LOGS]
        with ThreadPoolExecutor(max_workers=_LOGS_AT_ONCE) as pool:
            bodies = [*pool.map(self._bucket.get, some)]
        for key, body in zip(some, bodies, strict=True):
            try:
                for part, results, pico in msgspec.json.decode(body or b"[]", type=ready(list[tuple[str, int, int]])):
                    self._add(part, results, pico)
            except ValueError:
                raise FarmhandError(f"{key} in the bucket {self._bucket.name} is damaged", code="bad_answer") from None
            self._logs += 1
        del self._to_load[: len(some)]

    def look(self, generation: int) -> set[str]:
        """See new parts of a generation, about as many as a reply takes, and return the ids in them.

        `behind` has the generation afterwards if there may be more. A command that comes after a week finds thousands,
        and whoever waits for its reply must hear of it.
        """
        earlier = self._unread.pop(generation, [])
        keys = earlier or self._new_keys(generation)
        fresh: list[tuple[str, int, int]] = []
        read: dict[str, list[dict[str, Any]]] = {}
        ids: set[str] = set()
        for key in keys[:MOST_PARTS]:
            results = self._read(key)
            fresh.append((key, len(results), sum(map(cost_of, results))))
            ids.update(str(result["id"]) for result in results)
            if len(self._results) + len(read) < MOST_PARTS:
                read[key] = results
            if len(ids) >= MOST_RESULTS:
                break
        if fresh:
            self._keep(fresh)
            for part in fresh:
                number = self._add(*part)
                if part[0] in read:
                    self._results[number] = read[part[0]]
        if rest := keys[len(fresh) :]:
            self._unread[generation] = rest
        (self.behind.add if earlier or rest else self.behind.discard)(generation)
        return ids

    def _new_keys(self, generation: int) -> list[str]:
        """Return the keys of the parts that were not seen, in the order of their names."""
        listed = [
            (name, key)
            for key in self._bucket.keys(self._keys.results(generation))
            if key not in self._seen and (name := self._keys.part_of(key)) is not None
        ]
        return [key for _, key in sorted(listed)]

    def add_cost(self, pico: int) -> None:
        """Add what ledgers have beyond all results."""
        self._keep([("", 1, pico)])
        self._add("", 1, pico)

    def results(self, number: int) -> list[dict[str, Any]]:
        """Return the results of a part, which is read again if it was given out."""
        if number not in self._results and self.parts[number].key:
            self._results[number] = self._read(self.parts[number].key)
        return self._results.get(number, [])

    def forget(self, number: int) -> None:
        """Let go of the results of a part."""
        self._results.pop(number, None)

    def again(self, given: dict[str, int]) -> list[dict[str, Any]]:
        """Return once more the results of these tasks, whose parts are named."""
        found = []
        for task_id, number in given.items():
            found += [result for result in self.results(number) if result["id"] == task_id]
            self.forget(number)
        return found

    def at(self, cursor: int) -> int:
        """Return the number of the part that holds the result after `cursor`."""
        number = bisect_right(self.parts, cursor, key=lambda part: part.first) - 1
        if number >= 0 and cursor >= self.parts[number].first + self.parts[number].results:
            number += 1
        return max(number, 0)

    def of(self, generation: int) -> tuple[int, int]:
        """Return (results, pico-dollars of them) of a generation."""
        results = pico = 0
        for part in self.parts:
            if (name := self._keys.part_of(part.key)) is not None and name.generation == generation:
                results, pico = results + part.results, pico + part.pico
        return results, pico

    def charged(self, generation: int) -> dict[LeaseName, int]:
        """Return the pico-dollars of all charges in the ledgers of a generation, by who made them."""
        pico: Counter[LeaseName] = Counter()
        for key in self._bucket.keys(self._keys.ledgers(generation)):
            if (name := self._keys.part_of(key)) is None:
                continue
            head, *rows = (self._bucket.get(key) or b"").splitlines() or [b"{}"]
            try:
                charges = msgspec.json.decode(head, type=ready(LedgerPart)).charges
                pico[LeaseName(*name[:3])] += sum(cost_of(msgspec.json.decode(row)) for row in rows[:charges])
            except (ValueError, AttributeError):
                raise FarmhandError(f"{key} in the bucket {self._bucket.name} is damaged", code="bad_answer") from None
        return dict(pico)

    def _add(self, key: str, results: int, pico: int) -> int:
        self.parts.append(SeenPart(key, results, pico, self.end))
        self._seen.add(key)
        return len(self.parts) - 1

    def _keep(self, fresh: list[tuple[str, int, int]]) -> None:
        """Write down the order, before anything is given out in it. Raise FarmhandError if another command did."""
        if not self._bucket.put_new(f"{self._keys.base}seen/{self._logs:06d}.json", msgspec.json.encode(fresh)):
            hint = "one command collects a batch at a time; give this one again when the other has ended"
            raise FarmhandError("another farmhand batch collects the results of this batch", hint=hint)
        self._logs += 1

    def _read(self, key: str) -> list[dict[str, Any]]:
        """Return the results in a part. Raise FarmhandError `bad_answer`."""
        try:
            return [decode(line, ListedResult, MAX_BYTES) for line in (self._bucket.get(key) or b"").splitlines()]
        except Misfit as error:
            what = f"{key} in the bucket {self._bucket.name} is damaged: it {error}"
            raise FarmhandError(what, code="bad_answer") from None


def cost_of(row: dict[str, Any]) -> int:
    """Return the pico-dollars of a result or a charge; an unknown cost is none."""
    cost = row.get("cost_usd")
    return 0 if cost is None else money.pico_of(cost)
