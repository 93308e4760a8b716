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


def _up(farm: Farm) -> None:
    started = time.monotonic()
    farm.boot()
    _say(f"Farm host: container {farm.name}, Debian 12, sshd at {farm.container.address}")
    if not farm.key_source:
        _say(f"Loopback Messages API: {farm.api.url}")
    building = time.monotonic()
    if farm.is_built():
        _say("site.yml has built it from these very sources and is left out (. .demo/env && ansible-playbook site.yml)")
    else:
        _say("\n$ ansible-playbook site.yml")
        farm.build(echo=True)
        _say(f"(site.yml: {time.monotonic() - building:.0f} s)")
    built = time.monotonic()
    _say(f"\n$ claude-cheap {PROMPT!r}")
    done = farm.cheap(PROMPT)
    if done.returncode != 0:
        raise FarmError(f"claude-cheap failed with status {done.returncode}: {done.stderr.strip()}")
    _say(done.stdout.rstrip("\n"))
    _say(f"(task: {time.monotonic() - built:.1f} s; all: {time.monotonic() - started:.0f} s)\n")
    _say("The farm stays up. Use it:   . .demo/env && claude-cheap 'your task'\nRemove it:                   make down")


def _main() -> int:
    parser = argparse.ArgumentParser(prog="demo", description="Boot the demo's farm, or remove it.")
    parser.add_argument("verb", choices=["up", "down"])
    parser.add_argument(
        "--key-source", default="", metavar="SOURCE", help="where the real key is; default: a loopback API"
    )
    args = parser.parse_args()
    farm = Farm(Path(__file__).parents[3], key_source=args.key_source)
    try:
        if args.verb == "up":
            _up(farm)
        else:
            farm.down()
    except FarmError as error:
        print(f"make {'demo' if args.verb == 'up' else 'down'}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
