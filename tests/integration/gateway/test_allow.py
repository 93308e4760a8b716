"""`farmhand gateway allow`: opened by the operator, for a time, up to an amount; and what a kill leaves behind."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.gateway import GatewayProcess
from tests.support.messages_api import DEFAULT_KEY, MessagesApi
from tests.support.paid import VARIABLE, asked, billed, charges, settings, settled

CONTROL = {"X-Farmhand-Control": "1"}
ONLY_LOCAL = '[[rule]]\ntry = ["local"]\n'


def turn(**more: Any) -> dict[str, Any]:
    return {"model": "x", "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}]} | more


def gateway(home: Path, text: str, key: str = DEFAULT_KEY) -> GatewayProcess:
    """A process that has the key in its variable."""
    made = GatewayProcess(home, text)
    made.environ[VARIABLE] = key
    return made


async def test_allow_opens_for_a_class_and_stop_closes(tmp_path: Path) -> None:
    async with MessagesApi() as api, gateway(tmp_path, settings(api, enabled=False, day="", rules=ONLY_LOCAL)) as one:
        await one.start()
        said = turn(tools=[{"name": "look", "input_schema": {"type": "object"}}])
        status, _, body = await one.call("POST", "/v1/messages", said)
        command = "farmhand gateway allow metered --for 30m --max-usd 1 --class agent"
        assert (status, f"allow it: {command}." in body["error"]["message"]) == (402, True)
        assert asked(api) == []
        arguments = command.removeprefix("farmhand gateway ").split()
        code, out, _ = await one.command(*arguments)
        assert (code, "metered is allowed for agent until" in out, "up to US$ 1.00" in out) == (0, True, True)
        status, headers, _ = await one.call("POST", "/v1/messages", said)
        assert (status, headers["x-farmhand-backend"]) == (200, "metered")
        # Another class stays shut, and its advice names the command again.
        status, _, body = await one.call("POST", "/v1/messages", turn())
        assert (status, "farmhand gateway allow metered" in body["error"]["message"]) == (402, True)
        _, out, _ = await one.command("status")
        assert "metered is allowed for agent until" in out
        assert "of it used" in out
        _, out, _ = await one.command("explain", headers["x-farmhand-decision"], "--json")
        assert json.loads(out)["same_again"] is True
        code, out, _ = await one.command("allow", "metered", "--stop")
        assert (code, out.strip()) == (0, "metered is closed again")
        assert (await one.call("POST", "/v1/messages", said))[0] == 402
        (row,) = await settled(one.database, 1)
        with sqlite3.connect(one.database) as db:
            ((classes, pico, ended, spent),) = db.execute("SELECT classes, pico, ended_at, spent FROM allowance")
        assert (classes, pico, spent) == ("agent", 10**12, row["pico"])
        assert ended > 0
        await one.stop()


async def test_an_allowance_ends_by_itself_and_with_the_process(tmp_path: Path) -> None:
    async with MessagesApi() as api, gateway(tmp_path, settings(api, rules=ONLY_LOCAL)) as one:
        await one.start()
        assert (await one.command("allow", "metered", "--for", "2s", "--max-usd", "1"))[0] == 0
        async with asyncio.timeout(60):
            # It ends by the clock alone.
            while (await one.call("POST", "/v1/messages", turn()))[0] == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert (await one.command("allow", "metered", "--for", "1h", "--max-usd", "1"))[0] == 0
        assert (await one.call("POST", "/v1/messages", turn()))[0] == 200
        await one.stop(signal.SIGKILL)
        await one.start()
        assert (await one.call("POST", "/v1/messages", turn()))[0] == 402
        with sqlite3.connect(one.database) as db:
            assert db.execute("SELECT count(*) FROM allowance WHERE ended_at IS NULL").fetchone() == (0,)
        await one.stop()


async def test_an_allowance_has_its_own_limit(tmp_path: Path) -> None:
    async with MessagesApi() as api, gateway(tmp_path, settings(api, rules=ONLY_LOCAL)) as one:
        await one.start()
        assert (await one.command("allow", "metered", "--for", "1h", "--max-usd", "0.0005"))[0] == 0
        statuses = []
        for _ in range(200):
            status, _, body = await one.call("POST", "/v1/messages", turn(max_tokens=200))
            statuses.append(status)
            if status != 200:
                break
        assert statuses[-1] == 402
        assert "of the allowed US$ 0.0005 are left" in body["error"]["message"]
        rows = await settled(one.database, len(statuses) - 1)
        assert rows
        assert sum(row["pico"] + row["held"] for row in rows) <= 5 * 10**8
        await one.stop()


async def test_what_cannot_be_allowed_is_said_in_one_line(tmp_path: Path) -> None:
    async with MessagesApi() as api, GatewayProcess(tmp_path, settings(api, enabled=False, day="")) as one:
        one.write(settings(api, enabled=False, day="", rules=ONLY_LOCAL))
        await one.start()
        for arguments, code, words in (
            (("--for", "30m", "--max-usd", "1"), 3, "[metered] has no key"),
            (("--for", "soon", "--max-usd", "1"), 2, "not a duration"),
            (("--for", "25h", "--max-usd", "1"), 2, "not a time of up to 24 hours"),
            (("--for", "30m", "--max-usd", "1e9"), 2, "not an amount"),
            (("--for", "30m"), 2, "--max-usd is missing"),
            (("--stop", "--for", "30m"), 2, "--stop closes what is open"),
        ):
            status, out, err = await one.command("allow", "metered", *arguments)
            assert (status, out, words in err, "Traceback" in err) == (code, "", True, False), err
        await one.stop()
        one.environ[VARIABLE] = DEFAULT_KEY
        await one.start()
        for arguments, code, words in (
            (("--for", "25h", "--max-usd", "1"), 2, "not a time of up to 24 hours"),
            (("--for", "30m", "--max-usd", "-1"), 2, "not an amount"),
            (("--for", "30m", "--max-usd", "nan"), 2, "not an amount"),
        ):
            status, out, err = await one.command("allow", "metered", *arguments)
            assert (status, out, words in err) == (code, "", True), err
        await one.stop()


async def test_a_gateway_without_a_good_key_does_not_start(tmp_path: Path) -> None:
    async with MessagesApi() as api:
        keys = ("", "sk-ant-oat01-test-0123456789abcdef", "hunter2", "sk-ant-test-short")
        for number, key in enumerate(keys):
            home = tmp_path / str(number)
            home.mkdir()
            async with gateway(home, settings(api), key) as one:
                status, out, err = await one.command("serve")
                assert (status, out) == (3, ""), key
                assert err.startswith("farmhand: [metered] auth_env:") or "[metered] auth_env:" in err
                assert len(err.strip().splitlines()) == 1
                assert not key or key not in err
        async with gateway(tmp_path / "0", settings(api)) as one, gateway(tmp_path / "0", settings(api)) as other:
            one.write(settings(api))
            await one.start()
            other.write(settings(api))
            status, _, err = await other.command("serve")
            assert (status, "another gateway pays from" in err) == (3, True)
            await one.stop()
        status, _, err = await gateway(tmp_path, settings(api, day="")).command("serve")
        assert (status, "budget_day_usd: missing" in err) == (3, True)


async def test_a_kill_loses_no_charge_that_was_answered(tmp_path: Path) -> None:
    """Killed amid streams at random moments, the ledger has every request that the API was asked, and the day holds."""
    chance = random.Random(9)  # noqa: S311
    async with MessagesApi(event_ms=3) as api, gateway(tmp_path, settings(api, day="0.005")) as one:
        for number in range(4):
            await one.start()
            turns = [asyncio.create_task(_turn(one)) for _ in range(12)]
            if number == 0:  # some are answered, however busy the machine is
                await asyncio.wait(turns, timeout=120)
            await asyncio.sleep(chance.random() * 0.4)
            await one.stop(signal.SIGKILL)
            await asyncio.gather(*turns)
        await one.start()
        # What the ledger has is what the day has left, and no more is spent than that.
        spent = sum((row["pico"] or 0) + row["held"] for row in charges(one.database))
        left = (5 * 10**9 - spent) // 550_000
        assert (await one.call("POST", "/v1/messages", turn(max_tokens=max(left, 100) + 1)))[0] in (400, 402)
        state = next(state for state in (await one.status())["states"] if state["name"] == "metered")
        await one.stop()
        rows = charges(one.database)
        counted = sum((row["pico"] or 0) + row["held"] for row in rows)
        assert counted == state["spent_pico"] <= 5 * 10**9
        assert not [row for row in rows if row["outcome"] == "open"]
        entries = [entry for entry in asked(api) if entry.usage]
        assert len(entries) <= len(rows)
        # What the API bills is known to the pico-dollar, or covered by what is held for it.
        known = {row["request_id"]: row for row in rows if row["outcome"] == "done"}
        for entry in entries:
            if entry.request_id in known:
                assert known[entry.request_id]["pico"] == billed(entry)
        others = [billed(entry) for entry in entries if entry.request_id not in known]
        assert sum(others) <= sum((row["pico"] or 0) + row["held"] for row in rows if row["outcome"] != "done")
        assert known
        assert [row for row in rows if row["outcome"] == "lost"]


async def _turn(one: GatewayProcess) -> None:
    headers = {"authorization": f"Bearer {one.token}"}
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{one.url}/v1/messages", json=turn(stream=True, max_tokens=100), headers=headers) as answer,
        ):
            await answer.read()
    except aiohttp.ClientError:
        pass


async def test_the_farms_cost_has_the_gateways_turns(tmp_path: Path) -> None:
    async with MessagesApi() as api, gateway(tmp_path, settings(api)) as one:
        await one.start()
        for _ in range(3):
            assert (await one.call("POST", "/v1/messages", turn()))[0] == 200
        await one.stop()
        rows = charges(one.database)
        with sqlite3.connect(one.database) as db:
            db.execute(
                "INSERT INTO charge (decision, created_at, model, work_class, residency, backend, labels, status,"
                " outcome, seconds, pico, price_version, terms, input_tokens, output_tokens,"
                " cache_creation_input_tokens, cache_creation_1h_input_tokens, cache_read_input_tokens, list_model,"
                " list_pico, held, request_id) SELECT 'fh-local', created_at, 'qwen', 'agent', 'local', 'local:qwen',"
                " '', 200, 'done', 1, 0, '', '', 1000, 10, 0, 0, 0, 'claude-sonnet-5-5', 2100000000, 0, '' FROM charge"
                " LIMIT 1"
            )
        status, out, err = await one.farmhand("cost", "--json", "--by", "label:residency", "--no-interactive")
        assert status == 0, err
        shown = json.loads(out)
        assert {row["key"]: row["requests"] for row in shown["groups"]} == {"metered": 3, "local": 1}
        assert shown["kept_local"] == {"turns": 1, "list_usd": "0.0021", "without_price": 0}
        spent = sum(row["pico"] for row in rows)
        assert shown["spent"]["total_usd"] == f"{spent / 10**12:.12f}".rstrip("0")
        assert [host["host"] for host in shown["hosts"]] == ["workstation"]
        assert shown["savings"]["saving_usd"] == "0.00"
        assert shown["savings"]["left_out_requests"] == 0
        status, out, _ = await one.farmhand("cost", "--no-interactive", "--reprice")
        assert "1 turn kept local, at list price: not counted as saved" in out
        # Merged again, nothing counts twice.
        assert json.loads((await one.farmhand("cost", "--json"))[1])["spent"] == shown["spent"]
