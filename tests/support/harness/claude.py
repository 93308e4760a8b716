"""The real claude CLI, in the version that the role claude_cli pins."""

from __future__ import annotations

from pathlib import Path

from tests.support.claude import claude_binary
from tests.support.gateway import GatewayProcess
from tests.support.harness.run import Ran, exports, recipe_of, run

#: Keeps its prompt small: a model server on one thread reads slowly.
LEAN = ("--strict-mcp-config", "--disable-slash-commands", "--system-prompt", "Work.", "--tools", "Bash")


async def ask(gateway: GatewayProcess, prompt: str, work: Path, lean: tuple[str, ...] = LEAN) -> Ran:
    """One prompt in its print mode, set up as `farmhand gateway connect claude` says."""
    recipe = await recipe_of(gateway, "claude")
    home = work.parent / "claude-home"
    home.mkdir(parents=True, exist_ok=True)
    argv = [str(claude_binary()), "-p", "--setting-sources", "", "--no-session-persistence", *lean]
    environ = exports(recipe, gateway.token) | {"DISABLE_AUTOUPDATER": "1", "IS_SANDBOX": "1"}
    return await run([*argv, "--allowedTools", "Bash", "--", prompt], home, work, environ)
