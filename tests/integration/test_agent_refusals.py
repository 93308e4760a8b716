"""The API's refusals as they really come, against the real agent: what each costs in requests, and how it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.agent import KEY, Agent, follow_until, wait_batch
from tests.support.forked import ForkedAgent
from tests.support.messages_api import Fault, MessagesApi
from tests.support.messages_api.errors import CREDIT
from tests.support.messages_api.faults import BatchFault, Kind
from tests.support.refusals import REFUSALS, TRIES, Refusal

MONEY: list[tuple[Kind, str]] = [
    ("credit", "billing_error"),
    ("usage_limit", "spend_limit"),
    ("workspace_limit", "spend_limit"),
]
AT_ONCE = [case for case in REFUSALS if case.ends == "fails"]


@pytest.mark.parametrize(("kind", "code"), MONEY)
async def test_an_account_without_money_parks_its_key(agent: Agent, api: MessagesApi, kind: Kind, code: str) -> None:
    api.fault(Fault(kind=kind))
    await agent.submit({"id": "one", "prompt": "hello"})
    event = await follow_until(agent, "one", "awaiting_key")
    assert (event["reason"], event["message"]) == (code, api.posts[0].error)
    assert "Console" in event["hint"]
    assert (await agent.wait_state("one", "awaiting_key"))["attempts"] == 0
    assert len(api.posts) == 1
    await agent.call("PUT", "/v1/key", headers=KEY)
    assert (await agent.result("one"))["state"] == "succeeded"


async def test_a_task_cannot_have_the_key_parked_by_what_it_asks(agent: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="status", status=400, message=f"{CREDIT}: Extra inputs are not permitted"))
    result = await agent.run(id="one", prompt="hello")
    assert (result["state"], result["error"]["code"]) == ("failed", "invalid_request")


@pytest.mark.parametrize("case", AT_ONCE, ids=[case.name for case in AT_ONCE])
async def test_what_does_not_pass_costs_one_request(agent: Agent, api: MessagesApi, case: Refusal) -> None:
    api.fault(Fault(kind="status", status=case.status, headers=case.headers, raw=case.body, count=-1))
    result = await agent.run(id="one", prompt="hello")
    assert (result["state"], result["error"]["code"]) == ("failed", case.code)
    assert len(api.posts) == 1


@pytest.mark.parametrize("told", ["0", "-1", "nan", "inf"])
async def test_a_retry_after_that_says_nothing_is_no_loop(agent: Agent, api: MessagesApi, told: str) -> None:
    api.fault(Fault(kind="status", status=429, headers={"retry-after": told}, count=-1))
    await agent.submit({"id": "one", "prompt": "hello", "timeout_s": 2.5})
    result = await agent.result("one")
    assert (result["state"], result["error"]["code"]) == ("failed", "timeout")
    assert 2 <= len(api.posts) <= TRIES


async def test_a_batch_waits_for_an_api_that_cannot_with_growing_pauses(tmp_path: Path, api: MessagesApi) -> None:
    agent = ForkedAgent(tmp_path, api.url)
    await agent.start()
    try:
        api.fault(Fault(kind="status", status=520, raw="<html>", count=-1))
        await agent.submit({"id": "one", "prompt": "hello", "batch": "b"})
        await asyncio.sleep(6)
        assert 2 <= len(api.posts) <= 2 * TRIES
        api.state.faults.clear()
        await wait_batch(agent, "b", succeeded=1)
    finally:
        await agent.stop()


@pytest.mark.parametrize("kind", [kind for kind, _ in MONEY])
async def test_a_message_batch_that_an_account_cannot_pay_waits_for_money(
    tmp_path: Path, api: MessagesApi, kind: Kind
) -> None:
    agent = ForkedAgent(tmp_path, api.url, economy_linger_s=0.05)
    await agent.start()
    try:
        api.fault(Fault(kind=kind, path="/v1/messages/batches"))
        await agent.submit({"id": "one", "prompt": "hello", "batch": "b", "economy": True})
        await wait_batch(agent, "b", awaiting_key=1)
        [key] = (await agent.get("/v1/status"))["keys"]
        assert (key["state"], key["reason"]) == ("refused", api.state.log.entries()[-1].error)
        await agent.call("PUT", "/v1/key", headers=KEY)
        await wait_batch(agent, "b", succeeded=1)
    finally:
        await agent.stop()


async def test_a_request_of_a_message_batch_that_the_account_cannot_pay_waits_for_money(
    tmp_path: Path, api: MessagesApi
) -> None:
    agent = ForkedAgent(tmp_path, api.url, economy_linger_s=0.05, economy_poll_s=0.2)
    await agent.start()
    try:
        api.batch_fault(BatchFault(status=400, message=CREDIT, match="poor"))
        tasks = [{"id": name, "prompt": name, "batch": "b", "economy": True} for name in ("poor", "rich")]
        await agent.submit(*tasks)
        await wait_batch(agent, "b", awaiting_key=1, succeeded=1)
        await agent.call("PUT", "/v1/key", headers=KEY)
        await wait_batch(agent, "b", succeeded=2)
    finally:
        await agent.stop()
