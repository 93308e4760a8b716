"""The first program of the agent container on AWS: takes the credential, reads the order, runs it, and ends.

Its exit codes, the variables of its environment and the keys of the bucket are those of farmhand.core.shard.
"""

from __future__ import annotations

import os
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from farmhand.cloud import credential as credentials
from farmhand.cloud import shard_end
from farmhand.cloud.budget_lease import BudgetLease
from farmhand.cloud.calls import AwsClients, ContainerBucket, ContainerTable, connect, patiently
from farmhand.cloud.child import AgentChild, ContainerPaths, LauncherWatch
from farmhand.cloud.clone import TaskClone
from farmhand.cloud.credential import HeldCredential
from farmhand.cloud.ending import ContainerEnds, StopClock, say
from farmhand.cloud.ledger_rows import LedgerRows
from farmhand.cloud.parts import PartWriter
from farmhand.cloud.shard_run import ShardRun
from farmhand.cloud.shard_tasks import ShardTasks
from farmhand.cloud.shard_world import ShardWorld
from farmhand.cloud.single_run import SingleRun
from farmhand.cloud.verify import VerifyRun
from farmhand.core import shard, systemd, task_access
from farmhand.core.bucket_keys import PartName, read_order
from farmhand.core.errors import NotConfigured
from farmhand.core.prices import PriceTable, price_table
from farmhand.core.readable import counted
from farmhand.core.shard import AgentOptions, LeaseName, ShardManifest, SingleOrder, VerifyOrder
from farmhand.core.task import DEFAULT_TIMEOUT_S, Task

#: The first part's number.
_FIRST = 1
#: Children that start at the same moment begin at different ones: multiples of this part of `jitter_s`, modulo 1.
_SPREAD = 0.6180339887
D = TypeVar("D", ShardManifest, SingleOrder, VerifyOrder)


