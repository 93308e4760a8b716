"""The real opencode. npm's opencode-ai only picks and fetches a package with the program; this is that for x86-64."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.gateway import GatewayProcess
from tests.support.harness.run import Ran, exports, recipe_of, run, written
from tests.support.node import unpacked

PACKAGE, VERSION = "opencode-linux-x64-baseline", "1.18.33"
DIGEST = "sha512-1KQGBiiDDeL/VHHbHkOvvFo8Jr97WT5+C1tear+p7IcDTnXgVHXqIjU4O4jM4mHQzykTP2i884FCnW5LDa+zCA=="
#: An agent of its own keeps the prompt small.
LEAN = {"mode": "primary", "prompt": "Work.", "tools": {"*": False, "bash": True}}


async def ask(gateway: GatewayProcess, prompt: str, work: Path) -> Ran:
    """One prompt by `opencode run`, set up as `farmhand gateway connect opencode` says."""
    recipe = await recipe_of(gateway, "opencode")
    home = work.parent / "opencode-home"
    work.mkdir(parents=True, exist_ok=True)
    config = home / ".config/opencode/opencode.json"
    written(config, recipe, "{\n")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"agent": {"lean": LEAN}}))
    program = unpacked(PACKAGE, VERSION, DIGEST) / "package/bin/opencode"
    environ = exports(recipe, gateway.token) | {
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
    }
    return await run([str(program), "run", "--agent", "lean", prompt], home, work, environ)
