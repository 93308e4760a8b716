"""farmhand batch --economy: the same file through Message Batches at half price, stopped and taken up again."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.dispatch.batches import Farm
from tests.integration.dispatch.conftest import Workstation
from tests.support.messages_api import BatchFault, MessagesApi, Plan

QUICK: dict[str, Any] = {"economy_linger_s": 0.1, "economy_poll_s": 0.1}


@pytest.fixture
async def farm(tmp_path: Path, api: MessagesApi, workstation: Workstation) -> AsyncIterator[Farm]:
    farm = Farm(tmp_path, api, workstation)
    yield farm
    await farm.stop()


async def test_it_costs_half_and_mixed_outcomes_have_a_line_each(farm: Farm) -> None:
    await farm.start(**QUICK)
    farm.write([{"id": f"t{n}", "prompt": f"number {n}."} for n in range(30)])
    farm.api.batch_fault(BatchFault(match="number 7.", status=400, message="no", count=-1))
    done = await farm.batch("--economy", "--json")
    summary = json.loads(done.out, parse_float=Decimal)
    assert (done.status, summary["done"], summary["failed"]) == (1, 29, 1), done.err
    assert not farm.api.posts
    used = farm.api.batches.all()[0].usage
    full = sum(used[kind] * price for kind, price in (("input_tokens", 100_000), ("output_tokens", 500_000)))
    assert summary["cost_usd"] == Decimal(full).scaleb(-12) / 2


async def test_stopped_while_the_provider_works_it_goes_on_without_asking_twice(farm: Farm) -> None:
    await farm.start(**QUICK)
    farm.api.batches.plan = Plan(after_ms=None)
    farm.write([f"number {n}" for n in range(10)])
    process = await farm.begin("--economy")
    await farm.until(lambda: bool(farm.api.batches.all()))
    assert process.stderr is not None
    line = ""
    while not line.startswith("farmhand:"):  # before it are figures
        line = (await asyncio.wait_for(process.stderr.readline(), 120)).decode()
        assert line
    sent = r"sent as 1 Message Batch at \d\d:\d\d UTC, usually answered within the hour; stopping is safe"
    assert re.fullmatch(f"farmhand: farm1: 10 tasks {sent}: the same command goes on\n", line), line
    waits = (await farm.agents[0].get("/v1/status"))["waiting"]
    assert [(wait["reason"], wait["tasks"]) for wait in waits] == [("economy_sent", 10)]
    assert re.fullmatch(sent, waits[0]["detail"])
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 130, err
    assert b"10 left" in out
    await farm.api.advance(action="finish")
    done = await farm.batch("--economy")
    assert done.status == 0, done.err
    assert not [
        wait for wait in (await farm.agents[0].get("/v1/status"))["waiting"] if wait["reason"] == "economy_sent"
    ]
    assert sorted(result["n"] for result in farm.results()) == list(range(1, 11))
    assert sum(len(batch.items) for batch in farm.api.batches.all()) == 10
