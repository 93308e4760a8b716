"""A credential that the API refuses, an account without money, and orders that nobody can run."""

from __future__ import annotations

from typing import Any

import pytest

from farmhand.core import shard
from farmhand.core.keys import fingerprint
from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi
from tests.support.shards import ENVIRONMENT, TABLE, Site, tasks

OTHER = "sk-ant-test-another-key-of-the-tests-000"


def credential_item(site: Site) -> dict[str, Any]:
    key = {"pk": {"S": shard.credential_pk(ENVIRONMENT, "key")}}
    return dict(site.dynamodb.get_item(TableName=TABLE, Key=key).get("Item") or {})


def put_credential(site: Site, key: str) -> None:
    item = {"pk": {"S": shard.credential_pk(ENVIRONMENT, "key")}, "fingerprint": {"S": fingerprint(key)}}
    site.dynamodb.put_item(TableName=TABLE, Item=item)


async def test_a_refused_credential_stops_the_batch_and_is_noted(site: Site, api: MessagesApi) -> None:
    site.submit(tasks(50), usd="1")
    put_credential(site, OTHER)
    code, container = await site.run(environ={shard.CREDENTIAL: OTHER})
    assert code == shard.EXIT_REFUSED, container.log
    item = site.item()
    assert (item.state, item.reason, item.leases) == ("stopping", "credential", {})
    assert "the API refused the key" in item.detail
    assert int(credential_item(site)["refused"]["N"]) > 1.7e9
    assert site.results() == []
    assert OTHER not in container.log


async def test_a_credential_that_was_replaced_meanwhile_stops_nothing(site: Site) -> None:
    site.submit(tasks(5))
    put_credential(site, DEFAULT_KEY)
    code, container = await site.run(environ={shard.CREDENTIAL: OTHER})
    assert code == shard.EXIT_LEFT, container.log
    assert site.item().state == "running"
    assert "refused" not in credential_item(site)
    assert (await site.run(2))[0] == shard.EXIT_DONE


async def test_an_account_s_spend_limit_stops_the_batch(site: Site, api: MessagesApi) -> None:
    api.state.faults.add(Fault(kind="spend_limit", count=-1))
    site.submit(tasks(5))
    code, container = await site.run()
    assert code == shard.EXIT_STOPPED, container.log
    assert (site.item().state, site.item().reason) == ("stopping", "spend_limit")
    assert credential_item(site) == {}


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({shard.ORDER: ""}, "FARMHAND_ORDER is not set"),
        ({shard.ORDER: "test/batches/b1/"}, "is no key of an order"),
        ({shard.ORDER: "test/batches/none/in/1/"}, "reading test/batches/none/in/1/manifest.json: NoSuchKey"),
        ({shard.ORDER: "test/batches/b1/in/9/"}, "NoSuchKey"),
        ({shard.BUCKET: "farmhand-none"}, "NoSuchBucket"),
        ({shard.TABLE: "farmhand-none"}, "ResourceNotFoundException"),
        ({shard.CREDENTIAL: ""}, "FARMHAND_CREDENTIAL: the API key is empty"),
        ({shard.CREDENTIAL: "pasted by mistake"}, "does not start with sk-ant-"),
        ({shard.CREDENTIAL_KIND: "git"}, "FARMHAND_CREDENTIAL_KIND is 'git', not one of key"),
        ({shard.ARRAY_INDEX: "1"}, "there is no shard 1"),
        ({shard.ARRAY_INDEX: "x"}, "AWS_BATCH_JOB_ARRAY_INDEX is 'x', not a number"),
        ({shard.UPSTREAM: "ftp://x"}, "the agent did not start: exit status 3"),
    ],
)
async def test_a_wrong_setting_is_one_line_and_exit_78(site: Site, environ: dict[str, str], said: str) -> None:
    site.submit(tasks(1))
    code, container = await site.run(environ=environ)
    assert code == shard.EXIT_CONFIG, container.log
    assert said in container.log
    assert "Traceback" not in container.log
    assert "pasted" not in container.log
    assert site.results() == []


@pytest.mark.parametrize(
    ("key", "body", "said"),
    [
        ("in/1/manifest.json", b"{", "manifest.json: Input data was truncated"),
        ("in/1/manifest.json", b'{"version": 1}', "missing required field"),
        ("in/1/00000.jsonl", b'{"id": "x"\n', "a task of the shard cannot be read"),
        ("in/1/00000.jsonl", b'{"id": "x", "prompt": "y", "colour": 1}\n', "unknown field `colour`"),
    ],
)
async def test_a_broken_document_is_one_line_and_exit_78(site: Site, key: str, body: bytes, said: str) -> None:
    site.submit(tasks(1))
    site.put(site.keys.base + key, body)
    code, container = await site.run()
    assert code == shard.EXIT_CONFIG, container.log
    assert said in container.log
    assert "Traceback" not in container.log


async def test_documents_of_another_version_are_refused(site: Site) -> None:
    site.submit(tasks(1))
    key = site.keys.manifest(1)
    body = site.s3.get_object(Bucket="farmhand-test", Key=key)["Body"].read()
    site.put(key, body.replace(b'"version":1', b'"version":2'))
    code, container = await site.run()
    assert code == shard.EXIT_CONFIG
    assert "has version 2, this image knows 1" in container.log


async def test_a_task_that_the_agent_refuses_is_a_failed_result(site: Site) -> None:
    site.submit([*tasks(3), {"id": "odd", "prompt": "x", "schema": {"type": 5}}, {"id": "k", "prompt": DEFAULT_KEY}])
    code, container = await site.run()
    assert code == shard.EXIT_DONE, container.log
    first = site.first()
    assert (len(first), first["odd"]["state"], first["odd"]["cost_usd"]) == (5, "failed", 0)
    assert first["odd"]["error"]["message"]
    assert first["k"]["state"] == "failed"
