"""An operator's workstation: a home of its own with a checkout, and the boxes that they have rented."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.support.claude import cache_dir, claude_binary
from tests.support.farm import files
from tests.support.farm.api import LoopbackApi
from tests.support.farm.checkout import copy_checkout
from tests.support.farm.container import Container
from tests.support.farm.control import ApiControl
from tests.support.farm.image import host_image
from tests.support.farm.network import Network
from tests.support.farm.run import Completed, check, run
from tests.support.messages_api import DEFAULT_ADMIN_KEY

#: What OpenSSH's programs take from the home that the user database names, whatever HOME is.
_SSH = 'exec {ssh} -F "$HOME/.ssh/config" "$@"'
_SSH_KEYGEN = '''case " $* " in *" -R "* | *" -F "*) set -- "$@" -f "$HOME/.ssh/known_hosts" ;; esac
exec {ssh_keygen} "$@"'''
_SSH_CONFIG = """UserKnownHostsFile "{home}/.ssh/known_hosts"
GlobalKnownHostsFile none
IdentityFile "{home}/.ssh/id_ed25519"
"""
#: Of a session: another key, login, inventory, agent of ssh or place for settings has no business here.
_FOREIGN = ("ANTHROPIC_", "CLAUDE", "FARMHAND_", "ANSIBLE_", "XDG_", "SSH_", "MAKE", "MFLAGS")


class Workstation:
    """Its home is `home`, the checkout a copy of `source` in it. Removed by `down`, with boxes and network."""

    def __init__(self, source: Path) -> None:
        # Short: ssh keeps its shared connections in there.
        self.home = Path(tempfile.gettempdir()) / f"op-{secrets.token_hex(4)}"
        self.home.mkdir(mode=0o700)
        self.checkout = copy_checkout(source, self.home / "farmhand")
        self.config_dir = self.home / ".config" / "farmhand"
        self.network = Network(f"farmhand-{self.home.name}")
        self.boxes: dict[str, Container] = {}
        self._api = LoopbackApi(self.home, source)
        self._addresses = 0

    # Up and down

    def up(self) -> None:
        """What an operator has before they begin: ssh's files, a key, a login; here also the API, and `claude`."""
        self.network.make()
        self.switch_api(on=True)
        bin_dir, ssh = self.home / "bin", self.home / ".ssh"
        for directory in (bin_dir, ssh, self.home / ".claude", self.config_dir):
            directory.mkdir(mode=0o700, parents=True)
        programs = {
            "ssh": _SSH.format(ssh=shutil.which("ssh")),
            "ssh-keygen": _SSH_KEYGEN.format(ssh_keygen=shutil.which("ssh-keygen")),
            "claude": f'export ANTHROPIC_BASE_URL={self.api.url}\nexec {claude_binary()} "$@"',
        }
        for name, script in programs.items():
            files.write(bin_dir / name, f"#!/bin/sh\n{script}\n", mode=0o755)
        check(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f", str(ssh / "id_ed25519")])
        files.write(ssh / "config", _SSH_CONFIG.format(home=self.home), mode=0o600)
        files.write(self.home / "admin.env", f"ANTHROPIC_ADMIN_KEY={DEFAULT_ADMIN_KEY}\n", mode=0o600)
        self.settings()

    def down(self) -> None:
        """Remove all of it."""
        for socket in (self.home / ".ansible" / "cp").glob("*"):
            run(["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "box"], timeout_s=10)
        for box in self.boxes.values():
            run(["docker", "rm", "--force", "--volumes", box.name])
        self._api.stop()
        self.network.remove()
        shutil.rmtree(self.home)

    # What it has

    @property
    def api(self) -> ApiControl:
        """The control client of the loopback API."""
        return self._api.control

    @property
    def key(self) -> str:
        """The key in the source."""
        return self._api.key

    def switch_api(self, *, on: bool) -> None:
        """End the API's process, or start it again where it was."""
        if on:
            self._api.start(self.network.gateway, loopback=True)
        else:
            self._api.stop()

    def settings(self, **more: object) -> None:
        """Write config.toml; `more` is beside what says where the API is."""
        files.write(self.config_dir / "config.toml", files.settings(upstream_url=self.api.url, **more))

    def admin_url(self) -> str:
        """Where the Admin API is: an Admin key goes over plain http to this machine only."""
        return f"http://127.0.0.1:{self.api.url.rpartition(':')[2]}"

    def log_in(self, **held: object) -> None:
        """Write what `/login` writes; `held` replaces parts of it."""
        login = {
            "accessToken": self.login_token,
            "refreshToken": "sk-ant-ort01-test-login",
            "expiresAt": int((time.time() + 8 * 3600) * 1000),
            "scopes": ["user:inference", "user:profile"],
            "subscriptionType": "max",
        }
        text = json.dumps({"claudeAiOauth": login | held})
        files.write(self.home / ".claude" / ".credentials.json", text, mode=0o600)

    @property
    def login_token(self) -> str:
        """The access token of the login; the API takes it where it is among its keys."""
        return "sk-ant-oat01-test-login"

    # Boxes

    def rent(self, name: str, *, at: str = "") -> Container:
        """A box with a login that may become root, at the address `at` of a former one or at a new one.

        It is of the image that site.yml has built before: what is left to do takes a third of the time.
        """
        self._addresses += not at
        address = at or str(self.network.subnet[1 + self._addresses])
        box = Container(f"{self.network.name}-{name}", name, self.network.name, address, host_image())
        self.boxes[name] = box
        box.start()
        box.authorize((self.home / ".ssh" / "id_ed25519.pub").read_text("ascii"))
        return box

    # Using it

    @property
    def env(self) -> dict[str, str]:
        """The environment of the operator's shell."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        path = [str(self.home / "bin"), str(self.checkout / ".venv" / "bin"), os.environ["PATH"]]
        # What site.yml has fetched once is fetched.
        return kept | {"HOME": str(self.home), "PATH": ":".join(path), "XDG_CACHE_HOME": str(cache_dir().parent)}

    def shell(self, command: str, *, input: str | None = None, timeout_s: float = 600.0) -> Completed:  # noqa: A002  # as in run
        """Type `command` into the operator's shell, in the checkout."""
        return run(["bash", "-c", command], input=input, env=self.env, cwd=self.checkout, timeout_s=timeout_s)

    def start(self, command: str, log: Path) -> subprocess.Popen[bytes]:
        """The same in another window; both outputs go to `log`."""
        with log.open("wb") as out:
            return subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                env=self.env,
                cwd=self.checkout,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
