"""claude-cheap takes the way to a host that Ansible takes: real sshds, real Ansible, what site.yml writes of it.

The play runs the very task files of the role base that site.yml runs for this.
"""

from __future__ import annotations

import getpass
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.dispatch.conftest import Done, Workstation
from tests.integration.dispatch.sshd import Sshd, bridge_to, serve
from tests.support.agent import Agent

PLAY = [
    {
        "hosts": "farm",
        "gather_facts": False,
        "tasks": [
            {"include_role": {"name": "base", "tasks_from": name}}
            for name in ("preflight.yml", "dispatch_key.yml", "register.yml")
        ],
    }
]


class Site:
    """An inventory of one host, farm1, and what site.yml does about the way there."""

    def __init__(self, directory: Path, workstation: Workstation) -> None:
        self.directory = directory
        self.workstation = workstation
        (directory / "play.json").write_text(json.dumps(PLAY))

    async def register(self, server: Sshd, **variables: Any) -> Done:
        """Check the way and write hosts.json; the account of the test's sshd has another name than farmhand."""
        key = self.workstation.config_dir / "dispatch_ed25519"
        for suffix in ("", ".pub"):
            shutil.copy(f"{server.identity}{suffix}", f"{key}{suffix}")
        host = {"farmhand_config_dir": str(self.workstation.config_dir), "ansible_user": "admin", **variables}
        (self.directory / "hosts.json").write_text(json.dumps({"farm": {"hosts": {"farm1": host}}}))
        done = await self.workstation.run(
            "ansible-playbook", "-i", f"{self.directory}/hosts.json", f"{self.directory}/play.json"
        )
        if done.status == 0:
            self.entry = json.loads((self.workstation.config_dir / "hosts.json").read_text())["hosts"]["farm1"]
            self.workstation.write_hosts(farm1=self.entry | {"user": getpass.getuser()})
        return done

    async def cheap(self) -> Done:
        """One task, by the way that was written."""
        return await self.workstation.run("claude-cheap", "--host", "farm1", "hello")


@pytest.fixture
def site(tmp_path: Path, workstation: Workstation) -> Site:
    return Site(tmp_path, workstation)


@pytest.fixture
def box(tmp_path: Path, agent: Agent) -> Iterator[Sshd]:
    server = serve(tmp_path / "box", bridge_to(agent.socket))
    yield server
    server.stop()


def ssh_config(path: Path, **hosts: dict[str, object]) -> str:
    """A configuration of ssh, as ~/.ssh/config is one (which ssh looks for in the account's home, not in HOME)."""
    blocks = (
        f"Host {name}\n" + "".join(f"    {key} {value}\n" for key, value in said.items())
        for name, said in hosts.items()
    )
    path.write_text("".join(blocks))
    return str(path)


def jump_block(jump: Sshd) -> dict[str, object]:
    return {
        "HostName": jump.address,
        "Port": jump.port,
        "User": jump.user,
        "IdentityFile": jump.identity,
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": jump.known_hosts,
    }


async def test_an_alias_with_a_port_and_a_name_for_its_key(site: Site, box: Sshd, tmp_path: Path) -> None:
    box.known_hosts.write_text(f"172.18.0.2 {box.host_public}\n")
    block = {"HostName": "127.0.0.1", "Port": box.port, "HostKeyAlias": "172.18.0.2"}
    config = ssh_config(tmp_path / "config", farmalias=block)
    done = await site.register(
        box,
        ansible_host="farmalias",
        ansible_ssh_private_key_file="/nowhere",
        ansible_ssh_common_args=f"-F {config} -o UserKnownHostsFile={box.known_hosts} -o IdentitiesOnly=yes",
    )
    assert done.status == 0, done.out.decode()
    assert site.entry["address"] == "farmalias"
    assert "port" not in site.entry, "the alias has one"
    answered = await site.cheap()
    assert answered.status == 0, answered.err


