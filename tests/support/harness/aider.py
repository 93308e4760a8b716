"""The real aider, PyPI's aider-chat, pinned by tests/data/gateway/aider/requirements.txt."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.support.gateway import GatewayProcess
from tests.support.harness.run import LOCKS, Ran, exports, pypi_version, recipe_of, run
from tests.support.python_tools import environment

VERSION = pypi_version("aider", "aider-chat")
#: Keeps it from asking, from git, and from the world.
LEAN = ("--yes-always", "--no-git", "--no-check-update", "--no-analytics", "--no-show-model-warnings", "--no-pretty")


async def ask(gateway: GatewayProcess, prompt: str, work: Path) -> Ran:
    """One prompt by `aider --message`, set up as `farmhand gateway connect aider` says."""
    recipe = await recipe_of(gateway, "aider")
    home = work.parent / "aider-home"
    home.mkdir(parents=True, exist_ok=True)
    (line,) = (line for line in recipe.splitlines() if line.startswith("aider "))
    program = environment(LOCKS / "aider") / "bin/aider"
    argv = [str(program), *shlex.split(line)[1:], *LEAN, "--map-tokens", "0", "--message", prompt]
    return await run(argv, home, work, exports(recipe, gateway.token))
