"""The generations of a batch: which jobs they are, whether those have ended, and what their containers came to."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from farmhand.aws.environment.stretches import ContainerRun, Stretch, gather, price_of
from farmhand.aws.places.batch_jobs import BatchJobs, ChildAttempt, JobState, PlannedJob, plan
from farmhand.aws.places.bucket import BatchBucket
from farmhand.aws.prices import CloudPrices
from farmhand.core import shard
from farmhand.core.bucket_keys import BatchKeys
from farmhand.core.errors import FarmhandError
from farmhand.core.money import plain
from farmhand.core.shard import ShardManifest
from farmhand.core.typed import ready

#: For so many seconds a job may be missing from a description: a new one is not known at once (Netflix/metaflow#543).
_UNKNOWN_S = 60.0


class JobList(msgspec.Struct, kw_only=True):
    """`in/G/jobs.json`: the queue, and its jobs. It is written before the first is submitted, and after each."""

    queue: str
    definition: str
    jobs: list[PlannedJob]


class Account(msgspec.Struct, kw_only=True):
    """What the containers of a generation came to. `stretches` are those of all attempts, with their money.

    `retries` has the reasons why attempts were repeated, how often, and the pico-dollars of those attempts; `failed`
    the reasons of the last attempts that ended with work left.
    """

    children: int = 0
    attempts: int = 0
    seconds: float = 0.0
    stretches: list[Stretch] = []
    retries: dict[str, tuple[int, int]] = {}
    failed: dict[str, int] = {}
    unsettled_pico: int = 0

    @property
    def pico(self) -> int:
        """Return what Fargate asks for all attempts."""
        return sum(stretch.pico for stretch in self.stretches)

    @property
    def why_left(self) -> str:
        """Return the most frequent reason of ends with work left."""
        return max(self.failed, key=self.failed.__getitem__, default="they ended before their work did")


@dataclass
class Generation:
    """A generation that is closed. `account` is None until it has ended and everything of it was collected."""

    number: int
    manifest: ShardManifest
    jobs: JobList | None = None
    account: Account | None = None
    states: dict[str, JobState] = field(default_factory=dict)

    @property
    def summary(self) -> Counter[str]:
        """Return its children by state."""
        counts: Counter[str] = Counter()
        for state in self.states.values():
            counts.update(state.summary)
        return counts


class Generations:
    """All generations of a batch, as they are in the bucket."""

    def __init__(self, bucket: BatchBucket, keys: BatchKeys, jobs: BatchJobs, prices: CloudPrices) -> None:
        self.all: list[Generation] = []
        self._bucket, self._keys, self._jobs, self._prices = bucket, keys, jobs, prices
        #: Since when AWS does not know a job (monotonic clock).
        self._unknown: dict[str, float] = {}

    @property
    def live(self) -> list[Generation]:
        """Return those whose jobs have not ended, or that were not collected."""
        return [one for one in self.all if one.account is None]

    @property
    def next(self) -> int:
        """Return the number of the next one."""
        return self.all[-1].number + 1 if self.all else 0

    def load(self) -> None:
        """Read the closed ones. Raise FarmhandError `bad_answer`."""
        prefix = f"{self._keys.base}in/"
        found = [key for key in self._bucket.keys(prefix) if key.endswith("/manifest.json")]
        numbers = sorted(int(key.removeprefix(prefix).split("/")[0]) for key in found)
        for number in numbers:
            manifest = self._object(self._keys.manifest(number), ShardManifest)
            made = Generation(number, manifest)
            made.jobs = self._object(f"{self._keys.order(number)}jobs.json", JobList)
            made.account = self._object(f"{self._keys.order(number)}account.json", Account)
            self.all.append(made)

    def submit(self, one: Generation, queue: str, definition: str, environment: dict[str, str]) -> None:
        """Submit the jobs of a generation that were not, however often this is called. Raise FarmhandError."""
        fresh, listed = one.jobs is None, one.jobs
        if listed is None:
            manifest = one.manifest
            planned = plan(manifest.environment, manifest.batch, one.number, manifest.shards)
            listed = JobList(queue=queue, definition=definition, jobs=planned)
            self._keep(one, listed)
        for number, job in enumerate(listed.jobs):
            if job.id:
                continue
            # A command that was killed here may have submitted it just now.
            found = self._jobs.find(listed.queue, job.name, patiently=not fresh)
            order = {shard.ORDER: self._keys.order(one.number), shard.SHARD: str(job.first)}
            made = found or self._jobs.submit(job, listed.queue, listed.definition, environment | order)
            listed.jobs[number] = job._replace(id=made)
            self._keep(one, listed)

    def describe(self) -> None:
        """Ask for the states of all jobs that have not ended, a hundred in a call. Raise FarmhandError."""
        wanted = {job.id: one for one in self.live if one.jobs for job in one.jobs.jobs if job.id}
        wanted = {job: one for job, one in wanted.items() if job not in one.states or not one.states[job].ended}
        found = self._jobs.describe([*wanted])
        now = time.monotonic()
        for job, one in wanted.items():
            if job in found:
                one.states[job] = found[job]
                self._unknown.pop(job, None)
            elif now - self._unknown.setdefault(job, now) >= _UNKNOWN_S:
                # AWS forgets a job some days after its end.
                one.states[job] = JobState(job, "FAILED", "AWS Batch has forgotten it", {}, 0.0)

    def why_waiting(self) -> str:
        """Return what AWS says about a job that has not begun, "" if it says nothing.

        Of an array it says that of the children, so one of them is asked for.
        """
        jobs = [job for one in self.live if one.jobs for job in one.jobs.jobs if job.id]
        told = [state.reason for one in self.live for state in one.states.values() if state.reason]
        if not told:
            first = [f"{job.id}:0" for job in jobs if job.size > 1][:1]
            with suppress(FarmhandError):
                told = [state.reason for state in self._jobs.describe(first).values() if state.reason]
        return next(iter(told), "")

    def has_ended(self, one: Generation) -> bool:
        """Return whether none of its jobs runs or will run, as last described."""
        ids = [job.id for job in one.jobs.jobs] if one.jobs else []
        return bool(ids) and all(job in one.states and one.states[job].ended for job in ids)

    def settle(self, one: Generation, unsettled_pico: int) -> Account:
        """Write down what an ended generation came to, and return it. Raise FarmhandError."""
        account = Account(unsettled_pico=unsettled_pico)
        place = one.manifest.place
        retries: dict[str, list[int]] = {}
        failed: Counter[str] = Counter()
        runs = []
        for job in one.jobs.jobs if one.jobs else []:
            account.children += job.size
            for attempt in self._jobs.attempts(job):
                account.attempts += 1
                seconds = round(attempt.ended_at - attempt.began_at, 3)
                account.seconds += seconds
                if seconds:
                    runs.append(ContainerRun(attempt.began_at, attempt.ended_at))
                if not attempt.last:
                    retries.setdefault(reason_of(attempt), []).append(price_of(self._prices, place, seconds))
                elif attempt.exit_code != shard.EXIT_DONE:
                    failed[reason_of(attempt)] += 1
        account.retries = {reason: (len(costs), sum(costs)) for reason, costs in retries.items()}
        account.failed = dict(failed)
        account.stretches = gather(runs, place, self._prices)
        self._bucket.put(f"{self._keys.order(one.number)}account.json", msgspec.json.encode(account))
        one.account = account
        return account

    def account(self) -> dict[str, Any]:
        """Return what all generations that have ended came to, for JSON; amounts are exact strings in US$."""
        accounts = [one.account for one in self.all if one.account is not None]
        retries: dict[str, list[int]] = {}
        for one in accounts:
            for reason, (times, pico) in one.retries.items():
                total = retries.setdefault(reason, [0, 0])
                total[0], total[1] = total[0] + times, total[1] + pico
        return {
            "jobs": [job.id for one in self.all if one.jobs for job in one.jobs.jobs],
            "containers": sum(one.children for one in accounts),
            "attempts": sum(one.attempts for one in accounts),
            "seconds": round(sum(one.seconds for one in accounts), 1),
            "usd": plain(sum(one.pico for one in accounts)),
            "retries": [{"reason": why, "times": n, "usd": plain(pico)} for why, (n, pico) in retries.items()],
            "unsettled_usd": plain(sum(one.unsettled_pico for one in accounts)),
        }

    def terminate(self, reason: str) -> None:
        """End all jobs that have not ended. Raise FarmhandError."""
        for one in self.live:
            for job in one.jobs.jobs if one.jobs else []:
                if job.id and not (job.id in one.states and one.states[job.id].ended):
                    self._jobs.terminate(job.id, reason)

    def _keep(self, one: Generation, jobs: JobList) -> None:
        self._bucket.put(f"{self._keys.order(one.number)}jobs.json", msgspec.json.encode(jobs))
        one.jobs = jobs

    def _object(self, key: str, kind: Any) -> Any:
        text = self._bucket.get(key)
        try:
            return None if text is None else msgspec.json.decode(text, type=ready(kind))
        except ValueError as error:
            what = f"{key} in the bucket {self._bucket.name} is damaged: {error}"
            raise FarmhandError(what, code="bad_answer") from None


def reason_of(attempt: ChildAttempt) -> str:
    """Return why an attempt ended, in a line that is the same for all that ended so."""
    if attempt.reason.startswith("Your Spot Task was interrupted"):
        return "Spot interruption"
    if attempt.memory:
        return attempt.memory
    if attempt.exit_code is not None:
        known = shard.ENDS.get(attempt.exit_code)
        return known.words if known else f"exit status {attempt.exit_code}"
    return " ".join(attempt.reason.split())[:200] or "AWS gives no reason"
