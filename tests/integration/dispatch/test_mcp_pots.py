"""A pot that is spent: what a session and the command line say of tasks that wait for it."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path

import pytest

from tests.integration.dispatch.conftest import Workstation
from tests.integration.dispatch.sessions import id_in, session
from tests.integration.dispatch.sshd import Sshd
from tests.integration.dispatch.test_mcp import agent_of_inventory, batches
from tests.support.messages_api import Fault, MessagesApi

__all__ = ["agent_of_inventory", "batches"]
SPENT = r"the pot plan is spent: the API refuses it, .* it is filled again on \d{4}-\d\d-\d\d \(UTC\)"


@pytest.fixture
def spent(batches: Workstation, agent_of_inventory: None, farm: Sshd, api: MessagesApi) -> Workstation:
    """The workstation with one pot, whose credits the API refuses."""
    pot = f'[pots.plan]\nkey_source = "file:{batches.home}/repos.env"\nfunding_usd = 100\ncycle_day = 7\n'
    (batches.config_dir / "config.toml").write_text(pot)
    for _ in range(4):
        api.fault(Fault(kind="credit"))
    return batches


async def test_a_session_is_told_what_its_batch_and_its_task_wait_for(spent: Workstation, tmp_path: Path) -> None:
    async with session(spent, tmp_path / "work") as one:
        batch = id_in(await one.call("farm_batch", tasks=["a", "b"]))
        for _ in range(24):
            said = await one.call("farm_result", id=batch, wait_s=5)
            if "is spent" in said:
                break
        assert re.search(rf"runs \({SPENT}; farm_result {batch} has more later\): 0 of 2 tasks ended", said), said
        assert any(re.search(SPENT, message) for message in one.progress)
        status = await one.call("farm_status")
        assert re.search(rf"batch of 2 {batch}: runs \({SPENT}\)", status), status
        assert re.search(rf"host farm1: state running, .*; tasks wait: {SPENT}", status), status
        task = await one.call("farm_task", prompt="c")
        assert task.failed
        assert re.match(rf"pot_spent: farm1: {SPENT}; task \S+ waits there", task), task
        assert f"farm_result {id_in(task)} has the answer once the pot is filled; the operator can" in task
        assert "--" not in task
        assert "is cancelled" in await one.call("farm_cancel", id=batch)


async def test_a_batch_says_once_what_it_waits_for(spent: Workstation, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    process = await spent.start("farmhand", "batch", f"{tmp_path}/in.jsonl", "--out", f"{tmp_path}/out.jsonl")
    assert process.stderr is not None
    said = ""
    while "is spent" not in said:
        said = (await asyncio.wait_for(process.stderr.readline(), 120)).decode()
        assert said
    waits = r"farm1: \d tasks? waits?:"
    assert re.fullmatch(rf"farmhand: {waits} {SPENT}; stopping is safe: the same command goes on\n", said)
    status = await spent.run("farmhand", "status")
    assert re.search(rf"{waits} {SPENT}", " ".join(status.out.decode().split()))
    await asyncio.sleep(5)  # another exchange with the host
    process.send_signal(signal.SIGINT)
    rest = (await asyncio.wait_for(process.communicate(), 120))[1].decode()
    assert process.returncode == 130
    assert "is spent" not in rest