async def test_a_proxy_command_to_a_name_that_only_the_jump_host_knows(
    site: Site, box: Sshd, jump: Sshd, tmp_path: Path
) -> None:
    box.known_hosts.write_text(f"farm-key {box.host_public}\n")
    config = ssh_config(tmp_path / "config", jump=jump_block(jump))
    done = await site.register(
        box,
        ansible_host="box.internal.invalid",
        ansible_ssh_common_args=f"-o ProxyCommand='ssh -F {config} -W 127.0.0.1:{box.port} jump' "
        f"-o HostKeyAlias=farm-key -o UserKnownHostsFile={box.known_hosts} -o IdentitiesOnly=yes",
    )
    assert done.status == 0, done.out.decode()
    answered = await site.cheap()
    assert answered.status == 0, answered.err


async def test_a_jump_host_in_extra_args_and_what_is_said_when_it_is_down(
    site: Site, box: Sshd, jump: Sshd, tmp_path: Path, workstation: Workstation
) -> None:
    config = ssh_config(tmp_path / "config", jump=jump_block(jump))
    variables = {
        "ansible_host": "127.0.0.1",
        "ansible_port": box.port,
        "farmhand_known_hosts_file": str(box.known_hosts),
        "ansible_ssh_extra_args": f"-J jump -F {config}",
    }
    jump.stop()
    refused = await site.register(box, **variables)
    assert refused.status == 2
    said = " ".join(refused.out.decode().split())
    assert "claude-cheap would not reach this host" in said
    assert "through another host failed" in said
    assert "ansible_ssh_common_args" in said, "what to put where"
    assert not (workstation.config_dir / "hosts.json").exists()
    jump.start()
    assert (await site.register(box, **variables)).status == 0
    assert (site.entry["address"], site.entry["port"]) == ("127.0.0.1", box.port)
    answered = await site.cheap()
    assert answered.status == 0, answered.err


@pytest.mark.parametrize("written", ["::1", "ssh://admin@[::1]:{port}"])
async def test_an_ipv6_literal(site: Site, agent: Agent, tmp_path: Path, written: str) -> None:
    box = serve(tmp_path / "box", bridge_to(agent.socket), "::1")
    try:
        port = {} if "{port}" in written else {"ansible_port": box.port}
        done = await site.register(
            box,
            ansible_host=written.format(port=box.port),
            ansible_ssh_common_args=f"-o UserKnownHostsFile={box.known_hosts}",
            **port,
        )
        assert done.status == 0, done.out.decode()
        assert (site.entry["address"], site.entry["port"]) == ("::1", box.port)
        answered = await site.cheap()
        assert answered.status == 0, answered.err
    finally:
        box.stop()


async def test_arguments_that_are_set_elsewhere_than_in_the_inventory_count_too(
    site: Site, box: Sshd, workstation: Workstation
) -> None:
    workstation.environment["ANSIBLE_SSH_COMMON_ARGS"] = (
        f"-o HostName=127.0.0.1 -o UserKnownHostsFile={box.known_hosts}"
    )
    workstation.environment["ANSIBLE_REMOTE_PORT"] = str(box.port)
    done = await site.register(box, ansible_host="box.internal.invalid")
    assert done.status == 0, done.out.decode()
    answered = await site.cheap()
    assert answered.status == 0, answered.err


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ansible_host": "box.internal.invalid"}, "Could not resolve hostname box.internal.invalid"),
        (
            {
                "ansible_host": "127.0.0.1",
                "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
            },
            "base_known_hosts_file",
        ),
        ({"ansible_host": "127.0.0.1", "ansible_ssh_common_args": "-o 'half"}, "cannot be read: No closing quotation"),
        ({"base_address": "127.0.0.1", "base_port": 1}, "Connection refused"),
    ],
)
async def test_a_way_that_does_not_lead_there_is_told_at_once(
    site: Site, box: Sshd, workstation: Workstation, variables: dict[str, Any], words: str
) -> None:
    done = await site.register(box, **{"ansible_port": box.port, **variables})
    assert done.status == 2
    said = " ".join(done.out.decode().split())
    assert words in said
    assert "Traceback" not in said
    assert not (workstation.config_dir / "hosts.json").exists()
