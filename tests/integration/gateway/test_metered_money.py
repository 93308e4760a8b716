"""What metered turns cost, and what they may cost: reservations, the limits of a turn and a day, lost answers."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from farmhand.gateway.cost_pages import WorkstationLedger
from farmhand.gateway.explain import text
from farmhand.gateway.ledger import charges as charges_of
from farmhand.gateway.ledger import read
from tests.support.gateway_inside import TOKEN, GatewayInside
from tests.support.messages_api import Fault, MessagesApi, Verbatim
from tests.support.paid import HAIKU, asked, billed, charges, paid, post, turn


@pytest.mark.parametrize("used", [{"speed": "fast"}, {"service_tier": "premium"}, {"inference_geo": "mars"},
                                  {"server_tool_use": {"web_search_requests": 1}}])  # fmt: skip
async def test_an_unknown_term_makes_the_cost_unknown_and_never_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: dict[str, Any]
) -> None:
    answer: dict[str, Any] = {
        "type": "message",
        "id": "m",
        "role": "assistant",
        "model": HAIKU,
        "stop_reason": "end_turn",
    }
    answer |= {"content": [{"type": "text", "text": "x"}], "usage": {"input_tokens": 3, "output_tokens": 1, **used}}
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch) as inside:
        given = {"content-type": "application/json"}
        api.fault(Fault(kind="verbatim", answer=Verbatim(body=json.dumps(answer).encode(), headers=given)))
        assert (await post(inside, turn()))[0] == 200
        inside.answering.ledger.flush()
        (row,) = charges(tmp_path / "gateway.db")
        assert (row["pico"], row["outcome"]) == (None, "done")
        assert row["held"] > 0
        (state,) = [state for state in inside.answering.setup.states() if state.residency == "metered"]
        assert state.spent_pico == row["held"]


async def test_parallel_turns_stay_within_the_day_whatever_becomes_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """US$ 0.01, 200 streamed turns at once; of some the client leaves, of some the API's connection breaks."""
    chance = random.Random(10)  # noqa: S311
    limit = 10**10
    async with MessagesApi(event_ms=5) as api, paid(tmp_path, api, monkeypatch, day="0.01") as inside:
        api.fault(*(Fault(kind="cut", after_events=3, skip=number * 7) for number in range(3)))
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
            answers = await asyncio.gather(*(_some_turn(inside, session, chance) for _ in range(200)))
        for _ in range(600):
            if inside.answering.open_turns == 0:
                break
            await asyncio.sleep(0.1)
        inside.answering.ledger.flush()
        rows = charges(tmp_path / "gateway.db")
        counted = sum((row["pico"] or 0) + row["held"] for row in rows)
        assert counted <= limit
        (state,) = [state for state in inside.answering.setup.states() if state.residency == "metered"]
        assert state.spent_pico == counted
        assert f'farmhand_gateway_metered_usd{{kind="spent"}} {counted / 10**12!r}'.encode() in (
            inside.answering.metrics.text()
        )
        ended = sum(float(row["turns"]) for row in inside.answering.metrics.counts())
        assert ended == 200
        entries = {entry.request_id: entry for entry in asked(api) if entry.usage}
        whole = [row for row in rows if row["outcome"] == "done" and row["held"] == 0]
        assert len(whole) > 20
        assert sum(row["pico"] for row in whole) == sum(billed(entries[row["request_id"]]) for row in whole)
        # Nothing that the API was asked is missing, and all that it may bill is covered.
        assert sum(billed(entry) for entry in entries.values()) <= counted
        sent = [row for row in rows if row["pico"] != 0 or row["held"]]
        assert len(entries) <= len(sent)
        assert {"done", "left"} <= set(answers)
        assert "refused" in answers


async def _some_turn(inside: GatewayInside, session: aiohttp.ClientSession, chance: random.Random) -> str:
    leaves, limit = chance.random() < 0.3, chance.choice((100, 200, 400))
    await asyncio.sleep(chance.random() * 0.5)
    headers = {"authorization": f"Bearer {TOKEN}"}
    body = turn(stream=True, max_tokens=limit)
    async with session.post(f"{inside.url}/v1/messages", json=body, headers=headers) as answer:
        if answer.status == 402:
            return "refused"
        assert answer.status == 200, await answer.text()
        if leaves:
            await answer.content.readany()
            return "left"
        await answer.read()
        return "done"


