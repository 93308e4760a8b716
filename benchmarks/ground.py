"""What the measurements stand on: the farm of this checkout, its loopback API, and how programs are run and timed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tests.support.farm import Farm, FarmError
from tests.support.farm.run import Completed, run

ROOT = Path(__file__).resolve().parents[1]
#: Latencies of the loopback API, in milliseconds.
SLOW_MS = 50.0
FAST_MS = 0.0


@dataclass
class Ground:
    """`rounds` is how often each thing is measured, `scale` 1.0 the number of tasks that a full run takes."""

    rounds: int = 5
    scale: float = 1.0
    directory: Path = field(default_factory=lambda: ROOT / "benchmarks" / "results")

    @cached_property
    def farm(self) -> Farm:
        """A farm host in a container, built by site.yml of this checkout; booted and built where it is not yet."""
        farm = Farm(ROOT)
        farm.boot()
        if not farm.is_built():
            print("(the farm host is being built by site.yml)", flush=True)
            farm.build()
        self.forget(farm)
        return farm

    @staticmethod
    def forget(farm: Farm) -> None:
        """The loopback API as it starts: no faults, no rules, no latency, an empty log."""
        farm.api.clear()

    @property
    def env(self) -> dict[str, str]:
        """The operator's environment, without a developer's switch that would have sources compiled at each start."""
        return {name: value for name, value in self.farm.env.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def tasks(self, count: int) -> int:
        """So many tasks, or fewer in a quick run."""
        return max(4, round(count * self.scale))

    def program(
        self,
        *argv: str,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 600.0,
        input: str | None = None,  # noqa: A002  # as in subprocess
    ) -> Completed:
        """Run a program to its end, in the checkout; a FarmError where it fails."""
        whole = {**self.env, **(env or {})}
        return check(run(argv, env=whole, cwd=ROOT, timeout_s=timeout_s, input=input))

    @contextmanager
    def latency(self, ms: float):  # type: ignore[no-untyped-def]
        """The API answers after so many milliseconds."""
        self.farm.api.latency(ms)
        try:
            yield
        finally:
            self.farm.api.latency(0)


def check(done: Completed) -> Completed:
    """`done`, if it went well. A program that fails is no measurement."""
    if done.returncode != 0:
        raise FarmError(f"{done.args[0]}: exit status {done.returncode}: {(done.stderr or done.stdout)[-400:]}")
    return done


def timed(call: Callable[[], object]) -> float:
    """Wall seconds of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def write_tasks(path: Path, prompts: Sequence[str]) -> Path:
    """A batch's input."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts), encoding="utf-8")
    return path


def cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
