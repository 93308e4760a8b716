"""farmhand batch --when-spent: a budget that has no more room at the price that was asked, with a real agent."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.dispatch.batches import Farm
from tests.integration.dispatch.conftest import BIN, Workstation, entry
from tests.integration.dispatch.sshd import serve
from tests.support.messages_api import MessagesApi, Plan

QUICK: dict[str, Any] = {"economy_linger_s": 0.1, "economy_poll_s": 0.1}


@pytest.fixture
async def farm(tmp_path: Path, api: MessagesApi, workstation: Workstation) -> AsyncIterator[Farm]:
    farm = Farm(tmp_path, api, workstation)
    yield farm
    await farm.stop()


def write(farm: Farm, tasks: int) -> None:
    farm.write([{"prompt": f"number {n}", "max_tokens": 100, "model": "sonnet"} for n in range(tasks)])


async def most_of_one(farm: Farm) -> Decimal:
    """The most that one of the tasks may cost, as its refusal says; nothing is sent for it."""
    done = await farm.batch("--max-usd", "0.00001", "--json")
    assert done.status == 5, done.err
    said = re.search(r"may cost up to ([0-9.]+\d)", json.loads(done.out)["error"]["message"])
    assert said, done.out
    farm.out.with_name("out.jsonl.farmhand").unlink()
    farm.out.unlink()
    return Decimal(said[1])


async def test_the_rest_goes_on_with_haiku_and_the_budget_holds(farm: Farm) -> None:
    await farm.start()
    write(farm, 40)
    most = await most_of_one(farm)
    budget = most * Decimal("1.3")
    done = await farm.batch("--max-usd", str(budget), "--when-spent", "haiku", "--json")
    summary = json.loads(done.out, parse_float=Decimal)
    assert done.status == 0, done.err
    results = farm.results()
    bent = [result for result in results if "bent" in result]
    assert 0 < len(bent) < 40
    assert summary["bent"] == {"haiku": len(bent)}
    assert summary["cost_usd"] <= budget
    assert {result["model"] for result in bent} == {"claude-haiku-5-5"}
    assert {result["bent"]["asked"]["model"] for result in bent} == {"claude-sonnet-5-5"}
    assert "the budget of the batch" in bent[0]["bent"]["why"]
    asked = Counter(json.loads(post.body)["model"] for post in farm.api.posts)
    assert asked == {"claude-sonnet-5-5": 40 - len(bent), "claude-haiku-5-5": len(bent)}
    assert len(set(farm.prompts())) == 40
    await lists_each_line_once_and_shows_what_answered(farm, results, summary["batch"])
    # Given again, it says the same and spends nothing.
    again = await farm.batch("--max-usd", str(budget), "--when-spent", "haiku")
    assert f"{len(bent)} tasks went on with haiku" in again.out.decode()
    assert len(farm.api.posts) == 40


async def lists_each_line_once_and_shows_what_answered(farm: Farm, results: list[Any], batch: str) -> None:
    """What had no room is a row of its own at the host; people see the line."""
    bent = next(result for result in results if "bent" in result)
    server = serve(farm.directory / "sshd", f"{BIN}/jada-agent bridge --socket {farm.agents[0].socket}")
    try:
        farm.workstation.write_hosts(farm1=entry(server))
        run = farm.workstation.run
        listed = json.loads((await run("farmhand", "list", "--batch", batch, "-n", "1000", "--json")).out)["tasks"]
        assert len(listed) == len(results)
        assert {task["state"] for task in listed} == {"succeeded"}
        assert json.loads((await run("farmhand", "list", "--failed", "--batch", batch, "--json")).out)["tasks"] == []
        # By the id that the output has: the agent knows the attempt under another one.
        shown = json.loads((await run("farmhand", "show", bent["id"], "--json")).out)["task"]
        assert (shown["state"], shown["text"]) == ("succeeded", bent["text"])
        assert shown["id"] != bent["id"]
        assert shown["bent"] == {name: bent["bent"][name] for name in ("asked", "used")} | {"why": shown["bent"]["why"]}
        text = (await run("farmhand", "show", bent["id"])).out.decode()
        assert "bent    asked was claude-sonnet-5-5, engine api; the budget of the batch" in text
        assert (await run("farmhand", "logs", bent["id"])).out.decode().strip() == bent["text"].strip()
        plain = next(result for result in results if "bent" not in result)
        assert "bent" not in json.loads((await run("farmhand", "show", plain["id"], "--json")).out)["task"]
        assert json.loads((await run("farmhand", "show", f"{bent['id'][:-2]}", "--json")).out)["task"]["text"]
    finally:
        server.stop()


async def test_at_half_price_it_goes_on_after_a_stop_and_a_new_agent_without_asking_twice(farm: Farm) -> None:
    await farm.start(**QUICK)
    write(farm, 4)
    budget = str(await most_of_one(farm))
    farm.api.batches.plan = Plan(after_ms=None)
    process = await farm.begin("--max-usd", budget, "--when-spent", "economy")
    await farm.until(lambda: bool(farm.api.batches.all()), 120)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 130, err
    assert b"what can goes on at a lower one" in err
    await farm.agents[0].stop()
    await farm.agents[0].start()
    farm.api.batches.plan = Plan()
    await farm.api.advance(action="finish")
    done = await farm.batch("--max-usd", budget, "--when-spent", "economy", "--json")
    summary = json.loads(done.out, parse_float=Decimal)
    assert done.status == 0, done.err
    results = farm.results()
    assert sorted(result["n"] for result in results) == [1, 2, 3, 4]
    assert [result["engine"] for result in results if "bent" in result] == ["economy"] * 3
    assert summary["bent"] == {"economy": 3}
    assert summary["cost_usd"] <= Decimal(budget)
    assert len(farm.api.posts) == 1
    assert sum(len(batch.items) for batch in farm.api.batches.all()) == 3


async def test_a_wish_that_cannot_be_is_refused_before_anything_is_sent(farm: Farm) -> None:
    await farm.start()
    farm.write(["a", "b"])
    for options, why in (
        (("--when-spent", "haiku"), "haiku is a haiku already"),
        (("--when-spent", "economy", "--economy"), "economy is half the price already"),
        (("--when-spent", "economy", "--tools", "Read"), "no tools"),
        (("--when-spent", "cheap"), "not stop, economy or haiku"),
    ):
        done = await farm.batch(*options)
        assert (done.status, why in done.err) == (2, True), done.err
        assert not farm.out.with_name("out.jsonl.farmhand").exists()
    assert not farm.api.posts
