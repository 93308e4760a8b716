"""One batch in the environment, as one command knows it: what it has given to AWS, and what has come back."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import msgspec

from farmhand.aws.client import Aws
from farmhand.aws.environment import requirements, used
from farmhand.aws.environment.requirements import PriceTables
from farmhand.aws.places import batch_jobs, shards
from farmhand.aws.places.batch_item import BatchTable, why_stopped
from farmhand.aws.places.batch_jobs import BatchJobs
from farmhand.aws.places.bucket import BatchBucket
from farmhand.aws.places.generations import Generation, Generations
from farmhand.aws.places.shards import Collection, ShardDraft, TaskHead, digest_of, lines_of, read_index
from farmhand.aws.places.task_index import TaskIndex
from farmhand.core.bucket_keys import BatchKeys
from farmhand.core.errors import FarmUnreachable
from farmhand.core.readable import counted, money
from farmhand.core.shard import AgentOptions, BatchItem, PlaceInfo, container_error
from farmhand.core.trace_context import TraceContext, with_trace
from farmhand.core.typed import ready
from farmhand.places.base import Order, PlaceSettings, Reply

NAME = "aws-batch"
#: The worker takes everything.
_SLOTS = 100_000_000
#: The most seconds for which last results, or the reason of an end, wait until the jobs have ended.
_HELD_S = 120.0
#: After so many seconds in which no container has begun, why that may be is said.
_STUCK_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often AWS is asked, and for how long it may fail to answer. Seconds."""

    least_s: float = 10.0
    most_s: float = 60.0
    patience_s: float = 60.0


