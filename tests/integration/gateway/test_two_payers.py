"""The plan and the API in one gateway: reloads, a second gateway, a broken ledger, and answers that are none."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from farmhand import __version__
from farmhand.gateway.locking import lock
from farmhand.gateway.purse import DAY_S
from tests.support import plan as planned
from tests.support.gateway import GatewayProcess
from tests.support.gateway_inside import CHAT, MESSAGES, RESPONSES
from tests.support.local_server import until
from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi, Verbatim
from tests.support.paid import VARIABLE, asked, charges, paid, post, settings, settled
from tests.support.plan import Plan

ONLY_LOCAL = '[[rule]]\ntry = ["local"]\n'
CONTROL = {"X-Farmhand-Control": "1"}


def turn(path: str = MESSAGES, **more: Any) -> dict[str, Any]:
    if path == RESPONSES:
        return {"model": "x", "input": "hi"} | more
    return {"model": "x", "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}]} | more


def gateway(home: Path, text: str) -> GatewayProcess:
    """A process that has the key in its variable."""
    made = GatewayProcess(home, text)
    made.environ[VARIABLE] = DEFAULT_KEY
    return made


async def test_what_is_allowed_outlives_a_reload_but_not_its_key(tmp_path: Path) -> None:
    async with MessagesApi() as api, gateway(tmp_path, settings(api, enabled=False, day="", rules=ONLY_LOCAL)) as one:
        await one.start()
        assert (await one.command("allow", "metered", "--for", "1h", "--max-usd", "1"))[0] == 0
        assert (await one.call("POST", MESSAGES, turn()))[0] == 200
        assert (await one.command("reload"))[0] == 0
        status, headers, _ = await one.call("POST", MESSAGES, turn())
        assert (status, headers["x-farmhand-backend"]) == (200, "metered")
        # Settings with another variable, which has no key: what was open is closed.
        one.write('[metered]\nauth_env = "NO_KEY_HERE"\n' + ONLY_LOCAL)
        assert (await one.command("reload"))[0] == 0
        status, _, body = await one.call("POST", MESSAGES, turn())
        assert (status, "metered: off" in body["error"]["message"]) == (402, True), body
        one.write(settings(api, enabled=False, day="", rules=ONLY_LOCAL))
        assert (await one.command("reload"))[0] == 0
        assert (await one.call("POST", MESSAGES, turn()))[0] == 402
        assert (await one.call("POST", "/v1/messages/count_tokens", turn()))[0] == 501


async def test_a_second_gateway_takes_no_open_turn_for_lost(tmp_path: Path) -> None:
    async with MessagesApi() as api, gateway(tmp_path, settings(api)) as one:
        await one.start()
        api.fault(Fault(kind="slow", delay_s=6.0))
        open_turn = asyncio.create_task(one.call("POST", MESSAGES, turn()))
        await until(lambda: bool(asked(api)))
        assert [row["outcome"] for row in charges(one.database)] == ["open"]
        for text in (settings(api), ""):
            one.write(text)
            status, _, err = await one.farmhand("gateway", "serve")
            assert (status, err.count("\n")) == (3, 1), err
        if not open_turn.done():
            assert [row["outcome"] for row in charges(one.database)] == ["open"]
        # The cost of an open turn is not merged before it is known: a charge is merged once.
        assert (await one.farmhand("cost"))[0] == 0
        assert (await open_turn)[0] == 200
        await until(lambda: charges(one.database)[0]["outcome"] == "done")
        _, out, _ = await one.farmhand("cost", "--json")
        found = json.loads(out)["whole"]
        assert (found["requests"], found["unpriced"], found["spent_usd"]) == (1, 0, "0.0000099")


async def test_a_reload_that_is_refused_leaves_nothing_of_what_it_prepared(tmp_path: Path) -> None:
    async with Plan(tmp_path) as plan, MessagesApi() as api, GatewayProcess(tmp_path / "home") as one:
        plan.use(one)
        await one.start()
        key = tmp_path / "keys.env"
        rule = '[[rule]]\ntry = ["local", "subscription", "metered"]\n'
        one.write(planned.settings(rule=rule) + settings(api, rules="", more=f'key_source = "file:{key}"'))
        key.write_text("ANTHROPIC_API_KEY=sk-ant-oat01-test-000000000000\n")
        key.chmod(0o600)
        await _refused(one, "[metered] key_source")
        # The plan's half is good and ready by the time at which the other half is refused.
        key.write_text(f"ANTHROPIC_API_KEY={DEFAULT_KEY}\n")
        held = lock(one.database)
        assert held is not None
        await _refused(one, "another gateway pays")
        os.close(held)
        assert (await one.command("reload"))[0] == 0
        assert [state["closed"] for state in (await one.status())["states"]] == [None, None]
        assert len(list(one.home.glob("farmhand-run-*"))) == 1
        one.write("[subscription]\nenabled = true\n")
        assert (await one.command("reload"))[0] == 5
        assert len(list(one.home.glob("farmhand-run-*"))) == 1
        one.write("")
        assert (await one.command("reload"))[0] == 0
        await until(lambda: not list(one.home.glob("farmhand-run-*")))
        await one.stop()
        assert DEFAULT_KEY not in one.log.read_text()


async def _refused(one: GatewayProcess, words: str) -> None:
    """A reload that is refused, and after which all is as it was: nothing is on, nothing is left."""
    status, _, err = await one.command("reload")
    assert (status, words in err, err.count("\n")) == (3, True, 1), err
    assert [state["closed"]["code"] for state in (await one.status())["states"]] == ["off", "off"]
    assert list(one.home.glob("farmhand-run-*")) == []


async def test_turns_in_a_row_stay_on_the_plan_and_the_api_takes_what_it_does_not(tmp_path: Path) -> None:
    rule = '[[rule]]\ntry = ["local", "subscription", "metered"]\n'
    async with Plan(tmp_path) as plan, MessagesApi() as api:
        both = planned.settings(rule=rule, queue=0, warm_s=600) + settings(api, rules="")
        async with gateway(tmp_path / "home", both) as one:
            plan.use(one)
            await one.start()

            async def backend(dialect: str, **more: Any) -> tuple[int, str]:
                path, body = planned.text_turn(dialect, "CANARY-WORDS", **more)
                status, headers, _ = await one.call("POST", path, body)
                return status, headers["x-farmhand-backend"]

            for dialect, streamed in (("messages", False), ("chat", True), ("responses", True), ("messages", True)):
                assert await backend(dialect, stream=streamed) == (200, "subscription")
            assert asked(api) == []
            look = [{"name": "look", "input_schema": {"type": "object"}}]
            assert await backend("messages", tools=look) == (200, "metered")
            # What the plan declines goes on to the API, in the same turn. The ledger has both.
            plan.api.fault(Fault(kind="status", status=429, count=9))
            assert await backend("messages") == (200, "metered")
            *_, paid_row, refused, instead = await settled(one.database, 7)
            assert (paid_row["residency"], paid_row["pico"] > 0) == ("metered", True)
            assert (refused["outcome"], refused["pico"], refused["model"]) == ("refused", 0, "")
            assert (instead["residency"], instead["outcome"], instead["decision"]) == (
                "metered",
                "done",
                refused["decision"],
            )
            _, out, _ = await one.farmhand("cost", "--json", "--by", "label:residency")
            groups = {group["key"]: group for group in json.loads(out)["groups"]}
            assert (groups["subscription"]["unpriced"], groups["metered"]["unpriced"]) == (4, 0)
            await one.stop()
            for file in one.home.rglob("*"):
                secrets = (b"CANARY-WORDS", DEFAULT_KEY.encode(), planned.TOKEN.encode())
                assert not file.is_file() or not any(secret in file.read_bytes() for secret in secrets), file


async def test_a_plan_that_is_switched_off_ends_its_turn_and_leaves_no_process(tmp_path: Path) -> None:
    async with Plan(tmp_path) as plan, GatewayProcess(tmp_path / "home", planned.settings(warm_s=600, queue=9)) as one:
        plan.use(one)
        await one.start()

        async def ask() -> int:
            path, body = planned.text_turn("messages", "hello")
            return (await one.call("POST", path, body))[0]

        plan.api.fault(Fault(kind="slow", delay_s=3.0))
        works = asyncio.create_task(ask())
        await until(lambda: bool(plan.api.posts))
        # Those that wait leave, and those that stay get what the old settings promise.
        waits = [asyncio.create_task(ask()) for _ in range(6)]
        await asyncio.sleep(0.5)
        for number in (0, 2, 4):
            waits[number].cancel()
        one.write("")
        assert (await one.command("reload"))[0] == 0
        assert await ask() == 402
        assert [await works, *[await waits[number] for number in (1, 3, 5)]] == [200] * 4
        await until(lambda: not any(planned.alive(pid) for pid in plan.runs()))
        await until(lambda: not list(one.home.glob("farmhand-run-*")))
        one.write(planned.settings())
        assert (await one.command("reload"))[0] == 0
        assert await ask() == 200
        assert await one.stop() == 0
        assert list(one.home.glob("farmhand-run-*")) == []


async def test_a_clock_that_jumps_over_midnight_and_back_gives_no_second_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    for module in ("purse", "backends.metered"):
        monkeypatch.setattr(f"farmhand.gateway.{module}.time", clock)
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch, day="0.003") as inside:

        async def until_refused() -> int:
            for number in range(200):
                if (await post(inside, turn(max_tokens=2000)))[0] != 200:
                    return number
            raise AssertionError("the day has no end")

        api.fault(Fault(kind="cut", after_events=0))
        assert (await post(inside, turn(max_tokens=2000)))[0] == 502
        assert await until_refused() > 0
        clock.shift = DAY_S
        assert await until_refused() > 0
        for shift in (0, DAY_S, 0):
            clock.shift = shift
            assert await until_refused() == 0
        inside.answering.ledger.flush()
        sums: dict[int, int] = {}
        for row in charges(tmp_path / "gateway.db"):
            day = int(row["created_at"] // DAY_S)
            sums[day] = sums.get(day, 0) + (row["pico"] or 0) + row["held"]
        assert len(sums) == 2
        assert max(sums.values()) <= 3 * 10**9


class Clock:
    """The module `time`, some seconds ahead."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self.shift = 0

    def time(self) -> float:
        """The shifted wall clock; it stays far from a real midnight."""
        return 1_796_000_000.0 + self.shift + time.monotonic() % 1000


