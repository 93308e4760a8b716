"""A farm of one host: container, ssh identities, inventory, key source, loopback API; and how the operator uses it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from farmhand.core.settings import Settings
from farmhand.offline.spool import open_spool
from farmhand.places.hosts import load_hosts
from farmhand.wire.transport import SshTransport
from tests.support.farm import files
from tests.support.farm.api import LoopbackApi
from tests.support.farm.container import IMAGE, Container
from tests.support.farm.control import ApiControl, wire_answer, wire_request
from tests.support.farm.run import Completed, FarmError, check, run

SITE_S = 900.0


class Farm:
    """The farm of the checkout at `root`. All it writes is in `root`/.demo and `root`/inventory/demo.

    `key_source` names where the operator's real key is; without one the host talks to a loopback Messages API on the
    gateway address of its network, with a random key that only this API accepts. `image` is what its
    host starts from: a bare Debian, or a host that was built before.
    """

    def __init__(self, root: Path, *, key_source: str = "", image: str = IMAGE) -> None:
        self.root = root.resolve()
        self.state = self.root / ".demo"
        self.inventory = self.root / "inventory" / "demo"
        self.key_source = key_source
        # Two checkouts can have their farms side by side.
        self.name = f"farmhand-demo-{hashlib.sha256(str(self.root).encode()).hexdigest()[:8]}"
        self.container = Container(self.name, image=image)
        self._loopback = LoopbackApi(self.state, self.root)

    # What it is made of

    @property
    def config(self) -> Path:
        """The operator's settings file; hosts.json and the dispatch key are beside it."""
        return self.state / "config.toml"

    @property
    def key_file(self) -> Path:
        """The throw-away key source."""
        return self._loopback.key_file

    @property
    def key(self) -> str:
        """The throw-away key."""
        return self._loopback.key

    @property
    def variables(self) -> dict[str, str]:
        """What a shell needs to work on this farm, beside a PATH that begins with the venv's programs."""
        return {
            "FARMHAND_CONFIG": str(self.config),
            "ANSIBLE_CONFIG": str(self.root / "ansible.cfg"),
            "ANSIBLE_INVENTORY": str(self.inventory),
        }

    @property
    def env(self) -> dict[str, str]:
        """A process environment for the operator's commands; no other key, login or setting of Ansible is in it."""
        named = self.key_source.removeprefix("env:")
        foreign = ("ANTHROPIC_", "CLAUDE_", "FARMHAND_", "ANSIBLE_", "MOLECULE_")
        kept = {k: v for k, v in os.environ.items() if k == named or not k.startswith(foreign)}
        return {**kept, **self.variables, "PATH": f"{self.root / '.venv/bin'}:{os.environ['PATH']}"}

    @property
    def api(self) -> ApiControl:
        """The loopback API's control client."""
        return self._loopback.control

    # Up and down

    def boot(self) -> None:
        """Container, ssh identities, inventory, settings, API: all up to site.yml. Changes nothing that is right."""
        self.state.mkdir(mode=0o700, exist_ok=True)
        self.inventory.mkdir(parents=True, exist_ok=True)
        self.container.start()
        self.container.authorize(self._admin_key().with_suffix(".pub").read_text(encoding="ascii"))
        address = self.container.address
        files.write(self.state / "known_hosts", "".join(f"{address} {key}\n" for key in self.container.host_keys()))
        if not self.key_source:
            self._loopback.start(self.container.gateway)
        source = self.key_source or f"file:{self.key_file}"
        settings = {"key_source": source, "host": self.container.hostname, "project_dir": str(self.root)}
        if not self.key_source:
            settings["upstream_url"] = self.api.url
        files.write(self.config, files.settings(**settings))
        files.write(self.inventory / "hosts.yml", files.inventory(self, address))
        files.write(self.state / "env", files.shell_env(self.root / ".venv" / "bin", self.variables))

    def build(self, *options: str, echo: bool = False) -> Completed:
        """Run site.yml over it. Raises FarmError where it fails."""
        argv = ["ansible-playbook", "site.yml", *options]
        if echo:
            status = subprocess.run(argv, cwd=self.root, env=self.env, stdin=subprocess.DEVNULL, check=False).returncode
            done = Completed(argv, status, "", "")
        else:
            done = run(argv, env=self.env, cwd=self.root, timeout_s=SITE_S)
        if done.returncode != 0:
            raise FarmError(
                f"site.yml failed with status {done.returncode}\n{done.stdout[-6000:]}{done.stderr[-2000:]}".strip()
            )
        files.write(self.state / "built", self._digest())
        return done

    def is_built(self) -> bool:
        """Whether the last site.yml that went through built this very host from these very sources."""
        stamp = self.state / "built"
        return stamp.exists() and stamp.read_text(encoding="ascii") == self._digest()

    def down(self) -> None:
        """Remove all of it: connections, container, network, API, files."""
        self.close_connections()
        self.container.remove()
        self._loopback.stop()
        # The spool is the operator's: only what waits for this farm goes with it.
        spool = open_spool(Settings(config_file=str(self.config)))
        for entry in spool.waiting():
            spool.drop(entry.id)
        for path in (self.inventory, self.state):
            if path.exists():
                shutil.rmtree(path)

    # Using it

    def exec(self, *argv: str, input: str | bytes | None = None, timeout_s: float = 120.0) -> Completed:  # noqa: A002  # as in run
        """Run `argv` as root on the farm host, past ssh: for looking at it, not for working with it."""
        return self.container.exec(*argv, input=input, timeout_s=timeout_s)

    def ssh(
        self,
        *command: str,
        user: str = "admin",
        options: tuple[str, ...] = (),
        input: str | bytes | None = None,  # noqa: A002  # as in run
        timeout_s: float = 60.0,
    ) -> Completed:
        """ssh to it as `admin` (may become root) or `farmhand` (the dispatch account), over a connection of its own."""
        identity = self._admin_key() if user == "admin" else self.state / "dispatch_ed25519"
        argv = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ControlPath=none"]
        argv += [
            "-o",
            f"UserKnownHostsFile={self.state / 'known_hosts'}",
            "-o",
            "IdentitiesOnly=yes",
            "-i",
            str(identity),
        ]
        argv += ["-o", "LogLevel=ERROR", *options, f"{user}@{self.container.address}", *command]
        return run(argv, input=input, env=self.env, timeout_s=timeout_s)

    def cheap(
        self,
        *arguments: str,
        input: str | bytes | None = None,  # noqa: A002  # as in run
        env: dict[str, str] | None = None,
        timeout_s: float = 120.0,
    ) -> Completed:
        """claude-cheap with these arguments, as the operator calls it; `env` adds to the environment."""
        program = str(self.root / ".venv/bin/claude-cheap")
        return run(
            [program, *arguments], input=input, env={**self.env, **(env or {})}, cwd=self.root, timeout_s=timeout_s
        )

    def ansible(self, *arguments: str, program: str = "ansible", timeout_s: float = 300.0) -> Completed:
        """ansible (or another `program` of the venv) in the checkout, on this farm's inventory."""
        return run(
            [str(self.root / ".venv/bin" / program), *arguments], env=self.env, cwd=self.root, timeout_s=timeout_s
        )

    def agent(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
        """Status and JSON body of one request to the agent, made as root on the host."""
        done = self.exec("jada-agent", "bridge", input=wire_request(method, path, body=body, **headers))
        return wire_answer(done.stdout)

    # Inside

    def _digest(self) -> str:
        inventory = (self.inventory / "hosts.yml").read_text(encoding="utf-8")
        # The operator may have pointed the agent at another API since.
        settings = self.exec("cat", "/etc/jada-agent/config.toml").stdout
        return files.digest(self.root, self.container.id, inventory, settings)

    def _admin_key(self) -> Path:
        path = self.state / "admin_ed25519"
        if not path.exists():
            check(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "farmhand-demo", "-f", str(path)])
        return path

    @property
    def control_path(self) -> Path:
        """Ansible's shared connection to this host."""
        return Path("~/.ansible/cp").expanduser() / self.name

    def close_connections(self) -> None:
        """A master connection left behind would answer for the next host that gets this address."""
        commands = [["ssh", "-O", "exit", *argv] for argv in self._dispatch_logins()]
        if self.control_path.exists():
            commands.append(["ssh", "-O", "exit", "-o", f"ControlPath={self.control_path}", self.name])
        for argv in commands:
            run(argv, timeout_s=10)  # its status says only whether there was one

    def _dispatch_logins(self) -> list[list[str]]:
        """The arguments of claude-cheap's ssh, from hosts.json."""
        hosts = self.state / "hosts.json"
        if not hosts.exists():
            return []
        return [SshTransport(host).argv()[1:] for host in load_hosts(hosts).values()]
