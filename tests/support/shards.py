"""A batch's shard as AWS would run it: bucket and table in the double, the container's first program as a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from farmhand.cloud.ledger_rows import spent_in, uncertain_in
from farmhand.core import shard
from farmhand.core.bucket_keys import BatchKeys, PartName
from farmhand.core.money import pico
from farmhand.core.shard import AgentOptions, BatchItem, ShardManifest, read_ledger
from tests.support import forked_entry
from tests.support.agent import NO_CERTIFICATES
from tests.support.fakeaws.client import FakeAws
from tests.support.forked import Child
from tests.support.messages_api import DEFAULT_KEY, MessagesApi

BUCKET, TABLE, ENVIRONMENT = "farmhand-test", "farmhand-test", "test"


class Container:
    """The agent container of one attempt, without the container."""

    def __init__(self, process: Child | asyncio.subprocess.Process, root: Path) -> None:
        self.process = process
        self.root = root

    @property
    def log(self) -> str:
        """What it wrote."""
        return (self.root / "log").read_text()

    async def ended(self, within_s: float = 60) -> int:
        """Its exit code, once it has ended."""
        async with asyncio.timeout(within_s):
            return await self.process.wait()

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it ends just now
                self.process.send_signal(number)

    async def said(self, text: str, within_s: float = 30) -> None:
        """Wait until its log has this text."""
        for _ in range(int(within_s / 0.05)):
            if text in self.log:
                return
            assert self.process.returncode is None, self.log
            await asyncio.sleep(0.05)
        raise AssertionError(f"{text!r} is not in: {self.log}")


class Site:
    """An environment on AWS with one batch, whose tasks reach the Messages API at `upstream`."""

    def __init__(self, aws: FakeAws, upstream: str, batch: str = "b1") -> None:
        self.aws = aws
        self.upstream = upstream
        self.batch = batch
        self.keys = BatchKeys.of(ENVIRONMENT, batch)
        self.s3, self.dynamodb = aws.client("s3"), aws.client("dynamodb")
        self.s3.create_bucket(Bucket=BUCKET)
        self.dynamodb.create_table(
            TableName=TABLE,
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
        self._roots: list[Path] = []
        self.containers: list[Container] = []

    def put(self, key: str, body: bytes) -> None:
        """Make an object."""
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)

    def submit(
        self,
        *shards: list[dict[str, Any]],
        generation: int = 1,
        usd: str | None = None,
        patience_s: float = 1,
        **options: Any,
    ) -> None:
        """What the workstation does: the shards' tasks, the manifest, the item."""
        for number, tasks in enumerate(shards):
            lines = b"".join(json.dumps(task).encode() + b"\n" for task in tasks)
            self.put(self.keys.tasks(generation, number), lines)
        manifest = ShardManifest(
            batch=self.batch,
            generation=generation,
            environment=ENVIRONMENT,
            digest="0" * 64,
            shards=len(shards),
            tasks=sum(map(len, shards)),
            farmhand="0",
            jitter_s=options.pop("jitter_s", 0),
            patience_s=patience_s,
            concurrency=options.pop("concurrency", None),
            agent=AgentOptions(**options),
        )
        self.put(self.keys.manifest(generation), msgspec.json.encode(manifest))
        self.set_item(BatchItem(limit=None if usd is None else pico(Decimal(usd)), generation=generation))

    def set_item(self, item: BatchItem) -> None:
        """Write the batch's item, without leases."""
        self.dynamodb.put_item(TableName=TABLE, Item=shard.write_item(self.batch, item))

    def item(self) -> BatchItem:
        """The batch's item."""
        key = {"pk": {"S": shard.batch_pk(self.batch)}}
        return shard.read_item(self.dynamodb.get_item(TableName=TABLE, Key=key, ConsistentRead=True)["Item"])

    async def start(
        self,
        attempt: int = 1,
        number: int = 0,
        *,
        order: str = "",
        environ: dict[str, str] | None = None,
        program: bool = False,
    ) -> Container:
        """Start the container of an attempt, on a disk of its own; as a `program`, or forked, which is quicker."""
        root = Path(tempfile.mkdtemp(prefix="shard-"))
        self._roots.append(root)
        for volume in ("run/farmhand", "run/sandbox", "var/lib/farmhand", "tmp"):
            (root / volume).mkdir(parents=True)
        (root / "log").touch()
        variables = {
            "PATH": os.environ["PATH"],
            **NO_CERTIFICATES,
            **self.aws.environ(),
            "TMPDIR": str(root / "tmp"),
            "FARMHAND_ROOT": str(root),
            shard.ORDER: order or self.keys.order(1),
            shard.CREDENTIAL: DEFAULT_KEY,
            shard.BUCKET: BUCKET,
            shard.TABLE: TABLE,
            shard.ENVIRONMENT: ENVIRONMENT,
            shard.UPSTREAM: self.upstream,
            shard.ARRAY_INDEX: str(number),
            shard.ATTEMPT: str(attempt),
        }
        variables |= environ or {}
        if program:
            process: Child | asyncio.subprocess.Process = await _program(variables, root / "log")
        else:
            process = await asyncio.to_thread(Child, forked_entry.run, variables, root / "log")
        self.containers.append(Container(process, root))
        return self.containers[-1]

    async def run(self, attempt: int = 1, number: int = 0, within_s: float = 60, **more: Any) -> tuple[int, Container]:
        """Run an attempt to its end: its exit code, and the container."""
        container = await self.start(attempt, number, **more)
        return await container.ended(within_s), container

    async def close(self) -> None:
        """End what runs, and remove the disks."""
        for container in self.containers:
            container.send(signal.SIGKILL)
            await container.process.wait()
        for root in self._roots:
            shutil.rmtree(root, ignore_errors=True)

    def parts(self, prefix: str) -> list[tuple[PartName, bytes]]:
        """The parts below a prefix, in the order in which they count."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        keys = [row["Key"] for page in pages for row in page.get("Contents", ())]
        found = [(self.keys.part_of(key), self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()) for key in keys]
        return sorted((name, body) for name, body in found if name is not None)

    def results(self) -> list[dict[str, Any]]:
        """All results in the bucket, those that count first of their id."""
        return [json.loads(line) for _, body in self.parts(self.keys.results()) for line in body.splitlines()]

    def first(self) -> dict[str, dict[str, Any]]:
        """The result of each id that counts."""
        found: dict[str, dict[str, Any]] = {}
        for result in self.results():
            found.setdefault(result["id"], result)
        return found

    def ledgers_pico(self) -> tuple[int, int]:
        """What all ledgers in the bucket say: spent, and uncertain, in pico-dollars."""
        spent = uncertain = 0
        for _, body in self.parts(self.keys.ledgers()):
            _, charges, finished = read_ledger(body)
            spent += sum(spent_in(row) for row in charges)
            uncertain += sum(uncertain_in(row) for row in finished)
        return spent, uncertain

    def everything(self) -> bytes:
        """All objects and items, for a search."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        keys = [row["Key"] for page in pages for row in page.get("Contents", ())]
        bodies = [self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys]
        items = self.dynamodb.scan(TableName=TABLE)["Items"]
        return b"\n".join([*map(str.encode, keys), *bodies, json.dumps(items).encode()])


async def _program(environ: dict[str, str], log: Path) -> asyncio.subprocess.Process:
    with log.open("ab") as file:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "farmhand.cloud.entry"),
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def cost_pico(results: list[dict[str, Any]]) -> int:
    """The cost of results, in pico-dollars."""
    return sum(pico(Decimal(str(result["cost_usd"]))) for result in results)


def tasks(count: int, prefix: str = "t", **more: Any) -> list[dict[str, Any]]:
    """That many small tasks."""
    return [{"id": f"{prefix}{n:04d}", "prompt": f"What is {n}?", "max_tokens": 200, **more} for n in range(count)]


async def until_sent(api: MessagesApi, count: int) -> None:
    """Wait until the API has got so many requests."""
    async with asyncio.timeout(120):
        while len(api.posts) < count:  # noqa: ASYNC110  (the API has no event for it)
            await asyncio.sleep(0.05)