async def test_a_key_that_takes_its_time_holds_nobody_up(tmp_path: Path) -> None:
    """A password manager asks for its passphrase: turns go on, and who asked for the reload may leave."""
    asks, said, program = tmp_path / "asks", tmp_path / "said", tmp_path / "key"
    program.write_text(f"#!/bin/sh\n: > {asks}\nwhile [ ! -s {said} ]; do sleep 0.1; done\ncat {said}\n")
    program.chmod(0o755)
    async with MessagesApi() as api, GatewayProcess(tmp_path) as one:
        await one.start()
        one.write(settings(api, more=f'key_source = "command:{program}"'))
        reload = asyncio.create_task(one.call("POST", "/farmhand/v1/reload", {}, CONTROL))
        await until(asks.exists)
        assert (await one.call("POST", MESSAGES, turn()))[0] == 402
        reload.cancel()
        await asyncio.wait({reload})
        # It has seen that the client is gone before it has the key.
        assert (await one.call("GET", "/health"))[0] == 200
        said.write_text(DEFAULT_KEY + "\n")
        async with asyncio.timeout(60):
            while (await one.call("POST", MESSAGES, turn()))[0] != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_a_ledger_that_cannot_be_read_closes_only_what_is_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 00:00 UTC the day's sum is read from it."""
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch) as inside:
        assert (await post(inside, turn()))[0] == 200
        inside.answering.ledger.flush()
        (tmp_path / "gateway.db").rename(tmp_path / "away.db")
        monkeypatch.setattr("farmhand.gateway.purse.DAY_S", 43_200)
        status, _, body = await post(inside, turn())
        assert (status, b"metered: there is no ledger" in body, b"local: none is set up" in body) == (402, True, True)
        assert inside.answering.status()["states"][0]["closed"]["code"] == "ledger"
        assert (await post(inside, {}, "/farmhand/v1/allow"))[0] == 403
        (tmp_path / "away.db").rename(tmp_path / "gateway.db")
        assert (await post(inside, turn()))[0] == 200
        assert len(asked(api)) == 2


