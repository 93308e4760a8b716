"""Other kinds of credentials in the agent container: a federation's tokens, and those of the operator's plan."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from farmhand.core import shard, task_access
from tests.integration.cloud.test_single import order, outcome
from tests.support.messages_api import DEFAULT_KEY, Fault, Federation, MessagesApi
from tests.support.shards import TABLE, Site, tasks, until_sent

RULE = Federation(subject="user/moto")
IDS = f"{RULE.rule},{RULE.organization},{RULE.service_account},"
FEDERATED = {shard.CREDENTIAL_KIND: "none", shard.CREDENTIAL: "", task_access.FEDERATION: IDS}
EXCHANGE = "/v1/oauth/token"
TOKEN = "sk-ant-oat01-test-of-a-plan-00000000000000"


@pytest.fixture
def rule(api: MessagesApi) -> Federation:
    api.state.federation = Federation(subject=RULE.subject)
    return api.state.federation


def sent(api: MessagesApi) -> list[dict[str, str]]:
    """The headers of what was sent to the Messages API, names in lower case."""
    return [{name.lower(): value for name, value in post.headers.items()} for post in api.posts]


def exchanges(api: MessagesApi) -> int:
    return sum(entry.path == EXCHANGE for entry in api.state.log.entries(0))


@pytest.mark.usefixtures("rule")
async def test_a_shard_runs_on_one_token_of_a_federation(site: Site, api: MessagesApi) -> None:
    site.submit(tasks(20), usd="1")
    code, container = await site.run(environ=FEDERATED)
    assert code == shard.EXIT_DONE, container.log
    assert {result["state"] for result in site.first().values()} == {"succeeded"}
    assert exchanges(api) == 1
    for headers in sent(api):
        assert headers["authorization"].startswith("Bearer sk-ant-oat01-test-federated")
        assert "oauth-2025-04-20" in headers["anthropic-beta"]
        assert "oidc-federation" not in headers["anthropic-beta"]
        assert "x-api-key" not in headers
    assert b"sk-ant" not in site.everything()
    assert "sk-ant" not in container.log
    assert "eyJ" not in container.log


async def test_tokens_are_renewed_while_tasks_run_and_no_request_fails(
    site: Site, api: MessagesApi, rule: Federation
) -> None:
    rule.life_s = 10.0
    api.state.latency_s = 0.7
    site.submit(tasks(60), slots_api=4)
    code, container = await site.run(environ=FEDERATED)
    assert code == shard.EXIT_DONE, container.log
    assert {result["state"] for result in site.first().values()} == {"succeeded"}
    # The last one may have come when nothing was left to send.
    assert 2 <= len({headers["authorization"] for headers in sent(api)}) <= exchanges(api)
    assert api.state.tokens.peak == 1
    assert [post.status for post in api.posts] == [200] * 60
    assert all(result["attempts"] == 1 for result in site.results())


@pytest.mark.usefixtures("rule")
async def test_a_token_that_is_revoked_is_replaced_and_its_tasks_go_on(site: Site, api: MessagesApi) -> None:
    site.submit(tasks(40), slots_api=2)
    api.state.latency_s = 0.2
    container = await site.start(environ=FEDERATED)
    await until_sent(api, 6)
    api.state.tokens.revoke()
    code = await container.ended()
    assert code == shard.EXIT_DONE, container.log
    assert "another token has taken its place" in container.log
    assert exchanges(api) == 2
    assert {result["state"] for result in site.first().values()} == {"succeeded"}


@pytest.mark.usefixtures("rule")
async def test_a_single_task_gets_another_token_too(site: Site, api: MessagesApi) -> None:
    api.state.latency_s = 1.0
    container = await site.start(order=order(site), environ=FEDERATED)
    while not api.state.tokens.made:  # noqa: ASYNC110  (the API has no event for it)
        await asyncio.sleep(0.02)
    api.state.tokens.revoke()
    assert await container.ended() == shard.EXIT_DONE, container.log
    assert outcome(site)["result"]["state"] == "succeeded"
    assert exchanges(api) == 2


async def test_a_rule_that_does_not_match_stops_the_batch_with_one_line(
    site: Site, api: MessagesApi, rule: Federation
) -> None:
    rule.subject = ":role/another"
    site.submit(tasks(5), usd="1")
    code, container = await site.run(environ=FEDERATED)
    assert code == shard.EXIT_REFUSED, container.log
    [line] = [line for line in container.log.splitlines() if line.endswith("exit 77")]
    assert "federation rule fdrl_test does not match this task's role" in line
    assert (site.item().state, site.item().reason) == ("stopping", "credential")
    item = site.dynamodb.get_item(TableName=TABLE, Key={"pk": {"S": shard.credential_pk("test", "federation")}})
    assert "Item" not in item  # the watcher would take it for a bad row
    assert not api.posts


async def test_a_single_task_without_a_token_has_that_as_its_result(site: Site, rule: Federation) -> None:
    rule.subject = ":role/another"
    code, container = await site.run(order=order(site), environ=FEDERATED)
    assert code == shard.EXIT_REFUSED, container.log
    error = outcome(site)["result"]["error"]
    assert (error["code"], "does not match" in error["message"]) == ("authentication_error", True)


@pytest.mark.usefixtures("rule")
async def test_an_exchange_that_is_busy_is_waited_for(site: Site, api: MessagesApi) -> None:
    api.state.faults.add(
        Fault(kind="status", status=429, path=EXCHANGE, retry_after=1),
        Fault(kind="garbage", path=EXCHANGE),
    )
    site.submit(tasks(3))
    code, container = await site.run(environ=FEDERATED)
    assert code == shard.EXIT_DONE, container.log
    assert container.log.count("trying again in 5 s") == 2


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({shard.CREDENTIAL: DEFAULT_KEY}, "set beside a federation"),
        ({task_access.FEDERATION: ",,,"}, "no rule and organization"),
        ({task_access.FEDERATION: ""}, "no rule and organization"),
        ({shard.UPSTREAM: "http://192.0.2.1"}, "is not https"),
        ({shard.CREDENTIAL_KIND: "key", shard.CREDENTIAL: TOKEN}, "is an access token and no API key"),
        ({shard.CREDENTIAL_KIND: "setup-token", shard.CREDENTIAL: DEFAULT_KEY}, "is no access token of a plan"),
        ({shard.CREDENTIAL_KIND: "setup-token", shard.CREDENTIAL: TOKEN}, "a batch never runs on a setup-token"),
        ({shard.CREDENTIAL_KIND: "login", shard.CREDENTIAL: TOKEN}, "is no login as farmhand stores it"),
        ({shard.CREDENTIAL_KIND: "login", shard.CREDENTIAL: "{}"}, "is no login as farmhand stores it"),
    ],
)
async def test_a_credential_that_cannot_be_used_is_one_line_and_exit_78(
    site: Site, api: MessagesApi, environ: dict[str, str], said: str
) -> None:
    site.submit(tasks(1))
    code, container = await site.run(environ=FEDERATED | environ)
    assert code == shard.EXIT_CONFIG, container.log
    assert said in container.log
    assert "sk-ant-" not in container.log
    assert "Traceback" not in container.log
    assert not api.posts


async def test_an_account_that_gives_no_identities_says_what_to_switch_on(site: Site) -> None:
    site.aws.options(outbound=False)
    site.submit(tasks(1))
    code, container = await site.run(environ=FEDERATED)
    site.aws.options(outbound=True)
    assert code == shard.EXIT_CONFIG, container.log
    assert "aws iam enable-outbound-web-identity-federation" in container.log


# --- of a plan --------------------------------------------------------------------------------------------------------


def login(left_s: float = 7200, **more: Any) -> str:
    """A login as `farmhand cloud credential put` stores it."""
    held = {"accessToken": TOKEN, "expiresAt": int((time.time() + left_s) * 1000), **more}
    return json.dumps({"claudeAiOauth": held})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (login(-60), "the login has ended at 20"),
        (login(refreshToken="sk-ant-ort01-test-00000000000000"), "has a refresh token, which must not be here"),
        (login(expiresAt=-5), "at no time that makes sense"),
        (login(expiresAt=1e300), "at no time that makes sense"),
        (login(accessToken=DEFAULT_KEY), "is no access token of a plan"),
    ],
)
async def test_a_login_that_cannot_be_used_is_one_line_and_exit_78(site: Site, given: str, said: str) -> None:
    code, container = await site.run(
        order=order(site, engine="cli"), environ={shard.CREDENTIAL_KIND: "login", shard.CREDENTIAL: given}
    )
    assert code == shard.EXIT_CONFIG, container.log
    assert said in container.log
    assert "sk-ant-" not in container.log


@pytest.mark.parametrize(("left_s", "warned"), [(300, True), (7200, False)])
async def test_a_login_that_ends_before_the_task_may_is_in_the_log(site: Site, left_s: float, warned: bool) -> None:
    environ = {shard.CREDENTIAL_KIND: "login", shard.CREDENTIAL: login(left_s)}
    container = await site.start(order=order(site, engine="cli"), environ=environ)
    await container.said("jada-agent")
    assert ("the login ends at 20" in container.log) == warned
    assert TOKEN not in container.log


async def test_a_task_for_the_api_never_runs_on_a_plan(site: Site, api: MessagesApi) -> None:
    environ = {shard.CREDENTIAL_KIND: "setup-token", shard.CREDENTIAL: TOKEN}
    api.state.keys = frozenset({TOKEN})
    code, container = await site.run(order=order(site), environ=environ)
    assert code == shard.EXIT_DONE, container.log
    assert outcome(site)["result"]["error"]["code"] == "subscription_cli_only"
    assert not api.posts


# --- another source ---------------------------------------------------------------------------------------------------


SOURCE = "s3://farmhand-test/of-mine.json"


@pytest.mark.parametrize(
    "body",
    [DEFAULT_KEY, f"{DEFAULT_KEY}\n", json.dumps({"kind": "key", "value": DEFAULT_KEY, "expires_at": None})],
)
async def test_a_task_s_credential_may_be_an_object(site: Site, api: MessagesApi, body: str) -> None:
    site.put("of-mine.json", body.encode())
    other = "sk-ant-test-another-key-of-the-tests-000"
    environ = {task_access.SOURCE: SOURCE, shard.CREDENTIAL: other}
    code, container = await site.run(order=order(site), environ=environ)
    assert code == shard.EXIT_DONE, container.log
    assert outcome(site)["result"]["state"] == "succeeded"
    assert {headers["x-api-key"] for headers in sent(api)} == {DEFAULT_KEY}
    assert "sk-ant" not in container.log


@pytest.mark.usefixtures("rule")
async def test_a_task_may_ask_for_the_federation(site: Site, api: MessagesApi) -> None:
    environ = {task_access.SOURCE: "federation", task_access.FEDERATION: IDS, shard.CREDENTIAL_KIND: "key"}
    code, container = await site.run(order=order(site), environ=environ)
    assert code == shard.EXIT_DONE, container.log
    assert all("x-api-key" not in headers for headers in sent(api))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, "NoSuchKey"),
        (b"\xff\xfe", "neither a credential nor a document"),
        (b"{", "neither a credential nor a document"),
        (b'{"kind": "git", "value": "x"}', "of the kind 'git'"),
        (b"nothing", "does not start with sk-ant-"),
        (TOKEN.encode(), "which is of your plan: --subscription"),
        (b'{"claudeAiOauth": {"accessToken": "x"}}', "which is of your plan: --subscription"),
    ],
)
async def test_an_object_that_is_no_credential_is_one_line_and_exit_78(
    site: Site, api: MessagesApi, body: bytes | None, said: str
) -> None:
    if body is not None:
        site.put("of-mine.json", body)
    code, container = await site.run(order=order(site), environ={task_access.SOURCE: SOURCE})
    assert code == shard.EXIT_CONFIG, container.log
    assert said in container.log
    assert "sk-ant-o" not in container.log
    assert not api.posts
