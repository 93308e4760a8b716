"""The real codex, npm's @openai/codex, pinned by tests/data/gateway/codex/package-lock.json."""

from __future__ import annotations

from pathlib import Path

from tests.support.gateway import GatewayProcess
from tests.support.harness.run import LOCKS, Ran, exports, npm_version, recipe_of, run, written
from tests.support.node import installed

VERSION = npm_version("codex", "@openai/codex")
#: Keeps its prompt small, and out of a sandbox that a container may not make.
LEAN = ("--dangerously-bypass-approvals-and-sandbox", "-c", "project_doc_max_bytes=0")


async def ask(gateway: GatewayProcess, prompt: str, work: Path, lean: tuple[str, ...] = LEAN) -> Ran:
    """One prompt by `codex exec`, set up as `farmhand gateway connect codex` says."""
    recipe = await recipe_of(gateway, "codex")
    home = work.parent / "codex-home"
    written(home / ".codex/config.toml", recipe, "model = ")
    (home / "instructions.md").write_text("Work.")
    vendor = installed(LOCKS / "codex") / "node_modules/@openai"
    (program,) = vendor.glob("codex-*/vendor/*/bin/codex")
    argv = [str(program), "exec", "--skip-git-repo-check", *lean]
    argv += ["-c", f'model_instructions_file="{home}/instructions.md"', prompt]
    return await run(argv, home, work, exports(recipe, gateway.token))