async def test_each_project_stays_within_its_own_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 streamed turns of each of two projects at once: one has a budget of its own, the other the star's."""
    more = 'budget_label_usd = { "project:small" = "0.003", "project:*" = "0.005" }'
    limits = {"small": 3 * 10**9, "other": 5 * 10**9}
    async with MessagesApi(event_ms=5) as api, paid(tmp_path, api, monkeypatch, more=more) as inside:
        body = turn(stream=True, max_tokens=200)

        async def one(project: str) -> int:
            return (await post(inside, body, **{"X-Farmhand-Project": project}))[0]

        statuses = await asyncio.gather(*(one(name) for name in limits for _ in range(40)))
        assert {200, 402} == set(statuses)
        assert (await post(inside, body))[0] == 200
        status, headers, said = await post(inside, body | {"max_tokens": 9000}, **{"X-Farmhand-Project": "SMALL"})
        # Less output has room in its budget, and the client is asked for that.
        assert (status, b"max_tokens: 9000 > 4" in said) == (400, True), said
        inside.answering.ledger.flush()
        rows = charges(tmp_path / "gateway.db")
        counted = dict.fromkeys(limits, 0)
        for row in rows:
            if (name := json.loads(row["labels"]).get("project")) is not None:
                counted[name] += (row["pico"] or 0) + row["held"]
        assert all(0 < counted[name] <= limits[name] for name in limits)
        (state,) = [state for state in inside.answering.setup.states() if state.residency == "metered"]
        assert {one.name: one.spent_pico for one in state.labels} == {
            f"project:{name}": counted[name] for name in limits
        }
        shown = read(tmp_path / "gateway.db", headers["x-farmhand-decision"])
        assert shown is not None
        assert [one.name for one in shown.states[0].labels] == ["project:small"]
        assert [one.reason.code for one in shown.decision.refusals if one.backend == "metered"] == ["budget_label"]
        assert "project small" in text(shown)
        pages = [json.loads(page) for page in WorkstationLedger(tmp_path / "gateway.db").charges()]
        assert {page["labels"].get("project") for page in pages} == {"small", "other", None}
        assert pages[0]["labels"]["client"] == "python"


async def test_a_turn_that_was_cut_counts_as_its_reservation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch) as inside:
        api.fault(Fault(kind="cut", after_events=3))
        status, headers, body = await post(inside, turn(stream=True, max_tokens=5000))
        assert status == 200
        assert b"event: error" in body
        inside.answering.ledger.flush()
        (row,) = charges(tmp_path / "gateway.db")
        assert row["outcome"] == "failed"
        # The most that it can have cost: 5,000 tokens of output at the dearest terms, and each byte a token.
        assert row["pico"] + row["held"] > 5000 * 500_000
        (known,) = charges_of(tmp_path / "gateway.db", headers["x-farmhand-decision"])
        assert known.held == row["held"]


async def test_what_cannot_be_written_down_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reservation that cannot be kept is none: BerriAI/litellm#33923 went on without it."""
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch) as inside:
        with sqlite3.connect(tmp_path / "gateway.db") as db:
            full = "CREATE TRIGGER full BEFORE INSERT ON charge BEGIN SELECT raise(ABORT, 'disk full'); END"
            db.execute(full)
        status, headers, body = await post(inside, turn())
        assert (status, headers["retry-after"], b"ledger cannot be written" in body) == (503, "1", True)
        assert asked(api) == []
        with sqlite3.connect(tmp_path / "gateway.db") as db:
            db.execute("DROP TRIGGER full")
        assert (await post(inside, turn()))[0] == 200
        (state,) = [state for state in inside.answering.setup.states() if state.residency == "metered"]
        assert state.spent_pico == billed(asked(api)[0])


async def test_a_try_that_was_lost_counts_before_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try may be billed: the turn's limit is for all of them, and so is the day's."""
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch, more='max_usd_per_turn = "0.004"') as inside:
        api.fault(Fault(kind="reset", count=9))
        status, _, body = await post(inside, turn(max_tokens=5000))
        assert (status, b"was cut before an answer came" in body) == (502, True)
        assert len(asked(api)) == 1
        status, _, _ = await post(inside, turn(max_tokens=100))
        assert (status, len(asked(api))) == (502, 3)
        inside.answering.ledger.flush()
        rows = charges(tmp_path / "gateway.db")
        assert [row["pico"] for row in rows] == [None, None]
        assert 5000 * 550_000 < rows[0]["held"] < 4 * 10**9
        assert rows[1]["held"] > 2 * 100 * 550_000
        (state,) = [state for state in inside.answering.setup.states() if state.residency == "metered"]
        assert state.spent_pico == sum(row["held"] for row in rows)
