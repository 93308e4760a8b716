"""One task on Fargate: an order from the bucket, a result to the bucket."""

from __future__ import annotations

import json
import signal
from typing import Any

import msgspec

from farmhand.core import shard
from farmhand.core.shard import BatchItem, PlaceInfo, SingleOrder
from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi
from tests.support.shards import BUCKET, ENVIRONMENT, Site, cost_pico, until_sent


def order(site: Site, **task: Any) -> str:
    given = {"id": site.batch, "prompt": "What is 1?", **task}
    made = SingleOrder(
        environment=ENVIRONMENT, task=given, farmhand="0", place=PlaceInfo(name="fargate", vcpu_milli=500)
    )
    site.put(site.keys.single, msgspec.json.encode(made))
    return site.keys.single


def outcome(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        site.s3.get_object(Bucket=BUCKET, Key=site.keys.output("result.json"))["Body"].read()
    )
    return found


async def test_a_task_s_result_and_its_ledger_are_in_the_bucket(site: Site, api: MessagesApi) -> None:
    key = order(site)
    code, container = await site.run(order=key)
    assert code == shard.EXIT_DONE, container.log
    done = outcome(site)
    assert (done["result"]["state"], done["place"]) == ("succeeded", {"name": "fargate", "vcpu_milli": 500})
    assert done["result"]["text"].startswith("Loopback answer")
    assert done["started_at"] < done["stopped_at"]
    assert site.ledgers_pico() == (cost_pico([done["result"]]), 0)
    # Its result counts, whoever starts it again.
    assert (await site.run(order=key))[0] == shard.EXIT_DONE
    assert (len(api.posts), outcome(site)) == (1, done)
    assert DEFAULT_KEY.encode() not in site.everything()


async def test_a_task_that_is_refused_or_fails_has_that_as_its_result(site: Site) -> None:
    code, container = await site.run(order=order(site, schema={"type": 5}))
    assert code == shard.EXIT_DONE, container.log
    assert outcome(site)["result"]["error"]["code"] == "invalid_schema"


async def test_an_interrupted_task_leaves_no_result(site: Site, api: MessagesApi) -> None:
    api.state.faults.add(Fault(kind="stalled", count=1))
    container = await site.start(order=order(site), environ={shard.STOP: "6"})
    await until_sent(api, 1)
    container.send(signal.SIGTERM)
    assert await container.ended(6) == shard.EXIT_LEFT, container.log
    assert not [key for key in site.everything().splitlines() if key.endswith(b"result.json")]
    assert site.ledgers_pico()[1] > 0
    assert (await site.run(2, order=order(site)))[0] == shard.EXIT_DONE


async def test_a_cancelled_task_ends_as_such(site: Site, api: MessagesApi) -> None:
    api.state.faults.add(Fault(kind="stalled", count=1))
    container = await site.start(order=order(site))
    await until_sent(api, 1)
    site.set_item(BatchItem(state="cancelled"))
    assert await container.ended(30) == shard.EXIT_DONE, container.log
    assert outcome(site)["result"]["state"] == "cancelled"


async def test_a_refused_credential_is_the_result_and_exit_77(site: Site) -> None:
    other = "sk-ant-test-another-key-of-the-tests-000"
    code, container = await site.run(order=order(site), environ={shard.CREDENTIAL: other})
    assert code == shard.EXIT_REFUSED, container.log
    assert outcome(site)["result"]["error"]["code"] == "authentication_error"


async def test_faults_of_s3_delay_a_result_and_lose_none(site: Site) -> None:
    key = order(site)
    site.aws.faults({"service": "s3", "action": "PUT /", "times": 5, "status": 500, "code": "InternalError"})
    code, container = await site.run(order=key)
    assert code == shard.EXIT_DONE, container.log
    assert outcome(site)["result"]["state"] == "succeeded"
