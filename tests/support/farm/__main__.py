"""`python -m tests.support.farm up|down`: what `make demo` and `make down` call."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.support.farm.farm import Farm
from tests.support.farm.run import FarmError

PROMPT = "In one sentence: what does a farmhand do?"


def _say(text: str) -> None:
    print(text, flush=True)


def _up(farm: Farm, spent: dict[str, float]) -> None:
    """Boot, build, run a task. `spent` are the seconds of the steps before, by name."""
    spent, started = dict(spent), time.monotonic()

    def took(step: str) -> None:
        nonlocal started
        now = time.monotonic()
        spent[step], started = now - started, now

    farm.boot()
    took("container, sshd, API")
    _say(f"Farm host: container {farm.name}, Debian 12, sshd at {farm.container.address}")
    if not farm.key_source:
        _say(f"Loopback Messages API: {farm.api.url}")
    if farm.is_built():
        _say("site.yml has built it from these very sources and is left out (. .demo/env && ansible-playbook site.yml)")
    else:
        _say("\n$ ansible-playbook site.yml")
        farm.build(echo=True)
    took("site.yml")
    _say(f"\n$ claude-cheap {PROMPT!r}")
    done = farm.cheap(PROMPT)
    if done.returncode != 0:
        raise FarmError(f"claude-cheap failed with status {done.returncode}: {done.stderr.strip()}")
    _say(done.stdout.rstrip("\n"))
    took("first task")
    _say("\nWhere the time went:")
    for step, seconds in {**spent, "all": sum(spent.values())}.items():
        _say(f"  {step:22} {seconds:6.1f} s")
    _say("\nThe farm stays up. Use it:   . .demo/env && claude-cheap 'your task'")
    _say("Remove it:                   make down")


def _main() -> int:
    parser = argparse.ArgumentParser(prog="demo", description="Boot the demo's farm, or remove it.")
    parser.add_argument("verb", choices=["up", "down"])
    parser.add_argument(
        "--key-source", default="", metavar="SOURCE", help="where the real key is; default: a loopback API"
    )
    parser.add_argument(
        "--spent", action="append", default=[], metavar="STEP=SECONDS", help="what a step before this has taken"
    )
    args = parser.parse_args()
    farm = Farm(Path(__file__).parents[3], key_source=args.key_source)
    try:
        if args.verb == "up":
            _up(farm, {name: float(seconds) for name, _, seconds in (one.rpartition("=") for one in args.spent)})
        else:
            farm.down()
    except FarmError as error:
        print(f"make {'demo' if args.verb == 'up' else 'down'}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