class ContainerOrder:
    """What the environment says: whose container this is, and where its order is. Raise ContainerEnds."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._environ = environ
        self.bucket, self.table, self.environment = map(self._text, (shard.BUCKET, shard.TABLE, shard.ENVIRONMENT))
        try:
            self.keys, self.generation = read_order(self._text(shard.ORDER))
        except ValueError as error:
            raise ContainerEnds(shard.EXIT_CONFIG, f"{shard.ORDER}: {error}") from None
        self.is_verify = environ[shard.ORDER] == self.keys.verify
        self.attempt = max(1, self._number(shard.ATTEMPT, 1))
        self.kill_s = float(max(1, self._number(shard.STOP, int(shard.STOP_S))))
        self.shard = self._number(shard.SHARD, 0) + self._number(shard.ARRAY_INDEX, 0)
        # The name is the last part of the prefix.
        self.batch = self.keys.base.rstrip("/").rpartition("/")[2]

    def _text(self, name: str) -> str:
        value = self._environ.get(name, "")
        if not value:
            raise ContainerEnds(shard.EXIT_CONFIG, f"{name} is not set: see the job's definition")
        return value

    def _number(self, name: str, default: int) -> int:
        text = self._environ.get(name, "")
        if not text:
            return default
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise ContainerEnds(shard.EXIT_CONFIG, f"{name} is {text!r:.40}, not a number")
        return int(text)


def _document(bucket: ContainerBucket, key: str, kind: type[D], clock: StopClock) -> D:
    body = patiently(partial(bucket.get, key), clock)
    try:
        found = msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ContainerEnds(shard.EXIT_CONFIG, f"{key}: {error}") from None
    if found.version != shard.VERSION:
        what = f"{key} has version {found.version}, this image knows {shard.VERSION}: push the image of this farmhand"
        raise ContainerEnds(shard.EXIT_CONFIG, what)
    return found


def _prices(text: str) -> PriceTable:
    try:
        if not text:
            return price_table()
        path = Path(os.environ.get("TMPDIR", "/tmp"), "order-prices.toml")  # noqa: S108  (the container's own)
        path.write_text(text, "utf-8")
        return price_table(path)
    except NotConfigured as error:
        raise ContainerEnds(shard.EXIT_CONFIG, f"the order's prices: {error}") from None


def _run_shard(
    order: ContainerOrder,
    generation: int,
    aws: AwsClients,
    credential: HeldCredential,
    paths: ContainerPaths,
    clock: StopClock,
) -> int:
    if credential.kind in task_access.OF_A_PLAN:
        raise ContainerEnds(shard.EXIT_CONFIG, f"a batch never runs on a {credential.kind}, which is of your plan")
    bucket = ContainerBucket(aws.s3, order.bucket)
    manifest = _document(bucket, order.keys.manifest(generation), ShardManifest, clock)
    table = ContainerTable(aws.dynamodb, order.table, manifest.batch)
    item = patiently(table.item, clock)
    if item is None:
        raise ContainerEnds(shard.EXIT_CONFIG, f"the table has no batch {manifest.batch}")
    if item.state != "running":
        raise ContainerEnds(shard.EXIT_STOPPED, f"the batch is {item.state}: {item.detail}")
    if not order.shard < manifest.shards:
        raise ContainerEnds(shard.EXIT_CONFIG, f"there is no shard {order.shard}: generation {generation} has fewer")
    if clock.pause(manifest.jitter_s * (order.shard * _SPREAD % 1)):
        raise ContainerEnds(shard.EXIT_LEFT, "SIGTERM before the start")
    place = (generation, order.shard)
    tasks = ShardTasks(bucket, order.keys, place, _prices(manifest.agent.prices), clock)
    lease = BudgetLease(table, LeaseName(*place, order.attempt), item)
    patiently(partial(lease.settle_lost, partial(tasks.spent_by, place)), clock)
    say(f"shard {order.shard}, attempt {order.attempt}: {len(tasks.todo)} of {counted(tasks.total, 'task')} to do")
    if not tasks.todo:
        return shard.EXIT_DONE
    _obtain(credential, aws, table, order, clock)
    engines = {task.engine for task in tasks.todo}
    agent = AgentChild(manifest.agent, paths, repositories=False, credential=credential.mode)
    ledger = agent.await_ready(clock)
    credential.hand_to(agent.renew_key)
    launcher = LauncherWatch(paths.launcher_socket if "cli" in engines else None)
    launcher.await_ready(order.attempt, clock)
    slots = sum(getattr(manifest.agent, f"slots_{engine}", 1) for engine in engines)
    share = shard.share_of(manifest, order.shard)
    world = ShardWorld(
        clock=clock,
        agent=agent,
        table=table,
        writer=PartWriter(bucket, order.keys, PartName(*place, order.attempt, _FIRST)),
        rows=LedgerRows(agent.transport, ledger),
        tasks=tasks,
        lease=lease,
        credential=credential,
        environment=order.environment,
        slots=slots if share is None else min(slots, share),
        concurrency=share,
        attempt=order.attempt,
        patience_s=manifest.patience_s,
        launcher=launcher,
    )
    return ShardRun(world).run()


def _obtain(
    credential: HeldCredential, aws: AwsClients, table: ContainerTable, order: ContainerOrder, clock: StopClock
) -> None:
    """Get the token of a federation. One that refuses this task stops the batch, as a refused key does."""
    try:
        credential.obtain(aws.sts, clock)
    except ContainerEnds as end:
        if end.code == shard.EXIT_REFUSED:
            why = str(end)
            code = shard_end.refused(table, order.environment, credential, "authentication_error", why)
            raise ContainerEnds(code, why) from None
        raise


def _run_single(
    order: ContainerOrder, aws: AwsClients, credential: HeldCredential, paths: ContainerPaths, clock: StopClock
) -> int:
    bucket = ContainerBucket(aws.s3, order.bucket)
    if order.keys.output("result.json") in patiently(partial(bucket.keys, order.keys.output("result.json")), clock):
        say("there is a result already")
        return shard.EXIT_DONE
    single = _document(bucket, order.keys.single, SingleOrder, clock)
    try:
        task = msgspec.convert(single.task, Task)
    except ValueError as error:
        raise ContainerEnds(shard.EXIT_CONFIG, f"the order's task cannot be read: {error}") from None
    credential.warn(task.timeout_s or DEFAULT_TIMEOUT_S)
    agent = AgentChild(single.agent, paths, repositories=task.repo is not None, credential=credential.mode)
    rows = LedgerRows(agent.transport, agent.await_ready(clock), plan=credential.mode == "plan")
    launcher = LauncherWatch(paths.launcher_socket if task.resolved_engine == "cli" else None)
    launcher.await_ready(order.attempt, clock)
    table = ContainerTable(aws.dynamodb, order.table, order.batch)
    run = SingleRun(single, order.keys, bucket, table, agent, credential, clock)
    run.launcher = launcher
    if single.clone is not None:
        run.clone = TaskClone(single.clone, credential.git_token)
    try:
        credential.obtain(aws.sts, clock)
        credential.hand_to(agent.renew_key)
    except ContainerEnds as end:
        if end.code == shard.EXIT_LEFT:
            raise
        run.refused = end
    return run.run(rows, order.attempt)


def _run_verify(
    order: ContainerOrder, aws: AwsClients, credential: HeldCredential, paths: ContainerPaths, clock: StopClock
) -> int:
    bucket = ContainerBucket(aws.s3, order.bucket)
    asked = _document(bucket, order.keys.verify, VerifyOrder, clock)
    run = VerifyRun(
        asked, order.keys, bucket, ContainerTable(aws.dynamodb, order.table, order.batch), credential, clock
    )
    if asked.again:
        return run.again(order.attempt)
    # The launcher serves nobody without an agent.
    agent = AgentChild(AgentOptions(), paths, repositories=False)
    agent.await_ready(clock)
    LauncherWatch(paths.launcher_socket).await_ready(order.attempt, clock)
    code = run.run(paths)
    agent.stop()
    return code


def _run(clock: StopClock) -> int:
    credential = credentials.take()
    systemd.keep_memory_private()
    order = ContainerOrder(dict(os.environ))
    clock.kill_s = order.kill_s
    paths, aws = ContainerPaths(os.environ.get("FARMHAND_ROOT", "")), connect()
    credential = credentials.read(credential, aws.s3, clock)
    if order.is_verify:
        return _run_verify(order, aws, credential, paths, clock)
    if order.generation is None:
        return _run_single(order, aws, credential, paths, clock)
    return _run_shard(order, order.generation, aws, credential, paths, clock)


def main() -> int:
    """Run the container's order. Return its exit code; no traceback has a value of any variable."""
    clock = StopClock()
    clock.listen()
    try:
        return _run(clock)
    except ContainerEnds as end:
        say(f"{end}: exit {end.code}")
        return end.code
    except Exception as error:
        frames = " ".join(f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-6:])
        say(f"a fault of Farmhand: {type(error).__name__}: {error}: {frames}: exit {shard.EXIT_BUG}")
        return shard.EXIT_BUG


def _leave(code: int) -> Any:
    """End at once: a thread may still wait for an answer of AWS that nobody needs."""
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
