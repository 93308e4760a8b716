from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from farmhand.agent.store import history
from farmhand.agent.store.ledger import Ledger
from farmhand.agent.store.retention import empty
from farmhand.wire.schema import LATEST
from tests.unit.agent.store.test_ledger import run, task


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.db")
    yield opened
    opened.close()


async def test_finished_tasks_come_in_pages_and_the_unfinished_with_the_last(ledger: Ledger) -> None:
    await ledger.submit([task(f"t{number}") for number in range(6)], "queued", "fp")
    for number in (3, 1, 0):
        await run(ledger, f"t{number}", text=f"a{number}")
    first = history.page(ledger, 0, 10**6, 2)
    assert ([one.id for one in first.tasks], first.unfinished, first.next, first.more) == (["t3", "t1"], [], 2, True)
    rest = history.page(ledger, first.next, 10**6, 2)
    assert ([one.id for one in rest.tasks], rest.more, rest.next) == (["t0"], False, 3)
    assert [one.id for one in rest.unfinished] == ["t5", "t4", "t2"]
    assert rest.tasks[0].spec == {"id": "t0", "prompt": "hello"}
    assert (rest.tasks[0].text, rest.tasks[0].content) == ("a0", "kept")
    # Only the newest, and after the last one nothing.
    assert [one.id for one in history.page(ledger, 0, 1, 10).tasks] == ["t0"]
    assert history.page(ledger, 3, 10**6, 10).tasks == []


async def test_long_content_is_cut_on_a_page_and_whole_by_its_id(ledger: Ledger) -> None:
    prompt = "é" * history.LONGEST
    big = task("big", system="be brief")
    big.prompt = prompt
    await ledger.submit([big], "queued", "fp")
    await run(ledger, "big", text="a" * 100_000, structured={"a": 1})
    [cut] = history.page(ledger, 0, 10, 10).tasks
    assert cut.spec is not None
    assert (cut.content, len(cut.text), len(cut.spec["prompt"]), cut.structured) == ("long", 4096, 4096, None)
    [whole] = history.by_id(ledger, "big").tasks
    assert whole.spec is not None
    assert (whole.content, len(whole.text), whole.spec["prompt"], whole.structured) == (
        "kept",
        100_000,
        prompt,
        {"a": 1},
    )


async def test_what_is_kept_is_told(ledger: Ledger) -> None:
    await ledger.submit([task("a"), task("b")], "queued", "fp")
    assert history.page(ledger, 0, 10, 10).kept_since == LATEST
    await run(ledger, "a", text="answer")
    [one] = history.page(ledger, 0, 10, 10).tasks
    assert history.page(ledger, 0, 10, 10).kept_since == one.finished_at
    await ledger.write(lambda db: empty(db, LATEST))
    [one] = history.page(ledger, 0, 10, 10).tasks
    assert (one.content, one.spec, one.text) == ("gone", None, "")
    assert history.page(ledger, 0, 10, 10).kept_since == LATEST


async def test_ids_by_their_beginning_are_few_and_by_the_index(ledger: Ledger) -> None:
    await ledger.submit([task(f"t-{number:03}") for number in range(40)], "queued", "fp")
    assert [one.id for one in history.by_id(ledger, "t-003").tasks] == ["t-003"]
    assert len(history.by_id(ledger, "t-0").tasks) == 10
    assert history.by_id(ledger, "u").tasks == []


async def test_the_place_in_the_queue_is_counted_up_to_a_bound(ledger: Ledger) -> None:
    await ledger.submit([task(f"t{number}", priority=number % 2) for number in range(8)], "queued", "fp")
    await ledger.submit([task("cli", engine="cli")], "queued", "fp")
    ahead = {name: ledger.ahead(ledger.known(name).seq, 3) for name in ("t1", "t3", "t0", "t6", "cli")}
    assert ahead == {"t1": 0, "t3": 1, "t0": 3, "t6": 3, "cli": 0}


async def test_no_query_reads_the_whole_table(ledger: Ledger) -> None:
    await ledger.submit([task()], "queued", "fp")
    asked: list[str] = []
    reads = ledger._db
    reads.set_trace_callback(asked.append)
    history.page(ledger, 0, 10, 10)
    history.by_id(ledger, "t")
    ledger.ahead(ledger.known("one").seq, 10)
    reads.set_trace_callback(None)
    for query in asked:
        plan = [row["detail"] for row in reads.execute(f"EXPLAIN QUERY PLAN {query}")]
        assert not [s for s in plan if s.startswith("SCAN") and "USING" not in s and "SCAN (" not in s], (query, plan)
