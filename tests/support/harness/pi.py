"""The real pi, npm's @earendil-works/pi-coding-agent, pinned by tests/data/gateway/pi/package-lock.json."""

from __future__ import annotations

from pathlib import Path

from tests.support.gateway import GatewayProcess
from tests.support.harness.run import LOCKS, Ran, exports, npm_version, recipe_of, run, written
from tests.support.node import installed, node

VERSION = npm_version("pi", "@earendil-works/pi-coding-agent")
#: What it says it needs.
_NODE = (22, 19, 0)


async def ask(gateway: GatewayProcess, prompt: str, work: Path, api: str = "openai-completions") -> Ran:
    """One prompt in its print mode, with its bash tool, set up as `farmhand gateway connect pi` says for the API."""
    recipe = await recipe_of(gateway, "pi")
    base = gateway.url if api == "anthropic-messages" else f"{gateway.url}/v1"
    assert f'"{api}"' in recipe
    assert f'"baseUrl": "{base}"' in recipe
    home = work.parent / "pi-home"
    models = home / ".pi/agent/models.json"
    written(models, recipe, "{\n")
    models.write_text(models.read_text().replace("openai-completions", api).replace(f"{gateway.url}/v1", base))
    script = installed(LOCKS / "pi") / "node_modules/@earendil-works/pi-coding-agent/dist/bundle/cli.js"
    lean = ["--no-session", "--no-extensions", "--no-skills", "--no-mcp", "--no-context-files", "--tools", "bash"]
    argv = [str(node(_NODE)), str(script), "-p", "--offline", *lean, "--system-prompt", "Work."]
    environ = exports(recipe, gateway.token)
    return await run([*argv, "--provider", "farmhand", "--model", "farmhand/agent", prompt], home, work, environ)
