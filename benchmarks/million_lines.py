"""A batch of a million lines through the workstation's part of `aws-batch`: python -m benchmarks.million_lines [LINES].

What is measured is the command: its journal, the shards that it makes, the results that it collects. The bucket is a
directory, and containers answer at once, in a process of their own. moto stands for the rest of AWS; its memory, about
140 MB, is in the figures. docs/aws.md has them.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

from farmhand.aws.client import Aws
from farmhand.aws.places import running_batch
from farmhand.aws.places.batch_place import AwsBatchPlace
from farmhand.aws.places.bucket import BatchBucket
from farmhand.aws.places.running_batch import Pace
from farmhand.batch.accounting import BatchLedger
from farmhand.batch.begin import BatchPlan, fill_journal, open_journal
from farmhand.batch.coordinator import Coordinator
from farmhand.batch.inputs import JsonLines
from farmhand.batch.output import OutputFile
from farmhand.batch.worker_state import WorkerLimits
from farmhand.core import shard
from farmhand.core.bucket_keys import PartName, read_order
from farmhand.core.shard import PART_RESULTS
from farmhand.places.base import PlaceSettings
from tests.support import aws_place
from tests.support.aws_place import CONF, Child, FakeAws, FakeBatch, Job

LINES = 1_000_000
KEY = "sk-ant-test-million-00000000"
#: About what 300 tokens are, and 100.
_PROMPT, _ANSWER = "word " * 240, "word " * 80
_CONTAINER = {"startedAt": 0, "stoppedAt": 1000, "statusReason": ""}


class DirectoryBucket(BatchBucket):
    """The bucket, as files below a directory."""

    top = Path()

    def get(self, key: str) -> bytes | None:
        """See BatchBucket."""
        path = self.top / key
        return path.read_bytes() if path.exists() else None

    def lines(self, key: str) -> Iterator[bytes]:
        """See BatchBucket."""
        with (self.top / key).open("rb") as file:
            yield from (line.rstrip(b"\n") for line in file)

    def put(self, key: str, body: bytes | IO[bytes]) -> None:
        """See BatchBucket."""
        (self.top / key).parent.mkdir(parents=True, exist_ok=True)
        with (self.top / key).open("wb") as file:
            file.writelines([body] if isinstance(body, bytes) else body)

    def put_new(self, key: str, body: bytes) -> bool:
        """See BatchBucket."""
        if (self.top / key).exists():
            return False
        self.put(key, body)
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        """See BatchBucket."""
        found = (self.top / prefix).rglob("*")
        yield from sorted(str(path.relative_to(self.top)) for path in found if path.is_file())


class QuickBatch(FakeBatch):
    """Jobs whose children answer everything at once."""

    def submit_job(self, **request: Any) -> dict[str, Any]:
        """Start a process that writes the results of the whole array."""
        job = Job(request, next(self._numbers))
        self.jobs[job.id] = job
        if (pid := os.fork()) == 0:
            answer(request, job.size)
            os._exit(0)
        threading.Thread(target=_ended, args=(job, pid), daemon=True).start()
        return {"jobId": job.id, "jobName": request["jobName"]}


def answer(request: dict[str, Any], size: int) -> None:
    """Write the parts of all children of an array job."""
    [container] = request["ecsPropertiesOverride"]["taskProperties"][0]["containers"]
    environ = {one["name"]: one["value"] for one in container["environment"]}
    keys, generation = read_order(environ[shard.ORDER])
    bucket, first = DirectoryBucket(Aws(CONF)), int(environ[shard.SHARD])
    rest = {"state": "succeeded", "text": _ANSWER, "cost_usd": 0.00008, "usage": {"requests": 1, "output_tokens": 100}}
    for number in range(first, first + size):
        tasks = (bucket.get(keys.tasks(generation or 0, number)) or b"").splitlines()
        lines = [json.dumps({"id": json.loads(task)["id"], **rest}) + "\n" for task in tasks]
        for part in range(0, len(lines), PART_RESULTS):
            name = PartName(generation or 0, number, 1, part // PART_RESULTS).path
            bucket.put(f"{keys.results()}{name}", "".join(lines[part : part + PART_RESULTS]).encode())


def _ended(job: Job, pid: int) -> None:
    os.waitpid(pid, 0)
    agent = [{"containers": [{"name": "agent", "exitCode": shard.EXIT_DONE}, {"name": "worker"}]}]
    for index in range(job.size):
        job.attempts[index].append({**_CONTAINER, "taskProperties": agent})
        job.status[index] = "SUCCEEDED"


def measure(directory: Path, lines: int) -> None:
    """Run the batch; print how far it is after how long, the seconds of the CPU, and the most memory so far."""
    began = time.monotonic()

    def say(what: str) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu, memory = used.ru_utime + used.ru_stime, used.ru_maxrss // 1024
        print(f"{what}: {time.monotonic() - began:.0f} s, CPU {cpu:.0f} s, at most {memory} MB", flush=True)

    DirectoryBucket.top = directory / "bucket"
    key = directory / "key.env"
    key.touch(0o600)
    key.write_text(f"ANTHROPIC_API_KEY={KEY}\n")
    with (directory / "in.jsonl").open("w") as file:
        file.writelines(f"{json.dumps(f'{number}: {_PROMPT}')}\n" for number in range(lines))
    say("the input is there")
    settings = PlaceSettings(project_dir=Path(), conf=CONF, say=print)
    place = AwsBatchPlace(settings, FakeAws(QuickBatch(Child())), Pace(least_s=1.0, most_s=5.0))
    out = directory / "out.jsonl"
    journal = open_journal(out, [])
    with (directory / "in.jsonl").open("rb") as source:
        fill_journal(BatchPlan(JsonLines(source, {}), "", {}), journal, CONF._replace(key_source=f"file:{key}"))
    say("the journal is filled")
    output = OutputFile(out, journal, ordered=False)
    book = BatchLedger(journal, output)
    coordinator = Coordinator(book, place, KEY, WorkerLimits(), print)
    told = threading.Event()

    def tick() -> None:
        if place.submitted and not told.is_set():
            told.set()
            say("all of it is with AWS")

    coordinator.run(tick)
    if coordinator.error is not None:
        raise coordinator.error
    say(f"{book.totals.succeeded} of {lines} results are in the output")
    output.close()
    journal.close()


if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory(prefix="million") as made,
        aws_place.environment(),
        patch.object(running_batch, "BatchBucket", DirectoryBucket),
    ):
        measure(Path(made), int(sys.argv[1]) if sys.argv[1:] else LINES)
