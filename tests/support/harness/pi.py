"""The real pi, npm's @earendil-works/pi-coding-agent, pinned by tests/data/gateway/pi/package-lock.json."""

from __future__ import annotations

from pathlib import Path

from tests.support.gateway import GatewayProcess
from tests.support.harness.run import LOCKS, Ran, exports, recipe_of, run, written
from tests.support.node import installed, node

#: What it says it needs.
_NODE = (22, 19, 0)


async def ask(gateway: GatewayProcess, prompt: str, work: Path) -> Ran:
    """One prompt in its print mode, with its bash tool, set up as `farmhand gateway connect pi` says."""
    recipe = await recipe_of(gateway, "pi")
    home = work.parent / "pi-home"
    written(home / ".pi/agent/models.json", recipe, "{\n")
    script = installed(LOCKS / "pi") / "node_modules/@earendil-works/pi-coding-agent/dist/bundle/cli.js"
    lean = ["--no-session", "--no-extensions", "--no-skills", "--no-mcp", "--no-context-files", "--tools", "bash"]
    argv = [str(node(_NODE)), str(script), "-p", "--offline", *lean, "--system-prompt", "Work."]
    environ = exports(recipe, gateway.token)
    return await run([*argv, "--provider", "farmhand", "--model", "farmhand/agent", prompt], home, work, environ)