async def test_a_client_that_leaves_while_the_ledger_is_locked_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reservation waits for the disk: the writer must not stumble over what nobody waits for any more."""
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch) as inside:
        with closing(sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            leaves = asyncio.create_task(post(inside, turn()))
            await until(lambda: inside.answering.setup.states()[0].spent_pico != 0)
            leaves.cancel()
            await asyncio.wait({leaves})
            await until(lambda: not inside.answering.open_turns)
            other.execute("COMMIT")
        assert asked(api) == []
        async with asyncio.timeout(60):
            assert (await post(inside, turn()))[0] == 200
        inside.answering.ledger.flush()
        left, done = charges(tmp_path / "gateway.db")
        assert (left["outcome"], left["pico"], left["held"], done["outcome"]) == ("cancelled", 0, 0, "done")


@pytest.mark.parametrize("path", [MESSAGES, CHAT, RESPONSES])
async def test_an_answer_that_is_no_message_is_an_error_and_may_have_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    told = '{"type":"error","error":{"type":"overloaded_error","message":"full up"}}'
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch) as inside:
        for fault, words in (
            (Fault(kind="garbage"), b"the answer is no message"),
            (Fault(kind="status", status=200, raw=told), b"the answer is no message: full up"),
        ):
            api.fault(fault)
            status, headers, body = await post(inside, turn(path), path)
            assert (status, words in body, headers["content-type"]) == (502, True, "application/json"), body
            assert "error" in json.loads(body)
        inside.answering.ledger.flush()
        for row in charges(tmp_path / "gateway.db"):
            assert (row["outcome"], row["pico"], row["held"] > 0) == ("failed", None, True)


async def test_a_proxys_page_is_not_passed_off_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = "<html><h1>413 Request Entity Too Large</h1></html>"
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch) as inside:
        api.fault(Fault(kind="status", status=413, raw=page))
        status, _, body = await post(inside, turn())
        assert (status, json.loads(body)["error"]["message"]) == (413, "the API answered HTTP 413")


async def test_the_operators_own_prices_are_those_of_the_gateway(tmp_path: Path) -> None:
    """Of prices.toml beside config.toml, at the start and at each reload; a file that is wrong changes nothing."""
    own = tmp_path / ".config" / "farmhand" / "prices.toml"
    row = '[[price]]\nmodel = "claude-haiku-5-5"\ninput = "{0}"\noutput = "{0}"\ncache_write = "{0}"\n'
    row += 'cache_write_1h = "{0}"\ncache_read = "{0}"\n'
    label = 'budget_label_usd = { "project:web" = "1" }'
    async with MessagesApi() as api, gateway(tmp_path, settings(api, more=label)) as one:
        own.write_text(row.format(7))
        await one.start()
        _, out, _ = await one.command("status", "--json")
        shown = json.loads(out)
        assert (shown["version"], shown["states"][0]["labels"][0]["name"]) == (1, "project:web")
        assert shown["gateway_version"] == __version__
        assert "  project web: US$ 0.00 of 1.00 used today" in (await one.command("status"))[1]
        for price in (7, 11):
            own.write_text(row.format(price))
            assert (await one.command("reload"))[0] == 0
            assert (await one.call("POST", MESSAGES, turn()))[0] == 200
            used = asked(api)[-1].usage
            await until(lambda: charges(one.database)[-1]["outcome"] == "done")
            paid_row = charges(one.database)[-1]
            assert paid_row["pico"] == (used["input_tokens"] + used["output_tokens"]) * price * 10**6
            assert "+" in paid_row["price_version"]
        # Too dear now: the limit of a turn is kept by the same prices, and so is what would be.
        own.write_text(row.format(900_000))
        assert (await one.command("reload"))[0] == 0
        status, _, body = await one.call("POST", MESSAGES, turn())
        assert (status, "this turn may cost" in body["error"]["message"]) == (402, True), body
        _, out, _ = await one.command("explain", "--class", "chat", "--tokens", "100", "--json")
        assert json.loads(out)["facts"]["most_pico"] > 10**15
        own.write_text("[[price]]\nmodel = 7\n")
        status, _, err = await one.command("reload")
        assert (status, "prices.toml: price 1" in err, err.count("\n")) == (3, True, 1), err
        assert (await one.call("POST", MESSAGES, turn()))[0] == 402
        await one.stop()
        status, _, err = await one.command("serve")
        assert (status, "prices.toml: price 1" in err, err.count("\n")) == (3, True, 1), err


async def test_a_paid_whole_answer_to_a_streamed_request_is_counted_and_comes_as_a_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: dict[str, Any] = {"type": "message", "id": "m", "role": "assistant", "model": "claude-haiku-5-5"}
    whole["stop_reason"] = "end_turn"
    whole |= {"content": [{"type": "text", "text": "CANARY"}], "usage": {"input_tokens": 3, "output_tokens": 1}}
    given = {"content-type": "application/json"}
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch) as inside:
        for path, ends in ((MESSAGES, b"message_stop"), (CHAT, b"[DONE]"), (RESPONSES, b"response.completed")):
            api.fault(Fault(kind="verbatim", answer=Verbatim(body=json.dumps(whole).encode(), headers=given)))
            status, headers, body = await post(inside, turn(path, stream=True), path)
            assert (status, headers["content-type"].split(";")[0]) == (200, "text/event-stream")
            assert (b"CANARY" in body, ends in body, b'"error":{' in body) == (True, True, False), body
        inside.answering.ledger.flush()
        rows = charges(tmp_path / "gateway.db")
        assert [(row["outcome"], row["held"]) for row in rows] == [("done", 0)] * 3
        assert len({row["pico"] for row in rows if row["pico"]}) == 1
