"""claude-cheap --when-spent: a task for which a budget has no room at the price that was asked, with a real agent."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.dispatch.conftest import BIN, Workstation, entry
from tests.integration.dispatch.sshd import Sshd, serve
from tests.support.agent import bodies
from tests.support.forked import ForkedAgent
from tests.support.messages_api import MessagesApi

SONNET, HAIKU = "claude-sonnet-5-5", "claude-haiku-5-5"
#: Room for an answer of haiku, and for one of sonnet at half the price, but for none as asked.
FOR_HAIKU, FOR_HALF = "0.0008", "0.0025"
TASK = ("--model", "sonnet", "--max-tokens", "100", "hello")


async def test_a_task_goes_on_with_haiku_once_and_is_listed_once(
    workstation: Workstation, farm: Sshd, api: MessagesApi
) -> None:
    asked = ("claude-cheap", "--id", "mine", "--max-usd", FOR_HAIKU, *TASK)
    stopped = await workstation.run(*asked)
    assert (stopped.status, "budget of the task mine has no room" in stopped.err) == (5, True), stopped.err
    assert api.posts == []
    done = await workstation.run(*asked[:-1], "--when-spent", "haiku", "--json", "hello")
    assert done.status == 0, done.err
    result: dict[str, Any] = json.loads(done.out, parse_float=Decimal)
    assert (result["id"], result["state"], result["model"]) == ("mine", "succeeded", HAIKU)
    assert result["bent"]["asked"] == {"model": SONNET, "engine": "api"}
    assert "the budget of the task mine has no room" in result["bent"]["why"]
    assert result["cost_usd"] <= Decimal(FOR_HAIKU)
    assert f"it goes on with {HAIKU}" in done.err
    assert [body["model"] for body in bodies(api)] == [HAIKU]
    # Given again it says the same, and runs no more.
    again = await workstation.run(*asked[:-1], "--when-spent", "haiku", "--json", "hello")
    assert json.loads(again.out, parse_float=Decimal) == result
    assert len(api.posts) == 1
    listed = json.loads((await workstation.run("farmhand", "list", "--json")).out)["tasks"]
    assert [(task["id"], task["state"]) for task in listed] == [("mine.r1", "succeeded")]
    shown = json.loads((await workstation.run("farmhand", "show", "mine", "--json")).out)["task"]
    assert (shown["text"], shown["bent"]["asked"]["model"]) == (result["text"], SONNET)


async def test_the_host_s_budget_of_the_day_bends_by_work_class_at_half_price(
    tmp_path: Path, workstation: Workstation, api: MessagesApi
) -> None:
    config = workstation.config_dir / "config.toml"
    config.write_text('when_spent = "haiku,nightly=economy"\n')
    agent = ForkedAgent(tmp_path, api.url, budget_day_usd=FOR_HALF, economy_linger_s=0.1, economy_poll_s=0.1)
    await agent.start()
    server = serve(tmp_path / "sshd", f"{BIN}/jada-agent bridge --socket {agent.socket}")
    workstation.write_hosts(farm1=entry(server))
    try:
        done = await workstation.run("claude-cheap", "--json", "--work-class", "nightly", *TASK)
        result = json.loads(done.out)
        assert done.status == 0, done.err
        assert (result["engine"], result["model"], result["bent"]["way"]) == ("economy", SONNET, "economy")
        assert result["bent"]["why"].startswith("the budget of the day ")
        assert "through Message Batches for half" in done.err
        assert (api.posts, [len(batch.items) for batch in api.batches.all()]) == ([], [1])
    finally:
        server.stop()
        await agent.stop()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--when-spent", "haiku"), "haiku is a haiku already"),
        (("--when-spent", "economy", "--tools", "Read"), "no tools"),
        (("--when-spent", "stop,w=haiku", "--model", "sonnet"), "it stops"),
        (("--when-spent", "haiku", "--model", "sonnet", "--conversation", "barn"), "exclude each other"),
        (("--when-spent", "haiku", "--model", "sonnet", "--place", "fargate"), "not for a task on AWS"),
        (("--when-spent", "cheap"), "not stop, economy or haiku"),
    ],
)
async def test_a_wish_that_cannot_be_is_one_line_before_anything_is_sent(
    workstation: Workstation, farm: Sshd, api: MessagesApi, options: tuple[str, ...], why: str
) -> None:
    done = await workstation.run("claude-cheap", "hello", *options)
    assert (done.status, why in done.err, done.err.count("\n")) == (2, True, 1), done.err
    assert api.posts == []
    assert json.loads((await workstation.run("farmhand", "list", "--json")).out)["tasks"] == []
