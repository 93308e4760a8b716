"""A workstation with a key file, two agents as its hosts and the loopback API: what rotations are tried on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from farmhand.core.settings import Settings
from farmhand.rotation.build import build, given_host
from farmhand.rotation.machine import Machine
from farmhand.rotation.state import Memory
from tests.support.agent import Agent
from tests.support.messages_api import DEFAULT_ADMIN_KEY, DEFAULT_KEY, MessagesApi


def new_key(number: int) -> str:
    """A key that differs from others in its last characters, as real ones do."""
    return f"sk-ant-test-rotated-{number:012d}"


class Station:
    """Its files are in `directory`; a rotation is built from its parameters as both front ends do."""

    def __init__(self, directory: Path, api: MessagesApi, agents: dict[str, Agent], *, admin: bool = True) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.key_file = directory / "repos.env"
        self.write_key_file(f"# mine\nOTHER='x y'\nANTHROPIC_API_KEY={DEFAULT_KEY}\n")
        self.admin_file = directory / "admin.env"
        self.admin_file.write_text(f"ANTHROPIC_API_KEY={DEFAULT_ADMIN_KEY}\n")
        self.admin_file.chmod(0o600)
        self.parameters: dict[str, Any] = {
            "key_source": f"file:{self.key_file}",
            "hosts": [{"name": name, "socket": str(agent.socket)} for name, agent in agents.items()],
            "upstream_url": api.url,
            "admin_key_source": f"file:{self.admin_file}" if admin else "",
            "admin_url": api.url,
            "connect_timeout_s": 5.0,
            "retire_s": 2.0,
            "drain_s": 20.0,
            "state_dir": str(directory / "state"),
        }
        self.said: list[str] = []

    def write_key_file(self, text: str) -> None:
        self.key_file.write_text(text)
        self.key_file.chmod(0o600)

    def machine(self, **more: Any) -> Machine:
        """A machine, as a process that starts anew has it."""
        given = self.parameters | more
        conf = Settings(**{name: given[name] for name in Settings._fields if name in given})
        hosts = [given_host(entry, conf.connect_timeout_s) for entry in given["hosts"]]
        options = {name: given[name] for name in ("drain_s", "retire_s", "force") if name in given}
        return build(conf, hosts, tell=self.said.append, memory=Memory(given["state_dir"]), **options)
