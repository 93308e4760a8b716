"""Real shells with an operator's home in a temporary directory, and what `claude` gets in each of them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farmhand.billing.kinds import MODES, SHELLS

KINDS = [(shell, mode) for shell in SHELLS for mode in MODES]
_FLAGS = {"login": "-lc", "interactive": "-ic", "login interactive": "-lic"}
#: Stands for the CLI where only its environment is asked for.
_STUB = """#!/usr/bin/env python3
import json, os, sys
from_env = {name: value for name, value in os.environ.items() if name.startswith(("ANTHROPIC_", "CLAUDE_CODE_"))}
sys.stdout.write("ENV" + json.dumps(from_env) + "\\n")
"""
TIMEOUT_S = 60.0


@dataclass
class Home:
    """An operator's home and one project in it. `environ` is the session's environment beside HOME, PATH and TERM."""

    path: Path
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Where the last one is missing, fish reads all manual pages of the machine at its first start.
        completions = self.path / ".local/share/fish/generated_completions"
        for directory in (self.path / "bin", self.path / ".claude", self.project, completions):
            directory.mkdir(parents=True, exist_ok=True)

    @property
    def project(self) -> Path:
        return self.path / "project"

    def put(self, files: dict[str, str]) -> None:
        """Write files, by their paths in the home."""
        for name, text in files.items():
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text.encode())

    def log_in(self) -> None:
        """The login file as the CLI writes it."""
        oauth = {
            "accessToken": "sk-ant-oat01-loopback-login",
            "refreshToken": "sk-ant-ort01-loopback",
            "expiresAt": 4102444800000,
            "scopes": ["user:inference", "user:profile"],
            "subscriptionType": "max",
        }
        self.put({".claude/.credentials.json": json.dumps({"claudeAiOauth": oauth})})
        (self.path / ".claude/.credentials.json").chmod(0o600)

    def stub(self) -> None:
        """Let `claude` be a program that prints its environment."""
        (self.path / "bin/claude").write_text(_STUB)
        (self.path / "bin/claude").chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """What a session of this operator starts its shells with."""
        path = f"{self.path}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"HOME": str(self.path), "PATH": path, "TERM": "dumb", "LANG": "C.UTF-8", **self.environ}

    async def run(self, shell: str, mode: str, command: str, prelude: dict[str, str] | None = None) -> bytes:
        """The output of `command` typed in a shell of this kind, after its start-up files. Stdin is empty."""
        assert shutil.which(shell), f"{shell} is not installed"
        # /etc/profile sets PATH anew; `prelude` is for the test's own needs, which no start-up file shall see.
        given = {"PATH": f"{self.path}/bin:/usr/bin:/bin", **(prelude or {})}
        form = "set -gx {} '{}'; " if shell == "fish" else "export {}='{}'; "
        line = "".join(form.format(name, value) for name, value in given.items()) + command
        process = await asyncio.create_subprocess_exec(
            shell,
            _FLAGS[mode],
            line,
            cwd=self.project,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
        assert out, f"{shell} {mode}: {err.decode()[-500:]}"
        return out

    async def gets(self, shell: str, mode: str) -> dict[str, str]:
        """What the stub got of the CLI's variables."""
        out = await self.run(shell, mode, "claude")
        line = next(line for line in out.decode().splitlines() if line.startswith("ENV"))
        found: dict[str, str] = json.loads(line.removeprefix("ENV"))
        return found


async def at_once(jobs: Sequence[Any], most: int = os.cpu_count() or 2) -> list[Any]:
    """Await coroutines, a few at a time."""
    gate = asyncio.Semaphore(most)

    async def one(job: Any) -> Any:
        async with gate:
            return await job

    return list(await asyncio.gather(*map(one, jobs)))
