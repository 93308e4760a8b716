"""Faults of S3 and DynamoDB: they cost time, and no answer; and no program or object ever has the key."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from farmhand.core import shard
from tests.support.messages_api import DEFAULT_KEY, MessagesApi
from tests.support.shards import Site, cost_pico, tasks, until_sent


async def test_faults_of_s3_and_dynamodb_lose_and_count_nothing_twice(site: Site, api: MessagesApi) -> None:
    api.state.latency_s = 0.05
    site.submit(tasks(300), usd="1", slots_api=8)
    site.aws.faults(
        {"service": "s3", "action": "GET /", "times": 2, "status": 503, "code": "SlowDown"},
        # Two writes at once: botocore does not try that again.
        {"service": "s3", "action": "PUT /", "times": 1, "status": 409, "code": "ConditionalRequestConflict"},
        # Carried out, and the answer lost: the next try meets its own object.
        {"service": "s3", "action": "PUT /", "skip": 1, "times": 1, "reset": True, "after": True},
        {"service": "s3", "action": "PUT /", "skip": 2, "times": 4, "status": 500, "code": "InternalError"},
        # Leases whose answer is lost count once.
        {"service": "dynamodb", "action": "UpdateItem", "skip": 1, "times": 1, "reset": True, "after": True},
        {"service": "dynamodb", "action": "UpdateItem", "skip": 2, "times": 2, "code": "ThrottlingException"},
        {"service": "dynamodb", "action": "GetItem", "times": 1, "code": "InternalServerError"},
    )
    code, container = await site.run(within_s=120)
    assert code == shard.EXIT_DONE, container.log
    assert len(site.aws.hits) >= 8
    assert len(site.results()) == len(site.first()) == len(api.posts) == 300
    item = site.item()
    assert (item.leased, item.leases, item.uncertain) == (0, {}, 0)
    assert item.taken == item.spent == cost_pico(site.results()) == site.ledgers_pico()[0]


async def test_what_the_bucket_does_not_take_is_named_in_the_log(site: Site, api: MessagesApi) -> None:
    site.submit(tasks(12), usd="1")
    site.aws.faults({"service": "s3", "action": "PUT /", "times": 10_000, "status": 500, "code": "InternalError"})
    container = await site.start(environ={shard.STOP: "8"})
    await container.said("writing test/batches/b1/")
    container.send(signal.SIGTERM)
    assert await container.ended(8) == shard.EXIT_LEFT, container.log
    assert sorted(line for line in container.log.splitlines() if "unsaved" in line) == [
        f"farmhand: unsaved t{n:04d}" for n in range(12)
    ]
    # Its lease is settled all the same; nothing was written, so another attempt does it all.
    assert site.item().leases == {}
    assert site.item().spent > 0
    site.aws.faults()
    assert (await site.run(2))[0] == shard.EXIT_DONE
    assert len(site.results()) == 12


async def test_a_bucket_that_takes_nothing_gets_no_more_work_to_lose(site: Site, api: MessagesApi) -> None:
    site.submit(tasks(900, max_tokens=16), slots_api=16)
    site.aws.faults({"service": "s3", "action": "PUT /", "times": 10_000, "status": 500, "code": "InternalError"})
    container = await site.start(environ={shard.STOP: "8"})
    before = -1
    while len(api.posts) != before or before <= 0:
        before = len(api.posts)
        await asyncio.sleep(2)
    assert 100 <= before < 700
    site.aws.faults()
    assert await container.ended(120) == shard.EXIT_DONE, container.log
    assert len(site.results()) == len(site.first()) == 900


async def test_the_key_is_in_no_argument_environment_log_object_or_item(site: Site, api: MessagesApi) -> None:
    api.state.latency_s = 0.2
    site.submit(tasks(60), usd="1", slots_api=4)
    container = await site.start(program=True)  # its arguments and environment are its own
    await until_sent(api, 4)
    found = [path for path in _texts_of_processes(container.process.pid) if DEFAULT_KEY.encode() in path[1]]
    assert [name for name, _ in found] == []
    blotted = [name for name, text in _texts_of_processes(container.process.pid) if b"xxxxxxxx" in text]
    assert blotted == ["entry environ"]
    # The daemon does not learn the way to the task role's credentials either.
    assert [name for name, text in _texts_of_processes(container.process.pid) if b"AWS_" in text] == ["entry environ"]
    # Its memory is its own, in a core file too.
    limits = Path(f"/proc/{container.process.pid}/limits").read_text().splitlines()
    assert [row.split()[4:6] for row in limits if row.startswith("Max core")] == [["0", "0"]]
    assert await container.ended() == shard.EXIT_DONE, container.log
    assert DEFAULT_KEY not in container.log
    assert DEFAULT_KEY.encode() not in site.everything()
    files = [path for path in container.root.rglob("*") if path.is_file()]
    assert files
    assert [path.name for path in files if DEFAULT_KEY.encode() in path.read_bytes()] == []
    assert "x-api-key" in api.posts[0].headers


def _texts_of_processes(entry: int) -> list[tuple[str, bytes]]:
    """Arguments and environment of the container's processes."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(dict(row.split(":", 1) for row in (proc / "status").read_text().splitlines())["PPid"])
            if int(proc.name) == entry or parent == entry:
                name = "entry" if int(proc.name) == entry else "agent"
                found += [(f"{name} {what}", (proc / what).read_bytes()) for what in ("cmdline", "environ")]
        except (OSError, KeyError, ValueError):
            continue
    assert {name for name, _ in found} == {"entry cmdline", "entry environ", "agent cmdline", "agent environ"}
    return found
