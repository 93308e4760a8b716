"""The real claude CLI, in the version that the role claude_cli pins."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path

from tests.support.claude import claude_binary, pinned_version
from tests.support.gateway import GatewayProcess
from tests.support.harness.run import PATIENCE_S, Ran, exports, recipe_of, run, surroundings

VERSION = pinned_version()
#: Keeps its prompt small: a model server on one thread reads slowly.
LEAN = ("--strict-mcp-config", "--disable-slash-commands", "--system-prompt", "Work.", "--tools", "Bash")


async def ask(gateway: GatewayProcess, prompt: str, work: Path, lean: tuple[str, ...] = LEAN) -> Ran:
    """One prompt in its print mode, set up as `farmhand gateway connect claude` says."""
    home = work.parent / "claude-home"
    home.mkdir(parents=True, exist_ok=True)
    argv = [str(claude_binary()), "-p", "--setting-sources", "", "--no-session-persistence", *lean]
    return await run([*argv, "--allowedTools", "Bash", "--", prompt], home, work, await _environ(gateway))


async def on_screen(gateway: GatewayProcess, prompt: str, work: Path, awaited: str) -> Ran:
    """One prompt in its full screen, set up the same. `out` is the screen once it shows `awaited`, in one line."""
    home = work.parent / "claude-screen"
    for directory in (home, work):
        directory.mkdir(parents=True, exist_ok=True)
    known = {"hasCompletedOnboarding": True, "theme": "dark", "projects": {str(work): {"hasTrustDialogAccepted": True}}}
    (home / ".claude.json").write_text(json.dumps(known))
    environ = surroundings(home) | await _environ(gateway)
    environ |= {"TERM": "xterm-256color", "SHELL": "/bin/sh", "TMUX_TMPDIR": str(home)}

    def tmux(*argv: str) -> str:
        command = ["tmux", "-f", os.devnull, *argv]
        return subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout

    program = (str(claude_binary()), "--setting-sources", "", prompt)
    tmux("new-session", "-d", "-x", "160", "-y", "50", "-c", str(work), *program)
    try:
        screen = ""
        for _ in range(int(PATIENCE_S / 0.2)):
            screen = " ".join(tmux("capture-pane", "-p").split())
            if awaited in screen:
                return Ran(0, screen, "")
            await asyncio.sleep(0.2)
        raise AssertionError(f"{awaited!r} is not on the screen: {screen}")
    finally:
        tmux("kill-server")


async def _environ(gateway: GatewayProcess) -> dict[str, str]:
    recipe = await recipe_of(gateway, "claude")
    return exports(recipe, gateway.token) | {"DISABLE_AUTOUPDATER": "1", "IS_SANDBOX": "1"}
