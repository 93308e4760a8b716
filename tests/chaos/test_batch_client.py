"""`farmhand batch` killed, and its agent with it, at random moments: the output against the API's log."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.integration.dispatch.batches import Farm
from tests.integration.dispatch.conftest import Workstation, workstation
from tests.support.messages_api import MessagesApi
from tests.support.messages_api.answer import echo

__all__ = ["workstation"]


@pytest.mark.parametrize("seed", range(4))
async def test_the_output_is_whole_and_true(seed: int, tmp_path: Path, workstation: Workstation) -> None:
    dice = Random(seed)  # noqa: S311  (a test's dice)
    async with MessagesApi(latency_ms=50) as api:
        farm = Farm(tmp_path, api, workstation)
        await farm.start(slots_api=dice.choice([2, 8]))
        try:
            crashes = await _run(farm, dice)
        finally:
            await farm.stop()
        results = farm.results()
        assert sorted(result["n"] for result in results) == list(range(1, 61))
        answers = {post.request_id: post for post in api.posts if post.status == 200 and not post.aborted}
    for result in results:
        assert (result["state"], result["text"]) == ("succeeded", echo(f"number {result['n']}"))
    asked = Counter(json.loads(post.body)["messages"][0]["content"] for post in answers.values())
    assert set(asked) == {f"number {n}" for n in range(1, 61)}
    for result in results:
        # Each answer is charged, or was lost in a crash and is counted as uncertain.
        number = asked[f"number {result['n']}"]
        assert result["usage"]["requests"] <= number <= result["usage"]["requests"] + result["uncertain"]
        assert result["uncertain"] <= crashes


async def _run(farm: Farm, dice: Random) -> int:
    """The command, killed again and again; how often the agent was."""
    crashes = 0
    options = dice.choice([[], ["--ordered"]])
    farm.write([{"prompt": f"number {n}"} for n in range(1, 61)])
    for after in sorted(dice.sample(range(60), 2)):
        client = await farm.begin(*options)
        await farm.until(lambda: len(farm.api.posts) >= after or client.returncode is not None)  # noqa: B023
        await asyncio.sleep(dice.uniform(0, 0.1))
        if dice.random() < 0.7:
            await farm.agents[0].stop(signal.SIGKILL)
            await farm.agents[0].start()
            crashes += 1
        if client.returncode is None:
            client.kill()
        await client.communicate()
    done = await farm.batch(*options)
    assert done.status == 0, done.err
    return crashes
