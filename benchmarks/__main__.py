"""`make bench`: this project beside what users would use instead, in one table; docs/benchmarks.md says more.

python -m benchmarks [--only GROUP …] [--rounds N] [--scale X] [--json FILE] [--markdown]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.ground import ROOT, Ground, cpus
from benchmarks.rows import Row, from_plain, table
from tests.support.farm import FarmError

#: Group → what it measures, in the order of the table. Each is the module of its name.
GROUPS = {
    "one_task": "one task through each path, warm and cold",
    "prompt": "what is sent beside the prompt: bytes, tokens, US$",
    "batch": "500 text tasks, beside xargs, parallel, ansible and the SDK",
    "cli_engine": "the sandboxed claude CLI beside the plain one",
    "code_task": "a task on a repository in containers here, beside claude -p",
    "fleet": "three hosts against one",
    "memory": "the agent at rest, with a queue, with running tasks; the client",
    "growth": "1,000 to 100,000 tasks in the ledger",
    "meter": "latency and throughput of the meter alone",
    "gateway": "the gateway beside LiteLLM and claude-code-router",
    "cost": "farmhand cost over a large store",
}
RESULTS = ROOT / "benchmarks" / "results"


def measure(group: str, ground: Ground) -> list[Row]:
    """The rows of one group."""
    module = importlib.import_module(f"benchmarks.{group}")
    if group in ("meter", "cost"):
        # These stand by themselves, without a farm, and give plain dicts.
        return [from_plain(row) for row in module.measure(rounds=ground.rounds)]
    take: Callable[[Ground], list[Row]] = module.measure
    return take(ground)


def about(ground: Ground, seconds: float) -> dict[str, object]:
    """The machine and the run, for whoever reads the figures later."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds),
        "rounds": ground.rounds,
        "scale": ground.scale,
        "cores": cpus(),
        "load": os.getloadavg(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks",
        description="This project beside what users would use instead.",
        epilog="groups: " + "; ".join(f"{name}: {what}" for name, what in GROUPS.items()),
    )
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), metavar="GROUP", help="only these groups")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each; default: %(default)s")
    parser.add_argument("--scale", type=float, default=1.0, help="0.1 takes a tenth of the tasks; default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: benchmarks/results/DATE.json")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    return parser.parse_args()


def main() -> int:
    """Measure, print the table, write the JSON. 1 where a group could not be measured."""
    options = _arguments()
    ground = Ground(rounds=options.rounds, scale=options.scale)
    started = time.monotonic()
    rows: list[Row] = []
    failed: dict[str, str] = {}
    for group in options.only or GROUPS:
        begun = time.monotonic()
        try:
            rows += measure(group, ground)
        except (FarmError, AssertionError, OSError) as error:
            failed[group] = str(error)
            print(f"benchmarks: {group}: {error}", file=sys.stderr)
        print(f"({group}: {time.monotonic() - begun:.0f} s)", file=sys.stderr, flush=True)
    print(table(rows, markdown=options.markdown))
    path = options.json or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "about": about(ground, time.monotonic() - started),
        "failed": failed,
        "rows": [row.json() for row in rows],
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    missed = sum(row.verdict.startswith("missed") for row in rows)
    met = sum(row.verdict == "met" for row in rows)
    print(f"\n{met} targets met, {missed} missed; {time.monotonic() - started:.0f} s; {path}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
