"""A batch's budget over its children: never a pico-dollar more than its limit, and what is not used comes back."""

from __future__ import annotations

import asyncio
import random
import signal
from decimal import Decimal

from farmhand.core import shard
from farmhand.core.money import pico, plain
from farmhand.core.prices import price_table
from farmhand.core.shard import BatchItem, LeaseName
from farmhand.core.task import Usage
from tests.support.messages_api import MessagesApi
from tests.support.shards import BUCKET, Site, cost_pico, tasks


def billed(api: MessagesApi) -> int:
    """What the API has charged, in pico-dollars."""
    usages = [
        (post.model, {name: value for name, value in post.usage.items() if name in Usage.__struct_fields__})
        for post in api.posts
    ]
    costs = [price_table().cost(model, Usage(**usage)) for model, usage in usages if usage]
    return sum(cost for cost in costs if cost is not None)


async def test_eight_children_and_kills_never_spend_more_than_the_limit(site: Site, api: MessagesApi) -> None:
    api.state.latency_s = 0.05
    site.submit(*(tasks(60, f"s{n}-") for n in range(8)), usd="0.01", slots_api=4)
    chance, attempts = random.Random(3), dict.fromkeys(range(8), 0)  # noqa: S311  (a seed, not a secret)
    taken: list[int] = []
    for _ in range(3):
        running = []
        for number in attempts:
            attempts[number] += 1
            running.append(await site.start(attempts[number], number))
        for victim in chance.sample(running, 3):
            await asyncio.sleep(chance.uniform(0, 3))
            victim.send(signal.SIGKILL)
            taken.append(site.item().taken)
        codes = [await container.ended(120) for container in running]
        assert {*codes} <= {shard.EXIT_DONE, shard.EXIT_LEFT, shard.EXIT_STOPPED, -signal.SIGKILL}, codes
    item = site.item()
    assert item.limit == 10 * 10**9
    assert max([*taken, item.taken]) <= item.limit
    # The dearest answer of what is known and of what the API itself says that it has charged.
    assert 0 < billed(api) <= item.limit
    assert cost_pico(site.results()) <= site.ledgers_pico()[0] <= item.limit
    assert len(site.results()) == len(site.first())
    # The leases of children that were killed last are still there; nothing else holds any.
    assert (
        item.taken
        == item.leased + item.spent + item.uncertain
        == sum(item.leases.values()) + item.spent + item.uncertain
    )


async def test_a_batch_without_room_stops_and_goes_on_once_the_limit_is_raised(site: Site, api: MessagesApi) -> None:
    site.submit(tasks(100), usd="0.001")
    code, container = await site.run()
    assert code == shard.EXIT_STOPPED, container.log
    item = site.item()
    assert (item.state, item.reason, item.leases) == ("stopping", "budget", {})
    assert item.limit is not None
    assert f"US$ 0.001 is spent but for US$ {plain(item.limit - item.spent)}: " in item.detail
    assert item.spent == cost_pico(site.results()) == billed(api) <= item.limit
    assert 0 < len(site.results()) < 100
    item.state, item.limit = "running", pico(Decimal("0.1"))
    site.set_item(item)
    assert (await site.run(2))[0] == shard.EXIT_DONE
    assert len(site.first()) == len(site.results()) == 100
    assert site.item().spent == cost_pico(site.results())


async def test_a_child_without_room_leaves_its_work_while_others_hold_leases(site: Site) -> None:
    site.submit(tasks(10), tasks(10, "other"), usd="0.001")
    key = {"pk": {"S": shard.batch_pk(site.batch)}}
    lease = {"#l": LeaseName(1, 1, 1).attribute}
    site.dynamodb.update_item(
        TableName=BUCKET,
        Key=key,
        UpdateExpression="SET #l = :all, taken = :all, leased = :all",
        ExpressionAttributeNames=lease,
        ExpressionAttributeValues={":all": {"N": str(10**9)}},
    )
    code, container = await site.run()
    assert code == shard.EXIT_LEFT, container.log
    assert "leased to 1 others" in container.log
    assert site.item().state == "running"


async def test_a_task_too_dear_for_the_rough_bound_still_runs(site: Site, api: MessagesApi) -> None:
    """A token may be as short as a byte, so the bound of this prompt is four times what the API counts."""
    long = "word and " * 4000
    site.submit([{"id": "long", "prompt": long, "max_tokens": 100}], usd="0.002")
    code, container = await site.run()
    assert code == shard.EXIT_DONE, container.log
    assert site.item().spent == cost_pico(site.results()) == billed(api) > 0


async def test_a_killed_child_s_lease_is_settled_from_its_ledger(site: Site) -> None:
    site.submit(tasks(1), usd="1")
    site.set_item(BatchItem(limit=10**12))
    site.dynamodb.update_item(
        TableName=BUCKET,
        Key={"pk": {"S": shard.batch_pk(site.batch)}},
        UpdateExpression="SET #l = :all, taken = :all, leased = :all",
        ExpressionAttributeNames={"#l": LeaseName(1, 0, 1).attribute},
        ExpressionAttributeValues={":all": {"N": str(5 * 10**9)}},
    )
    part = b'{"ledger":"x","charges":1,"finished":0,"version":1}\n{"charge_id":1,"cost_usd":0.002}\n'
    site.put(site.keys.ledgers(1, 0) + "1-0001.jsonl", part)
    code, container = await site.run(2)
    assert code == shard.EXIT_DONE, container.log
    item = site.item()
    assert (item.uncertain, item.leases) == (3 * 10**9, {})
    assert item.spent == 2 * 10**9 + cost_pico(site.results())
    assert "US$ 0.002 were spent, 0.003 are uncertain" in container.log
