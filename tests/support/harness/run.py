"""One run of a harness: its own home, its working directory, what it wrote."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

#: Seconds. A harness that waits for ever is a failure of its own.
PATIENCE_S = 300.0


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


async def run(argv: list[str], home: Path, work: Path, environ: dict[str, str]) -> Ran:
    """Run `argv` in `work` with `home` as its home and nothing of this process's environment."""
    work.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=work,
        env={"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TERM": "dumb"} | environ,
        start_new_session=True,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    except TimeoutError:
        os.killpg(process.pid, 9)
        raise AssertionError(f"{argv[0]} did not end within {PATIENCE_S:.0f} s") from None
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def exports(recipe: str, token: str) -> dict[str, str]:
    """The variables of a recipe's `export` lines; the command that prints the token is replaced by it."""
    lines = [line.removeprefix("export ") for line in recipe.splitlines() if line.startswith("export ")]
    pairs = [line.partition("=") for line in lines]
    return {name: token if value.startswith('"$(farmhand gateway token') else value for name, _, value in pairs}
