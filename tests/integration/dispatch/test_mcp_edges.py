"""`farmhand mcp` where a client changes its mind at once, or the session's directory is gone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import anyio

from tests.integration.dispatch.conftest import Workstation, received
from tests.integration.dispatch.sessions import id_in, jobs, raw, session
from tests.integration.dispatch.sshd import Sshd
from tests.integration.dispatch.test_mcp import agent_of_inventory, batches, configure
from tests.support.messages_api import MessagesApi

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("farm_task", {"prompt": "Off"}),
    ("farm_batch", {"tasks": ["Off"]}),
    ("farm_task", {"prompt": "Off"}),
]
__all__ = ["agent_of_inventory", "batches"]


def text(answer: dict[str, Any]) -> str:
    """What a tool has said."""
    return str(answer["result"]["content"][0]["text"])


async def test_what_is_called_off_before_it_was_sent_costs_and_holds_nothing(
    batches: Workstation, farm: Sshd, agent_of_inventory: None, api: MessagesApi
) -> None:
    async with raw(batches) as server:
        for number, (tool, arguments) in enumerate(CALLS, 1):
            await server.call(number, tool, **arguments)
            while len(list(jobs(batches).glob("*/pid"))) < number:  # noqa: ASYNC110  (another process's file)
                await anyio.sleep(0.01)
            off = {"requestId": number, "reason": "Esc"}
            await server.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": off})
        for number in range(10, 70):
            await server.call(number, "farm_status")
            said = text(await server.answer(number))
            if " held" not in said:
                break
            await anyio.sleep(0.5)
        assert said.count(": cancelled, US$ 0.00,") == 3, said
        assert "session: US$ 0.00 spent of US$ 2.00\n" in said
    assert received(api) == []


async def test_a_session_whose_directory_is_gone_can_still_send_prompts(
    batches: Workstation, farm: Sshd, agent_of_inventory: None, api: MessagesApi, tmp_path: Path
) -> None:
    async with session(batches, tmp_path / "work") as one:
        shutil.rmtree(tmp_path / "work")
        assert "Loopback answer to 2 bytes" in await one.call("farm_task", prompt="No")
        batch = await one.call("farm_batch", tasks=["Yes"])
        assert "Loopback answer to 3 bytes" in await one.ended(id_in(batch))
        assert "host farm1: state running" in await one.call("farm_status")
        refused = await one.call("farm_task", prompt="x", files=["a.txt"])
        assert refused.failed
        assert "no directory of its own" in refused
    assert received(api) == ["No", "Yes"]


async def test_a_batch_that_stopped_holds_its_money_until_it_is_cancelled_and_what_is_left_begins_nothing(
    batches: Workstation, farm: Sshd, agent_of_inventory: None, api: MessagesApi, tmp_path: Path
) -> None:
    configure(batches, mcp_session_max_usd=0.004)
    async with session(batches, tmp_path / "work") as one:
        stopped = await one.call("farm_batch", tasks=["a", "b"], max_usd=0.002, wait_s=60)
        assert stopped.startswith("budget: "), stopped
        assert f"farm_cancel {id_in(stopped)} frees what it holds" in stopped
        # US$ 0.002 is left, and a task may need more than that: the reason is the session's budget, not the batch's.
        refused = await one.call("farm_batch", tasks=["a"])
        assert refused.startswith("mcp_budget: the farm's budget for this session does not allow it"), refused
        assert "end one (farm_cancel)" in refused
        assert "it has cost US$ 0.00" in await one.call("farm_cancel", id=id_in(stopped))
        assert "Loopback answer to 1 bytes" in await one.ended(id_in(await one.call("farm_batch", tasks=["a"])))
    assert received(api) == ["a"]
