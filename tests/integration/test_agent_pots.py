"""Two keys on one farm: each pays for its own tasks, and what happens when the one with the credits is spent."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from farmhand.core.errors import WireError
from farmhand.core.keys import fingerprint
from farmhand.core.settings import Settings
from farmhand.rotation.build import build, given_host
from farmhand.rotation.state import Memory
from farmhand.wire.client import Client
from farmhand.wire.follow import run_task
from farmhand.wire.transport import UnixTransport
from tests.support.agent import KEY, Agent, follow_until, wait_batch
from tests.support.clock import Clock
from tests.support.forked import ForkedAgent
from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi, Plan

PLAN, PAID, NEW = (f"sk-ant-test-{name}-00000000000000000000" for name in ("plan", "paid", "renewed"))
#: The third day from now on which a cycle turns, and no month is without it.
SOON = datetime.now(UTC) + timedelta(days=3)
FUNDING = {"amount_usd": 100, "cycle_day": min(SOON.day, 28), "next": ""}


@pytest.fixture
async def farm(tmp_path: Path, api: MessagesApi) -> AsyncIterator[Agent]:
    api.state.keys = frozenset({DEFAULT_KEY, PLAN, PAID, NEW})
    daemon = ForkedAgent(tmp_path, api.url, slots_api=4, idle_s=5.0, drain_s=5.0, economy_linger_s=0.1)
    daemon.clock = Clock(tmp_path / "clock")
    await daemon.start()
    yield daemon
    await daemon.stop()


async def bring(agent: Agent, key: str, pot: str, **funding: Any) -> tuple[int, Any]:
    body = FUNDING | funding if funding or pot == "plan" else None
    return await agent.call("PUT", f"/v1/key?pot={pot}", headers={"X-Farmhand-Key": key}, body=body)


async def both(agent: Agent, **funding: Any) -> None:
    assert (await bring(agent, PAID, "paid"))[0] == 200
    assert (await bring(agent, PLAN, "plan", **funding))[0] == 200


async def pot(agent: Agent, name: str = "plan") -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in (await agent.get("/v1/status"))["pots"] if one["name"] == name)
    return found


def used(api: MessagesApi) -> list[str]:
    """The keys of the requests, in the order in which they came."""
    return [post.headers["x-api-key"] for post in api.posts if post.path == "/v1/messages"]


def attempts(agent: Agent, task_id: str) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(agent.directory / "state" / "ledger.db")) as db:
        query = "SELECT a.pot, outcome FROM attempt a JOIN task ON seq = task_seq WHERE id = ? ORDER BY number"
        return db.execute(query, (task_id,)).fetchall()


async def spent(agent: Agent) -> dict[str, Decimal]:
    """What the charges of each pot come to."""
    sums: Counter[str] = Counter()
    for charge in await agent.get("/v1/charges"):
        sums[charge.get("pot", "")] += round(charge["cost_usd"] * 10**12)
    return {name: Decimal(pico).scaleb(-12) for name, pico in sums.items()}


async def test_each_key_pays_for_the_tasks_of_its_pot_and_is_nowhere_else(farm: Agent, api: MessagesApi) -> None:
    await both(farm)
    tasks = [{"id": f"{name}{n}", "prompt": f"{name} {n}", "pot": name} for n in range(10) for name in ("plan", "paid")]
    await farm.submit(*tasks, {"id": "own", "prompt": "own key"})
    for task in (*tasks, {"id": "own"}):
        assert (await farm.result(str(task["id"])))["state"] == "succeeded"
    for post in api.posts:
        words = json.loads(post.body)["messages"][0]["content"]
        text = words if isinstance(words, str) else words[0]["text"]
        assert post.headers["x-api-key"] == {"plan": PLAN, "paid": PAID, "own": DEFAULT_KEY}[text.split()[0]]
    by_pot = await spent(farm)
    assert set(by_pot) == {"plan", "paid", ""}
    assert Decimal(str((await pot(farm))["spent_usd"])) == by_pot["plan"]
    assert "limit_usd" not in await pot(farm, "paid")
    process = [Path(f"/proc/{farm.pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
    assert not any(key.encode() in held for held in process for key in (PLAN, PAID))
    await farm.stop()
    for path in farm.directory.rglob("*"):
        if path.is_file():
            held = path.read_bytes()
            assert not any(key.encode() in held for key in (PLAN, PAID)), path


async def test_a_farm_without_pots_has_nothing_of_them(agent: Agent) -> None:
    await agent.run(id="one", prompt="hello")
    assert "pots" not in await agent.get("/v1/status")
    rows = [*await agent.get("/v1/charges"), *await agent.get("/v1/finished")]
    assert len(rows) == 2
    assert all("pot" not in row for row in rows)


async def test_the_key_of_one_pot_is_refused_for_another(farm: Agent, api: MessagesApi) -> None:
    await both(farm)
    status, answer = await bring(farm, PLAN, "paid")
    assert (status, answer["error"]["code"]) == (400, "bad_key")
    assert PLAN not in json.dumps(answer)
    # A task of a pot whose key is not there waits for it, whichever others are held.
    await farm.submit({"id": "one", "prompt": "hello", "pot": "third"})
    await farm.wait_state("one", "awaiting_key")
    assert used(api) == []
    for path, body in (
        ("plan", {"cycle_day": 40}),
        ("plan", FUNDING | {"cycle_day": 0}),
        ("plan", {"amount_usd": -1}),
        ("P", None),
        ("plan", {"key": "x"}),
    ):
        status, _ = await farm.call("PUT", f"/v1/key?pot={path}", headers={"X-Farmhand-Key": PLAN}, body=body)
        assert status == 400, body


async def test_credits_that_the_api_refuses_are_spent_and_the_next_pot_pays(farm: Agent, api: MessagesApi) -> None:
    await both(farm, next="paid")
    api.fault(Fault(kind="credit"))
    await farm.submit({"id": "one", "prompt": "hello", "pot": "plan"})
    assert (await farm.result("one"))["state"] == "succeeded"
    assert attempts(farm, "one") == [("plan", "parked"), ("paid", "succeeded")]
    assert (await farm.result("one"))["attempts"] == 1
    await farm.submit({"id": "two", "prompt": "hello", "pot": "plan"})
    assert (await farm.result("two"))["state"] == "succeeded"
    assert used(api) == [PLAN, PAID, PAID]
    assert ((await pot(farm))["state"], (await pot(farm))["spent_usd"]) == ("spent", 0)
    assert set(await spent(farm)) == {"paid"}
    closed = (await pot(farm))["api_closed_at"]
    assert abs(closed - time.time()) < 600
    # It is not asked again after a crash, but once it holds something else.
    await farm.stop(signal.SIGKILL)
    await farm.start()
    await both(farm, next="paid")
    await farm.submit({"id": "three", "prompt": "hello", "pot": "plan"})
    await farm.result("three")
    assert (await pot(farm))["api_closed_at"] == closed
    await both(farm, next="paid", amount_usd=150)
    await farm.submit({"id": "four", "prompt": "hello", "pot": "plan"})
    await farm.result("four")
    assert "api_closed_at" not in await pot(farm)
    assert used(api)[3:] == [PAID, PLAN]


async def test_tasks_of_a_spent_pot_wait_until_it_is_filled_again(farm: Agent, api: MessagesApi) -> None:
    await both(farm)
    api.fault(Fault(kind="credit"))
    await farm.submit(*({"id": f"t{n}", "prompt": "hello", "pot": "plan", "batch": "b"} for n in range(50)))
    await farm.submit({"id": "paid", "prompt": "hello", "pot": "paid"})
    assert (await farm.result("paid"))["state"] == "succeeded"
    event = await follow_until(farm, "t49", "awaiting_key")
    assert event["reason"] == "pot_spent"
    turns = datetime.fromtimestamp((await pot(farm))["until"], UTC)
    assert f"it is filled again on {turns:%Y-%m-%d} (UTC)" in event["message"]
    asked = len(used(api))
    assert asked <= 5  # those that were under way, and the one of the other pot
    batch = (await farm.get("/v1/batches/b"))["batch"]
    [wait] = (await farm.get("/v1/results?batch=b&after=1000"))["waiting"]
    assert (wait["reason"], wait["tasks"]) == ("pot_spent", batch["awaiting_key"])
    # Who waits for one is told at once, and it stays.
    with Client(UnixTransport(str(farm.socket))) as client:
        keys = [{"name": "plan", "key": PLAN, "funding": FUNDING}]
        task = {"id": "mine", "prompt": "hello", "pot": "plan"}
        with pytest.raises(WireError, match=r"is spent.*task mine waits there") as caught:
            await asyncio.to_thread(run_task, client, task, keys, lambda _event: None)
    assert caught.value.exit_code == 5
    assert len(used(api)) == asked
    assert farm.clock is not None  # type: ignore[attr-defined]
    farm.clock.jump(turns.timestamp() - time.time() + 1)  # type: ignore[attr-defined]
    await wait_batch(farm, "b", succeeded=50)
    assert (await farm.result("mine"))["state"] == "succeeded"
    assert set(used(api)[asked:]) == {PLAN}
    assert (await pot(farm))["state"] == "open"


async def test_an_expired_pot_pays_for_nothing(farm: Agent, api: MessagesApi) -> None:
    await both(farm, expires="2026-01-01")
    await farm.submit({"id": "one", "prompt": "hello", "pot": "plan"})
    assert "has expired" in (await follow_until(farm, "one", "awaiting_key"))["message"]
    assert used(api) == []
    await both(farm, expires="2026-01-01", next="paid")
    assert (await farm.result("one"))["state"] == "succeeded"
    assert used(api) == [PAID]


async def test_by_the_ledger_no_more_is_spent_than_there_is_and_that_first(farm: Agent, api: MessagesApi) -> None:
    await both(farm, amount_usd=0.001, next="paid")
    tasks = (
        {"id": f"t{n}", "prompt": f"hello {n}", "pot": "plan", "batch": "b", "max_tokens": 100} for n in range(120)
    )
    await farm.submit(*tasks)
    await wait_batch(farm, "b", succeeded=120)
    by_pot, about = await spent(farm), await pot(farm)
    assert Decimal(str(about["spent_usd"])) == by_pot["plan"]
    assert Decimal("0.0007") < by_pot["plan"] <= Decimal("0.001")
    assert by_pot["paid"] > 0
    assert (about["state"], about["reserved_usd"]) == ("spent", 0)
    keys = used(api)
    assert keys[:4] == [PLAN] * 4
    assert keys[-20:] == [PAID] * 20
    # The sums are the same after a crash, and when the charges are gone.
    await farm.stop(signal.SIGKILL)
    with closing(sqlite3.connect(farm.directory / "state" / "ledger.db")) as db, db:
        db.execute("DELETE FROM charge")
    await farm.start()
    await both(farm, amount_usd=0.001, next="paid")
    assert (await pot(farm))["spent_usd"] == about["spent_usd"]


async def test_a_message_batch_is_of_one_pot_and_asked_for_by_its_key(farm: Agent, api: MessagesApi) -> None:
    await both(farm, next="paid")
    tasks = (
        {"id": f"{name}{n}", "prompt": "hello", "pot": name, "economy": True} for name in ("plan", "paid") for n in "12"
    )
    await farm.submit(*tasks)
    for name in ("plan1", "plan2", "paid1", "paid2"):
        assert (await farm.result(name))["state"] == "succeeded"
    made = [entry for entry in api.log if entry.method == "POST" and entry.path.endswith("/batches")]
    assert Counter(entry.headers["x-api-key"] for entry in made) == {PLAN: 1, PAID: 1}
    assert set(await spent(farm)) == {"plan", "paid"}
    api.fault(Fault(kind="credit", path="/v1/messages/batches", method="POST"))
    await farm.submit({"id": "late", "prompt": "hello", "pot": "plan", "economy": True})
    assert (await farm.result("late"))["state"] == "succeeded"
    assert attempts(farm, "late") == [("plan", "parked"), ("paid", "succeeded")]


async def test_a_message_batch_from_before_a_crash_is_settled_in_its_pot(farm: Agent, api: MessagesApi) -> None:
    api.batches.plan = Plan(after_ms=None)
    await both(farm)
    await farm.submit(*({"id": f"t{n}", "prompt": "hello " * 99, "pot": "plan", "economy": True} for n in range(3)))
    for _ in range(2400):
        if api.batches.all():
            break
        await asyncio.sleep(0.05)
    await farm.stop(signal.SIGKILL)
    await farm.start()
    await both(farm)
    held = (await pot(farm))["spent_usd"]
    await api.advance(action="finish")
    for n in range(3):
        assert (await farm.result(f"t{n}"))["state"] == "succeeded"
    about = await pot(farm)
    assert Decimal(str(about["spent_usd"])) == (await spent(farm))["plan"] < Decimal(str(held))
    assert about["reserved_usd"] == 0


async def test_the_key_of_one_pot_is_rotated_under_load(farm: Agent, api: MessagesApi, tmp_path: Path) -> None:
    api.state.latency_s = 0.02
    await both(farm, next="paid")
    tasks = [
        {"id": f"{name}{n}", "prompt": "hello", "pot": name, "batch": "b"}
        for n in range(60)
        for name in ("plan", "paid")
    ]
    await farm.submit(*tasks)
    file = tmp_path / "keys.env"
    file.write_text(f"PLAN={PLAN}\nPAID={PAID}\n")
    file.chmod(0o600)
    conf = Settings(key_source=f"file:{file}#PLAN", pot="plan", upstream_url=api.url)
    host = given_host({"name": "farm1", "socket": str(farm.socket)}, 5.0, "plan")
    machine = build(conf, [host], tell=lambda _line: None, memory=Memory(str(tmp_path / "memory")))

    def rotate() -> None:
        with machine.running():
            machine.stage(NEW)
            machine.advance("drained")

    await asyncio.to_thread(rotate)
    await farm.submit({"id": "after", "prompt": "hello", "pot": "plan"})
    assert (await farm.result("after"))["state"] == "succeeded"
    await wait_batch(farm, "b", succeeded=120)
    keys = used(api)
    assert keys[-1] in (NEW, PAID)
    assert keys.count(PAID) == 60  # the other pot's key had no part in it
    assert (await pot(farm))["key"] == fingerprint(NEW)
    assert (await pot(farm, "paid"))["key"] == fingerprint(PAID)
    assert f"PLAN={NEW}" in file.read_text()
    assert f"PAID={PAID}" in file.read_text()
    # A client that still has the old key does not bring it back.
    await both(farm, next="paid")
    assert (await pot(farm))["key"] == fingerprint(NEW)
    assert KEY["X-Farmhand-Key"] not in keys
