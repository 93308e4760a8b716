"""The random-kill test. A seed that fails is printed with the command that runs it alone."""

from __future__ import annotations

import asyncio
import traceback
from pathlib import Path

from tests.chaos.conftest import AT_ONCE
from tests.chaos.oracle import judge
from tests.chaos.plan import make
from tests.chaos.play import play


async def test_nothing_is_lost_invented_run_twice_or_unaccounted(seeds: range, tmp_path: Path) -> None:
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(seed: int) -> list[str]:
        directory = tmp_path / str(seed)
        directory.mkdir()
        async with turns:
            try:
                story = await play(make(seed), directory)
            except Exception as error:
                return [f"seed {seed}: {''.join(traceback.format_exception(error))}"]
        wrong = judge(story)
        if "Traceback" in story.agent_log:
            wrong.append(f"the agent's journal has a traceback: {story.agent_log[-3000:]}")
        return [f"seed {seed}: {line}" for line in wrong]

    found = await asyncio.gather(*(one(seed) for seed in seeds))
    wrong = {seed: lines for seed, lines in zip(seeds, found, strict=True) if lines}
    again = "".join(f"\nagain: python -m pytest tests/chaos/test_random_kills.py --seed {seed}" for seed in wrong)
    assert not wrong, "\n".join(line for lines in wrong.values() for line in lines) + again
