"""A turn that the plan declines goes on to what its rule tries next."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway.test_two_payers import gateway
from tests.support import plan as planned
from tests.support.messages_api import Fault, MessagesApi, Windows
from tests.support.paid import asked, settings, settled
from tests.support.plan import Plan


@pytest.mark.parametrize("code", ["login", "used_up", "failed"])
async def test_a_turn_that_the_plan_declines_is_answered_by_what_comes_after_it_in_its_rule(
    tmp_path: Path, code: str
) -> None:
    """Each dialect once, streamed and not. Where nothing comes after it, or has no room, the client gets advice."""
    rules = '[[rule]]\nclass = "planning"\ntry = ["subscription"]\n[[rule]]\ntry = ["subscription", "metered"]\n'
    async with Plan(tmp_path) as plan, MessagesApi() as api:
        both = planned.settings(rule=rules) + settings(api, rules="")
        async with gateway(tmp_path / "home", both) as one:
            plan.use(one)
            await one.start()
            if code == "failed":
                Path(plan.bin, "claude").write_text("#!/bin/sh\necho out of memory >&2\nexit 137\n")

            async def ask(dialect: str, **more: Any) -> tuple[int, str, Any]:
                if code == "login":
                    plan.api.fault(Fault(kind="status", status=401, count=2))
                elif code == "used_up":
                    plan.api.state.windows = Windows(five_hour=1.0, resets_at=int(time.time()) + 3600)
                path, body = planned.text_turn(dialect, "hello there", **more)
                status, headers, answer = await one.call("POST", path, body)
                return status, headers["x-farmhand-backend"], answer

            for dialect, streamed in (("messages", True), ("chat", False), ("responses", True), ("messages", False)):
                status, backend, answer = await ask(dialect, stream=streamed)
                assert (status, backend, "Loopback answer" in str(answer)) == (200, "metered", True), answer
                assert "hello there" in asked(api)[-1].body
                # Until the next turn the plan is open again, but for the window that is used up.
                assert (await one.command("reload"))[0] == 0
            assert len(asked(api)) == 4
            rows = await settled(one.database, 5 if code == "used_up" else 8)
            declined = [row for row in rows if row["residency"] == "subscription"]
            assert len(declined) == (1 if code == "used_up" else 4)
            assert {(row["outcome"], row["terms"]) for row in declined} == {("refused", code)}
            assert {row["pico"] for row in declined} == {None if code == "failed" else 0}
            _, out, _ = await one.command("explain", "--last", "--json")
            shown = json.loads(out)
            assert (shown["decision"]["backend"], shown["same_again"]) == ("metered", True)
            plan_state = next(state for state in shown["backends"] if state["name"] == "subscription")
            assert plan_state["refused"]["code"] == code
            status, backend, answer = await ask("messages", model="farmhand/plan")
            assert (status, backend) == (402, "advice"), answer
            one.write(both.replace('budget_day_usd = "2"', 'budget_day_usd = "0.00001"'))
            assert (await one.command("reload"))[0] == 0
            assert (await ask("messages"))[:2] == (402, "advice")
            assert len(asked(api)) == 4
