"""The real Continue, npm's @continuedev/cli (`cn`), pinned by tests/data/gateway/continue/package-lock.json."""

from __future__ import annotations

from pathlib import Path

from tests.support.gateway import GatewayProcess
from tests.support.harness.run import LOCKS, Ran, npm_version, recipe_of, run, written
from tests.support.node import installed, node

VERSION = npm_version("continue", "@continuedev/cli")
#: What it says it needs.
_NODE = (18,)


async def ask(gateway: GatewayProcess, prompt: str, work: Path) -> Ran:
    """One prompt in its print mode, set up as `farmhand gateway connect continue` says."""
    recipe = await recipe_of(gateway, "continue")
    home = work.parent / "continue-home"
    written(home / ".continue/config.yaml", recipe, "name: ")
    (home / ".continue/.env").write_text(f"FARMHAND_GATEWAY_TOKEN={gateway.token}\n")
    script = installed(LOCKS / "continue") / "node_modules/@continuedev/cli/dist/cn.js"
    argv = [str(node(_NODE)), str(script), "-p", "--auto", prompt]
    return await run(argv, home, work, {"CONTINUE_TELEMETRY_ENABLED": "0"})
