"""One task through each path, beside the wrapper that users would write instead. Needs the farm of `make demo`.

Each round runs every path once, in turn, so that a machine that slows down slows all of them. The table gives the
median wall time of the rounds in seconds and its ratio to the wrapper's; the answers come from the loopback API.

    python -m benchmarks.one_task [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from farmhand.task import MODELS
from tests.support.farm import Farm
from tests.support.farm.run import Completed

TASK = "Say hello."
WRAPPER = "ssh host env KEY=… claude -p"
Way = Callable[[], Completed]


def _wrapper(farm: Farm) -> Completed:
    """What is to be replaced: the key in argv at both ends, the whole prompt of an interactive session."""
    environment = [f"ANTHROPIC_API_KEY={farm.key}", f"ANTHROPIC_BASE_URL={farm.api.url}"]
    return farm.ssh("env", *environment, "claude", "-p", "--model", MODELS["haiku"], f"'{TASK}'")


def _cold(farm: Farm) -> Completed:
    farm.close_connections()
    return farm.cheap(TASK)


def paths(farm: Farm) -> dict[str, Way]:
    """The paths by name, in the order they run and are shown."""
    module = ("-m", "farmhand_task", "-a", f"prompt='{TASK}'")
    return {
        WRAPPER: lambda: _wrapper(farm),
        "claude-cheap, cold ssh": lambda: _cold(farm),
        "claude-cheap, warm ssh": lambda: farm.cheap(TASK),
        "claude-cheap --engine cli": lambda: farm.cheap("--engine", "cli", TASK),
        "ansible farm -m farmhand_task": lambda: farm.ansible("farm", *module),
        "ansible-runner run": lambda: farm.ansible("run", ".", "--hosts", "farm", *module, program="ansible-runner"),
    }


def measure(farm: Farm, rounds: int) -> dict[str, list[float]]:
    """Wall seconds of every path in every round, after one that does not count. RuntimeError where a path fails."""
    seconds: dict[str, list[float]] = {name: [] for name in paths(farm)}
    for number in range(rounds + 1):
        for name, path in paths(farm).items():
            started = time.perf_counter()
            done = path()
            took = time.perf_counter() - started
            if done.returncode != 0:
                raise RuntimeError(f"{name}: exit status {done.returncode}: {done.stderr[-300:]}")
            if number:
                seconds[name].append(took)
    return seconds


def main() -> int:
    """Print the table; write the figures as JSON where asked."""
    parser = argparse.ArgumentParser(prog="benchmarks.one_task", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure as JSON")
    options = parser.parse_args()
    farm = Farm(Path(__file__).parents[1])
    if not farm.is_built():
        print("benchmarks.one_task: there is no farm: run make demo", file=sys.stderr)
        return 3
    seconds = measure(farm, options.rounds)
    base = statistics.median(seconds[WRAPPER])
    print(f"{'one task':<32} {'median s':>9} {'min':>7} {'max':>7} {'ratio':>7}")
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        print(f"{name:<32} {middle:>9.3f} {min(taken):>7.3f} {max(taken):>7.3f} {middle / base:>7.2f}")
    if options.json:
        options.json.write_text(json.dumps({"rounds": options.rounds, "seconds": seconds}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
