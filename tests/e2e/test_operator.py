"""The demo's farm as its user finds it: the env file in each shell."""

from __future__ import annotations

import os

import pytest

from tests.support.farm import Farm
from tests.support.farm.run import run
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
