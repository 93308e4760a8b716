"""One run of a harness: its own home, its working directory, what it wrote."""

from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.gateway import GatewayProcess

#: Seconds. A harness that waits for ever is a failure of its own.
PATIENCE_S = 300.0
#: The lock files of the harnesses.
LOCKS = Path(__file__).resolve().parents[2] / "data/gateway"


@dataclass(frozen=True)
class Ran:
    """How a run ended."""

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All that was shown."""
        return f"{self.out}\n{self.err}"


async def run(argv: list[str], home: Path, work: Path, environ: dict[str, str], said: str = "") -> Ran:
    """Run `argv` in `work` with `home` as its home and nothing of this process's environment; `said` is its stdin."""
    work.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=work,
        env=surroundings(home) | environ,
        start_new_session=True,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(said.encode()), PATIENCE_S)
    except TimeoutError:
        os.killpg(process.pid, 9)
        raise AssertionError(f"{argv[0]} did not end within {PATIENCE_S:.0f} s") from None
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def surroundings(home: Path) -> dict[str, str]:
    """The environment of a harness before the recipe's variables."""
    return {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TERM": "dumb"}


async def recipe_of(gateway: GatewayProcess, client: str) -> str:
    """What `farmhand gateway connect CLIENT` prints."""
    status, recipe, error = await gateway.command("connect", client)
    assert status == 0, error
    return recipe


def written(path: Path, recipe: str, start: str) -> None:
    """Write the file of a recipe: from the line that begins with `start`, without what is no line of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(recipe[recipe.index(f"\n{start}") + 1 :])


def npm_version(client: str, package: str) -> str:
    """The version of a package that a client's package-lock.json pins."""
    packages = json.loads((LOCKS / client / "package-lock.json").read_text())["packages"]
    return str(packages[f"node_modules/{package}"]["version"])


def pypi_version(client: str, package: str) -> str:
    """The version of a package that a client's requirements.txt pins."""
    lock = (LOCKS / client / "requirements.txt").read_text()
    found = re.search(rf"^{re.escape(package)}==(\S+)", lock, re.MULTILINE)
    assert found is not None
    return found[1]


def exports(recipe: str, token: str) -> dict[str, str]:
    """The variables of a recipe's `export` lines; the command that prints the token is replaced by it."""
    lines = [line.removeprefix("export ") for line in recipe.splitlines() if line.startswith("export ")]
    pairs = [line.partition("=") for line in lines]
    return {name: token if value.startswith('"$(farmhand gateway token') else value for name, _, value in pairs}
