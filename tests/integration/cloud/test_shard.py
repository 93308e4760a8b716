"""A shard of a batch: all its results in the bucket, each once, whatever ends its container."""

from __future__ import annotations

import asyncio
import random
import signal

from farmhand.core import shard
from farmhand.core.shard import BatchItem
from tests.support.messages_api import Fault, MessagesApi
from tests.support.shards import Site, cost_pico, tasks, until_sent


async def test_every_task_of_the_shard_has_its_result_in_parts(site: Site, api: MessagesApi) -> None:
    site.submit(tasks(230), tasks(3, "other"))
    code, container = await site.run()
    assert code == shard.EXIT_DONE, container.log
    assert sorted(site.first()) == [f"t{n:04d}" for n in range(230)]
    assert len(site.results()) == len(api.posts) == 230
    assert {result["state"] for result in site.results()} == {"succeeded"}
    parts = site.parts(site.keys.results())
    assert [name.part for name, _ in parts] == list(range(1, len(parts) + 1))
    assert all(len(body.splitlines()) <= 100 for _, body in parts)
    assert site.ledgers_pico() == (cost_pico(site.results()), 0)
    assert (await site.run(number=1))[0] == 0
    assert len(site.first()) == 233
    # A single shard is a plain job, which names it.
    assert (await site.run(environ={shard.ARRAY_INDEX: "", shard.SHARD: "1"}))[0] == 0
    assert len(site.results()) == len(api.posts) == 233


async def test_a_long_prompt_is_an_object_of_its_own(site: Site, api: MessagesApi) -> None:
    prompt = "A long word of many. " * 20_000
    key = site.keys.prompt(1, "long")
    site.put(key, prompt.encode())
    site.submit([*tasks(2), {"id": "long", shard.PROMPT_KEY: key, "max_tokens": 100}], usd="1")
    code, container = await site.run()
    assert code == shard.EXIT_DONE, container.log
    assert prompt in max(post.body for post in api.posts if len(post.body) > 10_000)
    assert len(site.results()) == 3
    site.submit([{"id": "gone", shard.PROMPT_KEY: site.keys.prompt(1, "gone")}])
    code, container = await site.run(2)
    assert code == shard.EXIT_CONFIG
    assert "prompts/gone: 404" in container.log


async def test_killed_at_random_moments_it_ends_with_each_id_once(site: Site, api: MessagesApi) -> None:
    api.state.latency_s = 0.1
    site.submit(tasks(300), usd="5", slots_api=8)
    chance = random.Random(7)  # noqa: S311  (a seed, not a secret)
    code = -1
    for attempt in range(1, 60):
        container = await site.start(attempt)
        if attempt <= 12:
            await container.said("serves; upstream")
            await asyncio.sleep(chance.uniform(0.0, 2.5))
            for _ in range(600 if attempt == 12 else 0):
                # The last one has left a part of the results, however slow the machine is.
                if site.parts(site.keys.results()):
                    break
                await asyncio.sleep(0.1)
            container.send(signal.SIGKILL)
        code = await container.ended()
        assert code in (shard.EXIT_DONE, -signal.SIGKILL), container.log
        if code == shard.EXIT_DONE and attempt > 12:
            break
    assert code == shard.EXIT_DONE
    assert sorted(site.first()) == [f"t{n:04d}" for n in range(300)]
    assert len(site.results()) == 300
    assert len({name.attempt for name, _ in site.parts(site.keys.results())}) > 1
    assert len(api.posts) > 300
    item, (spent, uncertain) = site.item(), site.ledgers_pico()
    # A result's cost is in the ledgers; what more is there was paid for an answer that a kill lost.
    assert cost_pico(site.results()) <= spent == item.spent
    assert (item.leased, item.leases) == (0, {})
    assert item.limit is not None
    assert item.taken == item.spent + item.uncertain <= item.limit
    assert uncertain <= item.uncertain


async def test_sigterm_lets_running_tasks_end_and_starts_none(site: Site, api: MessagesApi) -> None:
    api.state.latency_s = 1.5
    site.submit(tasks(40), slots_api=4)
    container = await site.start()
    await until_sent(api, 4)
    container.send(signal.SIGTERM)
    await container.said("SIGTERM")
    sent = len(api.posts)
    assert await container.ended(10) == shard.EXIT_LEFT, container.log
    assert len(api.posts) == sent < 12
    assert len(site.results()) == sent
    assert {result["state"] for result in site.results()} == {"succeeded"}
    api.state.latency_s = 0
    assert (await site.run(2))[0] == shard.EXIT_DONE
    assert len(site.results()) == len(site.first()) == len(api.posts) == 40


async def test_sigterm_cuts_off_what_does_not_end_in_time(site: Site, api: MessagesApi) -> None:
    """As a container whose stopTimeout is 6 s; the two silent answers leave their cost uncertain."""
    api.state.faults.add(Fault(kind="stalled", count=2))
    site.submit(tasks(6), usd="1", slots_api=2)
    container = await site.start(environ={shard.STOP: "6"})
    await until_sent(api, 2)
    container.send(signal.SIGTERM)
    assert await container.ended(6) == shard.EXIT_LEFT, container.log
    assert site.results() == []
    item = site.item()
    assert (item.leased, item.leases) == (0, {})
    assert item.taken > 0
    # The loopback API had begun both answers: their input was told, and the rest of what they may cost is not known.
    assert site.ledgers_pico() == (item.spent, item.uncertain)
    assert (await site.run(2))[0] == shard.EXIT_DONE
    assert len(site.results()) == 6


async def test_a_stopping_batch_begins_nothing_new(site: Site, api: MessagesApi) -> None:
    api.state.latency_s = 0.5
    site.submit(tasks(400), slots_api=2)
    container = await site.start()
    await until_sent(api, 4)
    site.set_item(BatchItem(state="stopping", reason="cancel", detail="stopped by hand"))
    assert await container.ended(20) == shard.EXIT_STOPPED, container.log
    assert "stopped by hand" in container.log
    assert len(site.results()) == len(api.posts) < 80
    # Another attempt does not even start the agent.
    code, container = await site.run(2)
    assert (code, "serves; upstream" in container.log) == (shard.EXIT_STOPPED, False)


async def test_a_cancelled_batch_cuts_off_running_tasks(site: Site, api: MessagesApi) -> None:
    api.state.faults.add(Fault(kind="stalled", count=-1))
    site.submit(tasks(6), slots_api=2)
    container = await site.start()
    await until_sent(api, 2)
    site.set_item(BatchItem(state="cancelled"))
    assert await container.ended(20) == shard.EXIT_STOPPED, container.log
    assert site.results() == []
