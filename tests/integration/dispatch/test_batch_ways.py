"""`farmhand batch`, `doctor` and `rotate` by the ways that test_route tries for claude-cheap."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from farmhand.core.keys import fingerprint
from tests.integration.dispatch.batches import Farm
from tests.integration.dispatch.conftest import Workstation
from tests.integration.dispatch.sshd import Sshd, bridge_to, serve
from tests.integration.dispatch.test_farmhand_task import ssh_inventory
from tests.integration.dispatch.test_route import jump_block, ssh_config
from tests.support.agent import Agent
from tests.support.messages_api import MessagesApi


def inventory(farm: Farm, box: Sshd, agent: Agent, host: str, more: str) -> None:
    """One host, farm1, that Ansible reaches as `host` with `more` of its variables."""
    _, shell = ssh_inventory(farm.workstation, box, farm.directory)
    farm.inventory.write_text(
        f"[farm]\nfarm1 ansible_host={host} ansible_user={box.user} ansible_ssh_private_key_file={box.identity}"
        f" ansible_python_interpreter=/usr/bin/python3 ansible_shell_executable={shell}"
        f" farmhand_socket={agent.socket} {more}\n"
    )


@pytest.mark.parametrize("way", ["alias behind a jump host", "proxy command", "::1", "ssh://127.0.0.1:{port}"])
async def test_a_batch_gets_there(
    workstation: Workstation, tmp_path: Path, agent: Agent, api: MessagesApi, jump: Sshd, way: str
) -> None:
    farm = Farm(tmp_path, api, workstation)
    box = serve(tmp_path / "box", "", "::1" if "::1" in way else "127.0.0.1")
    try:
        block = {"HostName": "127.0.0.1", "Port": box.port, "UserKnownHostsFile": box.known_hosts}
        if way.startswith("alias"):
            block["ProxyJump"] = "jump"
        config = ssh_config(tmp_path / "config", jump=jump_block(jump), farmalias=block)
        if way.startswith("alias"):
            inventory(farm, box, agent, "farmalias", f"ansible_ssh_common_args='-F {config}'")
        elif way.startswith("proxy"):
            box.known_hosts.write_text(f"farm-key {box.host_public}\n")
            proxy = f"ssh -F {config} -W 127.0.0.1:{box.port} jump"
            common = f'-o ProxyCommand="{proxy}" -o HostKeyAlias=farm-key -o UserKnownHostsFile={box.known_hosts}'
            inventory(farm, box, agent, "box.internal.invalid", f"ansible_ssh_common_args='{common}'")
        else:
            port = "" if "{port}" in way else f"ansible_port={box.port} "
            common = f"ansible_ssh_common_args='-o UserKnownHostsFile={box.known_hosts}'"
            inventory(farm, box, agent, way.format(port=box.port), port + common)
        farm.write(["one", "two", "three"])
        done = await farm.batch()
        assert done.status == 0, done.err
        assert len(farm.results()) == len(api.posts) == 3
    finally:
        box.stop()


async def test_doctor_and_rotate_get_there(
    workstation: Workstation, tmp_path: Path, agent: Agent, api: MessagesApi, jump: Sshd
) -> None:
    box = serve(tmp_path / "box", bridge_to(agent.socket))
    try:
        block = {"HostName": "127.0.0.1", "Port": box.port, "UserKnownHostsFile": box.known_hosts, "ProxyJump": "jump"}
        config = ssh_config(tmp_path / "config", jump=jump_block(jump), farmalias=block)
        way: dict[str, object] = {
            "address": "farmalias",
            "user": box.user,
            "identity_file": str(box.identity),
            "ssh_config": config,
        }
        workstation.write_hosts(farm1=way)
        workstation.rotate_with(api)
        key = f"sk-ant-test-{uuid.uuid4().hex}"
        api.state.keys = api.state.current_keys() | {key}
        rotated = await workstation.run("farmhand", "rotate", "--new-key", "-", stdin=f"{key}\n".encode())
        assert rotated.status == 0, rotated.err
        assert (await agent.get("/v1/status"))["key"] == fingerprint(key)
        examined = await workstation.run("farmhand", "doctor", "--json", "--no-ask-shell", "--skip", "at-rest")
        found = {check["name"]: check["state"] for check in json.loads(examined.out)["checks"] if check["host"]}
        assert (found["reach"], found["canary"]) == ("green", "green"), examined.out
    finally:
        box.stop()
