"""The demo's farm as its user finds it: the env file in each shell, and another API."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.support.farm import Farm
from tests.support.farm.run import run
from tests.support.messages_api import MessagesApi
from tests.support.messages_api.answer import echo


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh"])
def test_the_env_file_puts_a_shell_into_the_farm(farm: Farm, shell: str) -> None:
    read = f". '{farm.state}/env'"
    script = f"{read} && {read} && cd / && claude-cheap 'hello from {shell}' && ansible farm -m ping"
    bare = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": os.environ["HOME"], "FARMHAND_KEY_SOURCE": "env:NOT_THIS"}
    done = run([shell, "-eu", "-c", script], env=bare)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(echo(f"hello from {shell}") + "\n")
    assert "pong" in done.stdout


async def test_site_yml_points_the_same_farm_at_another_api(built_farm: Farm) -> None:
    farm = built_farm
    async with MessagesApi(f"{farm.container.gateway}:0", keys=[farm.key]) as other:
        try:
            await asyncio.to_thread(farm.build, "--extra-vars", f"jada_agent_upstream_url={other.url}")
            done = await asyncio.to_thread(farm.cheap, "Who are you?")
            assert done.stdout == echo("Who are you?") + "\n"
            assert len(other.posts) == 1
        finally:
            await asyncio.to_thread(farm.build)
    before = len(farm.api.posts())
    assert farm.cheap("And now?").returncode == 0
    assert len(farm.api.posts()) == before + 1