class RunningBatch:
    """One batch in the environment, and what this command knows of it."""

    def __init__(self, aws: Aws, settings: PlaceSettings, pace: Pace, prices: PriceTables, batch: str) -> None:
        self._aws, self._settings, self._pace, self._prices = aws, settings, pace, prices
        self._batch, self._bends = batch, settings.bends
        #: Set from another thread: nothing is waited for any more.
        self.over = False
        self._bucket = BatchBucket(aws)
        self._keys = BatchKeys.of(aws.names.environment, batch)
        self._table = BatchTable(aws, batch)
        self._generations = Generations(self._bucket, self._keys, BatchJobs(aws, batch), prices.cloud)
        self._collection = Collection(self._bucket, self._keys)
        self._draft: ShardDraft | None = None
        self.index = TaskIndex()
        self._item = BatchItem()
        self._concurrency: int | None = None
        #: Whether the batch has given all that it has. Before that, no result is given out.
        self._all_given = False
        self._stopping = self._noted = False
        self._wait_s = pace.least_s
        self._look_at = 0.0
        self._held_since: float | None = None
        #: The cursor after the results of all generations that have ended, if some of their tasks may be without one.
        self._recheck: int | None = 0
        #: The generations that this command has made.
        self._ours: set[int] = set()
        self._failing_since: float | None = None
        self._trouble = ""
        self._idle_since: float | None = None

    @property
    def submitted(self) -> bool:
        """Return whether everything that was given is with AWS."""
        return (
            self._all_given
            and not self._draft
            and all(one.jobs is not None and all(job.id for job in one.jobs.jobs) for one in self._generations.live)
        )

    def attach(self) -> None:
        """Learn what the bucket has of the batch, and let it go on. Raise FarmhandError."""
        used.mark(self._aws, self._settings.conf)
        self._generations.load()
        for one in self._generations.all:
            self.index.load(read_index(self._bucket, self._keys, one.number))
        self._collection.begin_load()
        self._table.run(self._generations.all[-1].number if self._generations.all else 0)

    def exchange(self, order: Order, reply: Reply) -> None:
        """Carry out an order; see Dispatcher. Raise FarmhandError; the reply then has what was done before."""
        reply.slots = _SLOTS
        if order.limit is not None:
            self._table.limit(order.limit.pico)
            self._concurrency = order.limit.concurrency
        for task_id in order.cancel:
            self._cancel(task_id, reply)
        self._accept(order.tasks, order.trace, reply)
        more = order.more
        self._all_given = self._all_given or not more
        if order.stop:
            self._stop(reply)
        until = time.monotonic() + order.wait_s
        while True:
            self._advance(reply.next, close=not more)
            if not (more or self._collection.loading):
                self._give_out(reply)
            enough = more or reply.rest or reply.halted is not None or self.index.awaited <= order.low
            if enough or self.over or time.monotonic() >= until:
                break
            time.sleep(0 if self._collection.loading else min(0.2, self._pace.least_s))
        if self._stopping and not (self._generations.live or reply.rest or self._collection.loading):
            self._take_back(self.index.all_awaited(), reply)
        reply.unfinished = self.index.awaited
        reply.waiting += self._waiting()

    def terminate(self) -> None:
        """End all jobs. Raise FarmhandError."""
        self._stopping = True
        self._table.stop("cancelled", "stopped twice at the workstation")
        self._generations.terminate("cancelled by the operator")

    def account(self) -> dict[str, Any]:
        """Return what all generations came to so far, for the batch's summary."""
        return {"name": NAME, **self._generations.account()}

    # --- orders ---------------------------------------------------------------------------------------------------

    def _accept(self, lines: list[bytes], trace: TraceContext | None, reply: Reply) -> None:
        heads = [msgspec.json.decode(line, type=ready(TaskHead)) for line in lines]
        ids = [head.id for head in heads]
        known, given = self.index.digests(ids), self.index.given(ids)
        taken: list[tuple[str, bytes]] = []
        try:
            for head, line in zip(heads, lines, strict=True):
                digest = digest_of(line)
                if (needs := head.needs) is not None:
                    message = f"a task with {needs[0]} does not run in containers of AWS Batch"
                    reply.refused.append({"id": head.id, "code": "refused", "message": message, "hint": needs[1]})
                elif known.get(head.id, digest) != digest:
                    conflict = {"id": head.id, "code": "id_conflict", "message": "it is another task", "hint": ""}
                    reply.refused.append(conflict)
                else:
                    if head.id not in known:
                        self._drafting().add(head, with_trace(line, trace))
                    known[head.id] = digest
                    taken.append((head.id, digest))
        finally:
            self.index.wait_for(task for task in taken if task[0] not in given)
            reply.accepted += [task_id for task_id, _ in taken]
        reply.results += self._collection.again({task_id: given[task_id] for task_id, _ in taken if task_id in given})

    def _drafting(self) -> ShardDraft:
        if self._draft is None:
            generation, size = self._generations.next, self._settings.shard
            self._draft = ShardDraft(self._bucket, self._keys, self.index, generation, size)
        return self._draft

    def _cancel(self, task_id: str, reply: Reply) -> None:
        """Cancel a task that waits here. One that is in a shard may run; its cost then counts."""
        reply.cancelled.append(task_id)
        self.index.give_up([task_id])
        if self._draft is not None and self._draft.drop(task_id):
            self.index.forget([task_id])
            reply.results.append({"id": task_id, "state": "cancelled"})

    def _stop(self, reply: Reply) -> None:
        """Keep what was not submitted, and make the children stop."""
        self._stopping = True
        if self._draft is not None:
            ids = [*self._draft.waiting, *(one.id for one in self.index.of(self._draft.generation))]
            self._take_back(self.index.awaited_among(ids), reply)
            self.index.forget(ids)
            self._draft = None
        if self._generations.live:
            self._table.stop("stopping", "stopped at the workstation")
            self._settings.say("the containers stop within two minutes; the same command collects what they have done")
        self._look_at = 0.0

    def _take_back(self, ids: Iterable[str], reply: Reply) -> None:
        """Tell that these tasks will not run under their ids."""
        ids = [*ids]
        reply.stopped += ids
        reply.results += [{"id": task_id, "state": "cancelled"} for task_id in ids]
        self.index.give_up(ids)

    # --- what goes on in AWS ----------------------------------------------------------------------------------------

    def _advance(self, given: int, *, close: bool) -> None:
        """Do what is to be done in AWS. A short failure is not told. Raise FarmhandError.

        All results before the cursor `given` were given out.
        """
        try:
            if self._draft:
                self._draft.upload()
            if close and self._collection.loading:
                self._collection.load_some()
                # What earlier commands have seen: the index learns which tasks it is of when it is given out.
                self._recheck = self._collection.end
            elif close:
                if time.monotonic() >= self._look_at:
                    self._look()
                if not self._stopping:
                    self._send_again(given)
                    self._close()
        except FarmUnreachable as error:
            now = time.monotonic()
            self._failing_since = self._failing_since or now
            self._trouble = error.message
            if now - self._failing_since >= self._pace.patience_s:
                self._failing_since = None
                raise
            self._look_at = now + self._pace.least_s
        else:
            self._failing_since, self._trouble = None, ""

    def _close(self) -> None:
        """Submit the draft as a generation, and the jobs of one whose submission did not come to its end."""
        names, conf = self._aws.names, self._settings.conf
        if self._draft:
            size = "cli" if self._draft.cli else "api"
            vcpu, memory = batch_jobs.size_of(self._aws, names.definition(size))
            spot = self._settings.spot
            manifest = self._draft.close(
                self._batch,
                names.environment,
                self._concurrency,
                model=conf.model,
                agent=AgentOptions(prices=self._prices.own),
                place=PlaceInfo(name=NAME, vcpu_milli=vcpu, memory_mb=memory, spot=spot, public=self._prices.public),
            )
            made = Generation(self._draft.generation, manifest)
            self._generations.all.append(made)
            self._ours.add(made.number)
            self._draft = None
            self._say_once(size)
        for one in self._generations.live:
            if one.jobs is not None and all(job.id for job in one.jobs.jobs):
                continue
            queue = names.queue(spot=one.manifest.place.spot)
            values = requirements.containers_environment(self._aws, conf)
            self._table.run(one.number)
            self._generations.submit(one, queue, names.definition(one.manifest.engine), values)
            jobs = " and ".join(job.id for job in one.jobs.jobs) if one.jobs else ""
            where = counted(one.manifest.shards, "container")
            self._settings.say(f"{counted(one.manifest.tasks, 'task')} in {where}: {jobs}")

    def _say_once(self, size: str) -> None:
        if size == "api" and not self._noted:
            self._settings.say("none of it needs tools: --economy does it for half the price, and without containers")
        self._noted = True

    def _look(self) -> None:
        """Ask once how far everything is, and collect what is there."""
        before = (self._collection.end, len(self._generations.live))
        self._generations.describe()
        live = self._generations.live
        # Described before it is listed: what has ended has then written its last part.
        for one in live:
            self._collection.look(one.number)
        if live:
            self._item = self._table.read()
        for one in live:
            if self._generations.has_ended(one) and one.number not in self._collection.behind:
                self._end(one)
        changed = before != (self._collection.end, len(self._generations.live))
        self._wait_s = self._pace.least_s if changed else min(self._wait_s * 1.5, self._pace.most_s)
        self._look_at = 0.0 if self._collection.behind else time.monotonic() + self._wait_s

    def _end(self, one: Generation) -> None:
        """Settle a generation that has ended, and send what it has left again. Raise FarmhandError."""
        results, pico = self._collection.of(one.number)
        charged = self._collection.charged(one.number)
        if (beyond := sum(charged.values()) - pico) > 0:
            self._collection.add_cost(beyond)
        account = self._generations.settle(one, self._table.settle(one.number, charged))
        for reason, (times, pico) in account.retries.items():
            tries = counted(times, "container was", "containers were")
            self._settings.say(f"{tries} started again ({reason}); the ended attempts cost {money(pico)}")
        self._recheck = self._collection.end
        if not results and one.number in self._ours and self._item.state == "running" and not self._stopping:
            what = f"the containers of {counted(one.manifest.tasks, 'task')} ended without a result: {account.why_left}"
            raise container_error(words=account.why_left)(what, hint=f"see: farmhand cloud logs {self._batch}")

    def _send_again(self, given: int) -> None:
        """Put the tasks of ended generations that have no result into a new one."""
        if self._recheck is None or given < self._recheck or self._item.state != "running":
            return
        sent, why = 0, ""
        for one in self._generations.all:
            if one.account is None:
                continue
            for number, tasks in groupby(self.index.awaited_of(one.number), key=lambda task: task.shard):
                ids = {task.id for task in tasks if not (self._draft and task.id in self._draft.waiting)}
                for head, line in lines_of(self._bucket, self._keys, one.number, number) if ids else ():
                    if head.id in ids:
                        self._drafting().add(head, line)
                        sent, why = sent + 1, one.account.why_left
                if self._draft:
                    self._draft.upload()
        if sent:
            self._settings.say(f"{counted(sent, 'task has', 'tasks have')} no result ({why}): sent again")
        self._recheck = None

    def _give_out(self, reply: Reply) -> None:
        """Put the results after the cursor into the reply, and what ended the batch if something did."""
        parts = self._collection.parts
        number = self._collection.at(reply.next)
        while number < len(parts) and (len(reply.results) < shards.MOST_RESULTS or not parts[number].key):
            part = parts[number]
            results = self._collection.results(number)
            if self._is_last(results) and self._keeps_back():
                return
            skip = max(0, reply.next - part.first)
            ids = [str(result["id"]) for result in results[skip:]]
            first = self.index.give_out(ids, number)
            for task_id, result in zip(ids, results[skip:], strict=True):
                reply.results.append(result if task_id in first else {**result, "second": True})
                first.discard(task_id)
            if not part.key and not skip:
                reply.unclaimed_pico += part.pico
            reply.next = part.first + part.results
            self._collection.forget(number)
            number += 1
        reply.rest = number < len(parts)
        stopped = self.index.awaited and self._item.state != "running" and not self._stopping
        if stopped and not reply.rest and not self._keeps_back():
            self._say_why_it_stops(reply)

    def _is_last(self, results: list[dict[str, Any]]) -> bool:
        """Return whether nothing is left to wait for after these results."""
        awaited = self.index.awaited
        if not 0 < awaited <= len(results):
            return False
        return len(self.index.awaited_among({str(result["id"]) for result in results})) == awaited

    def _keeps_back(self) -> bool:
        """Return whether last results wait: the jobs' ends, with their costs, belong to this batch as well."""
        if not self._generations.live or self._stopping:
            return False
        self._held_since = self._held_since or time.monotonic()
        if time.monotonic() - self._held_since < _HELD_S:
            # What is awaited comes soon.
            self._look_at = min(self._look_at, time.monotonic() + self._pace.least_s)
            return True
        self._settings.say("the last containers have not ended yet: what they cost besides is not in the sum")
        return False

    def _say_why_it_stops(self, reply: Reply) -> None:
        """Put into the reply why the children stop by themselves."""
        error = why_stopped(self._item, self._batch)
        if self._item.reason == "credential":
            reply.waiting.append({"reason": "key_refused", "tasks": self.index.awaited, "detail": error.message})
        elif self._item.reason == "budget" and self._bends and not (self._generations.live or self._draft):
            # Each task is refused, so that the batch hands it in at a lower price. What is refused then too, waits.
            self._bends, self._item = False, BatchItem()
            refused = {"state": "failed", "cost_usd": 0, "error": error.as_dict()}
            ids = self.index.all_awaited()
            reply.results += [{"id": task_id, **refused} for task_id in ids]
            self.index.give_up(ids)
        else:
            reply.halted = error

    def _waiting(self) -> list[dict[str, Any]]:
        """Return the state of the jobs as a reason for waiting, and say once why nothing begins."""
        if self._trouble:
            return [{"reason": NAME, "tasks": self.index.awaited, "detail": self._trouble}]
        if left := self._collection.loading:
            detail = f"reading what earlier commands have collected: {left} lists are left"
            return [{"reason": NAME, "tasks": self.index.awaited, "detail": detail}]
        live = self._generations.live
        counts = sum((one.summary for one in live), start=Counter[str]())
        begun = sum(state.begun for one in live for state in one.states.values())
        if not counts:
            return []
        now = time.monotonic()
        self._idle_since = None if begun else self._idle_since or now
        if self._idle_since is not None and now - self._idle_since > _STUCK_S:
            self._idle_since = float("inf")
            queue = live[0].jobs.queue if live[0].jobs else ""
            spot = ", or no Spot capacity: --no-spot is for new batches" if live[0].manifest.place.spot else ""
            told = self._generations.why_waiting()
            self._settings.say(
                f"no container has begun in {_STUCK_S / 60:.0f} minutes in the queue {queue}: a quota of vCPUs is"
                f" reached (Service Quotas, AWS Fargate){spot}{f'; AWS says: {told}' if told else ''}"
            )
        words = ", ".join(f"{number} {state.lower()}" for state, number in sorted(counts.items()) if number)
        return [{"reason": NAME, "tasks": self.index.awaited, "detail": f"containers: {words}"}]
