"""The way from claude-cheap to the real daemon: a real ssh and sshd between them, settings in a temporary directory."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration.dispatch.sshd import Sshd, bridge_to, serve
from tests.support import command
from tests.support.agent import Agent, bodies
from tests.support.messages_api import DEFAULT_ADMIN_KEY, DEFAULT_KEY, MessagesApi
from tests.support.schemas import check_said

BIN = Path(sys.executable).parent
CHECKOUT = Path(__file__).resolve().parents[3]
#: Verbs whose start is no part of what is tried here.
FORKED = ("again", "batch", "cost", "doctor", "flush", "list", "logs", "show", "status")
LOADED = tuple(f"farmhand.cli.{verb}" for verb in ("run", *FORKED))


@dataclass
class Done:
    """How a command ended."""

    status: int
    out: bytes
    err: str


@dataclass
class Workstation:
    """An operator's home in a temporary directory, with commands run as the operator would."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def config_dir(self) -> Path:
        return self.home / ".config" / "farmhand"

    def write_hosts(self, **hosts: dict[str, object]) -> None:
        (self.config_dir / "hosts.json").write_text(json.dumps({"hosts": hosts}))

    def rotate_with(self, api: MessagesApi) -> None:
        """The settings of a rotation whose provider is `api`, with its Admin key."""
        admin = self.home / "admin.env"
        admin.write_text(f"ADMIN={DEFAULT_ADMIN_KEY}\n")
        admin.chmod(0o600)
        settings = {"upstream_url": api.url, "admin_url": api.url, "admin_key_source": f"file:{admin}#ADMIN"}
        text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
        (self.config_dir / "config.toml").write_text(text)

    async def start(self, *argv: str, stdin: int = asyncio.subprocess.DEVNULL) -> asyncio.subprocess.Process:
        """Start a command of the package."""
        return await asyncio.create_subprocess_exec(
            str(BIN / argv[0]),
            *argv[1:],
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
            cwd=CHECKOUT,
            start_new_session=True,
        )

    async def run(self, *argv: str, stdin: bytes | None = None) -> Done:
        """Run a command to its end, with `stdin` through a pipe if given."""
        if stdin is None and (argv[0] == "claude-cheap" or (argv[0] == "farmhand" and argv[1] in FORKED)):
            given = (argv[0], argv[1:], self.environment, CHECKOUT)
            done = await asyncio.to_thread(command.run, *given, preload=LOADED)
            return Done(done.returncode, done.stdout.encode(), done.stderr)
        process = await self.start(
            *argv, stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE
        )
        out, err = await asyncio.wait_for(process.communicate(stdin), 120)
        assert process.returncode is not None
        if argv[0] in ("farmhand", "claude-cheap"):
            check_said(argv, out)
        return Done(process.returncode, out, err.decode())


@pytest.fixture
def workstation(tmp_path: Path) -> Iterator[Workstation]:
    home = tmp_path / "home"
    station = Workstation(home)
    station.config_dir.mkdir(parents=True)
    repos = home / "repos.env"
    repos.write_text(f"ANTHROPIC_API_KEY={DEFAULT_KEY}\n")
    repos.chmod(0o600)
    station.environment = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(home),
        "LANG": "C.UTF-8",
    }
    # Short, as /run/user/1000 is: the path of a shared connection's socket has to fit into 108 bytes.
    with tempfile.TemporaryDirectory(prefix="x") as runtime:
        station.environment |= {"XDG_RUNTIME_DIR": runtime, "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{runtime}/cp"}
        yield station


@pytest.fixture
async def farm(tmp_path: Path, agent: Agent, workstation: Workstation) -> AsyncIterator[Sshd]:
    """sshd with the bridge to the daemon as forced command, known to the workstation as farm1."""
    directory = tmp_path / "sshd"
    directory.mkdir()
    server = Sshd(directory, bridge_to(agent.socket))
    server.start()
    workstation.write_hosts(farm1=entry(server))
    yield server
    server.stop()


@pytest.fixture
def jump(tmp_path: Path) -> Iterator[Sshd]:
    """A host that forwards and nothing else."""
    server = serve(tmp_path / "jump", "")
    server.authorize(server.identity.with_suffix(".pub").read_text().strip(), "", "restrict,port-forwarding")
    yield server
    server.stop()


def entry(server: Sshd) -> dict[str, object]:
    """The server's entry in hosts.json."""
    return {
        "address": "127.0.0.1",
        "port": server.port,
        "user": server.user,
        "identity_file": str(server.identity),
        "known_hosts_file": str(server.known_hosts),
    }


@pytest.fixture
def local_farm(tmp_path: Path, agent: Agent) -> Path:
    """An inventory whose one host is this machine, reached without ssh."""
    inventory = tmp_path / "inventory.ini"
    inventory.write_text(f"[farm]\nfarm1 ansible_connection=local ansible_python_interpreter={sys.executable}\n")
    assert agent.socket.exists()
    return inventory


def received(api: MessagesApi) -> list[str]:
    """The prompts that reached the API."""
    return [
        "".join(block["text"] for block in content)
        if isinstance(content := body["messages"][-1]["content"], list)
        else content
        for body in bodies(api)
    ]


async def agent_knows(agent: Agent, task_id: str) -> None:
    """Wait until the task runs."""
    for _ in range(2400):
        status, answer = await agent.call("GET", f"/v1/tasks/{task_id}")
        if status == 200 and answer["task"]["state"] == "running":
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the agent never ran {task_id}")
