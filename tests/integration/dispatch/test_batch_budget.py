"""What `farmhand batch` may cost: its budget, a task that cannot fit, the question before it begins."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from farmhand.cost.queries import parts, read
from farmhand.cost.rows import FinishedTask, decode
from tests.integration.dispatch.batches import Farm
from tests.integration.dispatch.conftest import CHECKOUT, Workstation
from tests.support.messages_api import MessagesApi
from tests.unit.cost.ledgers import TABLE, new_store


@pytest.fixture
async def farm(tmp_path: Path, api: MessagesApi, workstation: Workstation) -> AsyncIterator[Farm]:
    farm = Farm(tmp_path, api, workstation)
    yield farm
    await farm.stop()


async def test_a_budget_stops_the_batch_and_a_greater_one_goes_on(farm: Farm) -> None:
    await farm.start()
    farm.write([{"prompt": f"number {n}", "max_tokens": 100} for n in range(100)])
    done = await farm.batch("--max-usd", "0.0005", "--json")
    summary = json.loads(done.out)
    assert done.status == 5, done.err
    assert summary["error"]["code"] == "budget"
    assert "more in --max-usd for each host lets it go" in summary["error"]["message"]
    assert summary["failed"] == 0
    assert 0 < summary["done"] < 100
    assert summary["cost_usd"] <= 0.0005
    assert (await farm.batch()).status == 0
    assert len(farm.results()) == 100
    assert len(farm.api.posts) == 100


async def test_what_a_budget_had_no_room_for_is_no_failure_of_the_batch_nor_of_its_cost(
    farm: Farm, tmp_path: Path
) -> None:
    await farm.start()
    farm.write([{"prompt": f"number {n}", "max_tokens": 100} for n in range(100)])
    summary = json.loads((await farm.batch("--max-usd", "0.0005", "--json")).out)
    assert summary["left"] > 0
    store = new_store(tmp_path / "cost.db")
    try:
        for end in ("stopped", "done"):
            lines = await farm.agents[0].get("/v1/finished?limit=10000")
            store.merge(
                store.ledger("u1", "farm1")[0],
                FinishedTask,
                (decode(FinishedTask, json.dumps(line).encode()) for line in lines),
            )
            [whole] = parts(read(store, TABLE, "batch"), "batch")
            assert (whole.key, whole.tasks, whole.failed) == (summary["batch"], summary["done"], summary["failed"])
            assert whole.refused > 0
            if end == "stopped":
                summary = json.loads((await farm.batch("--json")).out)
                assert (summary["done"], summary["failed"], summary["left"]) == (100, 0, 0)
    finally:
        store.close()


async def test_a_task_that_can_never_fit_says_what_would_let_it_go(farm: Farm) -> None:
    await farm.start()
    farm.write([{"prompt": "name a hen", "max_usd": 0.0005}])
    done = await farm.batch()
    assert done.status == 1
    advice = re.search(r"US\$ 0 of 0.0005 is used, .*; --max-tokens (\d+) or --max-usd (\S+) lets it go", done.err)
    assert advice, done.err
    assert not farm.api.posts
    farm.write(
        [
            {"prompt": "name a hen", "max_usd": 0.0005, "max_tokens": int(advice[1])},
            {"prompt": "name a hen", "max_usd": float(advice[2])},
        ]
    )
    done = await farm.batch("--restart")
    assert (done.status, len(farm.api.posts)) == (0, 2), done.err


async def test_before_it_costs_a_terminal_shows_the_price_and_is_asked(farm: Farm) -> None:
    await farm.start()
    farm.workstation.environment |= {"FARMHAND_UPSTREAM_URL": farm.api.url, "FARMHAND_CONFIRM_USD": "0.001"}
    farm.write(["one", "two"])
    done = await farm.batch("--dry-run", "--json")
    shown = json.loads(done.out)
    assert (done.status, shown["tasks"], shown["counted_tasks"], shown["uncounted"]) == (0, 2, 2, "")
    assert shown["input_tokens"] > 0
    assert not farm.out.with_name("out.jsonl.farmhand").exists()
    # In a script nobody can be asked, and nothing is sent.
    refused = await farm.batch()
    assert (refused.status, farm.api.posts) == (2, [])
    assert "--yes answers yes" in refused.err
    for answer, status in ((b"n\n", 1), (b"y\n", 0)):
        ours, theirs = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *farm.argv(),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=farm.workstation.environment,
            cwd=CHECKOUT,
            start_new_session=True,
        )
        os.close(theirs)
        os.write(ours, answer)
        said = await asyncio.to_thread(_read_all, ours)
        assert await asyncio.wait_for(process.wait(), 120) == status, said
        assert re.search("farmhand: in-[0-9a-f]{8}: 2 tasks, 18 tokens to read ", said)
        assert "(counted by the API): US$ 0.0000018, and at most US$ 0.0041 if" in said
        assert "with --economy US$ 0.00205, sonnet US$ 0.082, opus US$ 0.164" in said
        assert "it may cost up to US$ 0.0041, and confirm_usd is US$ 0.001. Begin? [y/N]" in said
    assert len(farm.api.posts) == 2


def _read_all(terminal: int) -> str:
    """All that is shown on a terminal until its last program ends, without line breaks."""
    said = b""
    with contextlib.suppress(OSError):
        while piece := os.read(terminal, 65536):
            said += piece
    os.close(terminal)
    return " ".join(said.decode().split())
