"""The real llm, PyPI's llm, of the development requirements."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

from tests.support.gateway import GatewayProcess
from tests.support.harness.run import Ran, recipe_of, run, written

VERSION = version("llm")


async def ask(gateway: GatewayProcess, prompt: str, work: Path) -> Ran:
    """One question, set up as `farmhand gateway connect llm` says."""
    recipe = await recipe_of(gateway, "llm")
    home = work.parent / "llm-home"
    home.mkdir(parents=True, exist_ok=True)
    program = str(Path(sys.executable).parent / "llm")
    found = await run([program, "logs", "path"], home, work, {})
    written(Path(found.out.strip()).parent / "extra-openai-models.yaml", recipe, "- model_id")
    # The recipe gives the token on stdin.
    keys = await run([program, "keys", "set", "farmhand"], home, work, {}, gateway.token)
    assert keys.status == 0, keys
    return await run([program, "-m", "farmhand", prompt], home, work, {})
