"""Several farm hosts on one network, over real sshd, with one loopback API: the Molecule scenario `fleet` works on it.

Molecule builds them (create.yml calls `up`, site.yml does the rest), and its tests drive and break them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.support.farm import files
from tests.support.farm.api import LoopbackApi
from tests.support.farm.container import Container
from tests.support.farm.control import wire_request
from tests.support.farm.image import host_image
from tests.support.farm.network import Network
from tests.support.farm.run import Completed, FarmError, check, run

ROOT = Path(__file__).parents[3]


class Fleet:
    """The hosts `names`, with everything that belongs to them on the controller in `state`."""

    def __init__(self, state: Path, names: Sequence[str]) -> None:
        self.state = state
        # Two checkouts can have their fleets side by side.
        self.network = Network(f"farmhand-fleet-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}")
        self.api = LoopbackApi(state, ROOT)
        self.names = list(names)

    @cached_property
    def hosts(self) -> dict[str, Container]:
        """The hosts by their names in the inventory. There must be a network."""
        subnet, network = self.network.subnet, self.network.name
        return {
            name: Container(f"{network}-{name}", name, shared_network=network, fixed=str(subnet[number]))
            for number, name in enumerate(self.names, 2)
        }

    @property
    def env(self) -> dict[str, str]:
        """A process environment for the operator's commands on this fleet; no other key or login is in it."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ANTHROPIC_", "CLAUDE_", "FARMHAND_"))}
        return kept | {
            "FARMHAND_CONFIG": str(self.state / "config.toml"),
            "FARMHAND_PROJECT_DIR": str(ROOT),
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_INVENTORY": os.environ["MOLECULE_INVENTORY_FILE"],
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.state / "cp"),
            "ANSIBLE_FORCE_COLOR": "false",  # Molecule switches it on, and what is said here is read by tests
            "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
        }

    # Up and down

    def up(self) -> list[dict[str, object]]:
        """Network, containers, ssh identity, API, settings: all up to site.yml. How Molecule reaches each host."""
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.network.make()
        identity = self.state / "admin_ed25519"
        if not identity.exists():
            check(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "farmhand-fleet", "-f", str(identity)])
        public = identity.with_suffix(".pub").read_text(encoding="ascii")

        image = host_image()

        def boot(host: Container) -> None:
            replace(host, image=image).start()
            host.authorize(public)

        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(boot, self.hosts.values()))
        known = [f"{host.address} {key}\n" for host in self.hosts.values() for key in host.host_keys()]
        files.write(self.state / "known_hosts", "".join(known))
        self.api.start(self.network.gateway, "--log", str(self.api.requests))
        settings = files.settings(key_source=f"file:{self.api.key_file}", project_dir=str(ROOT))
        files.write(self.state / "config.toml", settings)
        return [
            {"instance": name, "address": host.fixed, "user": "admin", "port": 22, "identity_file": str(identity)}
            for name, host in self.hosts.items()
        ]

    def down(self) -> None:
        """Remove all of it."""
        # A master connection left behind would answer for the next host that gets this address.
        for path in (self.state / "cp").glob("*"):
            run(["ssh", "-O", "exit", "-o", f"ControlPath={path}", "fleet"], timeout_s=10)
        self.api.stop()
        if self.network.exists():
            # Nothing on them is worth the time of an orderly end.
            for host in self.hosts.values():
                run(["docker", "rm", "--force", "--volumes", host.name])
            self.network.remove()
        if self.state.exists():
            shutil.rmtree(self.state)

    # Using it

    def start(self, program: str, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a program of the venv as the operator would; both outputs go to `log`."""
        with log.open("wb") as out:
            return subprocess.Popen(
                [str(ROOT / ".venv/bin" / program), *arguments],
                cwd=ROOT,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def run(self, program: str, *arguments: str, timeout_s: float = 600.0) -> Completed:
        """Run a program of the venv to its end."""
        argv = [str(ROOT / ".venv/bin" / program), *arguments]
        return run(argv, env=self.env, cwd=ROOT, timeout_s=timeout_s)

    def agent(self, host: str, path: str) -> list[Any]:
        """What the agent of `host` answers to GET `path`, made as root there: one object per line."""
        done = self.hosts[host].exec("jada-agent", "bridge", input=wire_request("GET", path))
        head, _, body = done.stdout.partition("\r\n\r\n")
        if not head.startswith("HTTP/1.1 200"):
            raise FarmError(f"{host}: GET {path}: {head[:80]} {body[:200]} {done.stderr[-200:]}")
        lines = re.findall(r"^\{.*\}$", body, re.MULTILINE)  # and not the sizes of chunks
        return [json.loads(line) for line in lines]


def _main() -> int:
    parser = argparse.ArgumentParser(prog="fleet", description="Boot farm hosts for Molecule, or remove them.")
    parser.add_argument("verb", choices=["up", "down"])
    parser.add_argument("state", type=Path, help="directory of the controller's files")
    parser.add_argument("hosts", nargs="+", help="their names")
    args = parser.parse_args()
    fleet = Fleet(args.state, args.hosts)
    try:
        if args.verb == "up":
            print(json.dumps(fleet.up()))
        else:
            fleet.down()
    except FarmError as error:
        print(f"fleet {args.verb}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
