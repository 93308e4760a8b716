"""The key of a call: where it is not, on the workstation and in what is started there."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path

from tests.integration.dispatch.conftest import Workstation, agent_knows
from tests.integration.dispatch.sshd import Sshd, shared_connections
from tests.support.agent import Agent
from tests.support.messages_api import MessagesApi


async def test_no_process_and_no_file_of_the_workstation_holds_the_key(
    workstation: Workstation, farm: Sshd, agent: Agent, api: MessagesApi
) -> None:
    # A key of its own: what else runs on this machine may have the usual one.
    key = f"sk-ant-test-{secrets.token_hex(16)}"
    api.state.keys = frozenset({key})
    (workstation.home / "repos.env").write_text(f"ANTHROPIC_API_KEY={key}\n")
    api.state.event_s = 0.2
    process = await workstation.start("claude-cheap", "--id", "seen", "hello")
    await agent_knows(agent, "seen")
    for directory in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                held = (directory / name).read_bytes()
            except OSError:
                continue
            assert key.encode() not in held, (directory / "comm").read_text()
    out, _ = await process.communicate()
    assert b"hello" in out
    source = workstation.home / "repos.env"
    files = [path for path in workstation.home.parent.rglob("*") if path.is_file() and path != source]
    assert files
    assert [path for path in files if key.encode() in path.read_bytes()] == []


async def test_the_shared_connection_that_stays_does_not_hold_the_key(
    workstation: Workstation, farm: Sshd, api: MessagesApi
) -> None:
    key = f"sk-ant-test-{secrets.token_hex(16)}"
    api.state.keys = frozenset({key})
    workstation.environment |= {"MY_OWN_KEY": key, "SEEN_BY_SSH": "yes"}
    done = await workstation.run("claude-cheap", "--key-source", "env:MY_OWN_KEY", "hello")
    assert done.status == 0, done.err
    until = time.monotonic() + 40  # the request passes through it: its buffer is wiped when it hears of the end
    held = True
    while held and time.monotonic() < until:
        masters = shared_connections(workstation.environment["XDG_RUNTIME_DIR"])
        assert masters, "the shared connection has ended"
        assert all(b"SEEN_BY_SSH=yes" in memory for memory in masters), "nothing can be told from these"
        held = any(key.encode() in memory for memory in masters)
    assert not held


async def test_a_key_in_a_variable_reaches_no_program_but_the_one_that_prints_a_key(
    workstation: Workstation, farm: Sshd, tmp_path: Path
) -> None:
    """Programs that note their environment, in the place of those that are started: ssh, mail, ansible-playbook, …"""
    key = f"sk-ant-test-{secrets.token_hex(16)}"
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    for name in ("ssh", "mail", "notify-send"):
        (bin_dir / name).write_text(f'#!/bin/sh\nenv > "{tmp_path}/$(basename "$0").env"\n')
        (bin_dir / name).chmod(0o755)
    workstation.environment |= {"MY_OWN_KEY": key, "PATH": f"{bin_dir}:{workstation.environment['PATH']}"}
    project = tmp_path / "project"
    project.mkdir()
    (project / "ansible.cfg").write_text("[defaults]\n")
    play = [{"hosts": "localhost", "gather_facts": False, "tasks": [{"shell": f"env > {tmp_path}/up.env"}]}]
    (project / "site.yml").write_text(json.dumps(play))
    source = ("--key-source", "env:MY_OWN_KEY")
    assert (await workstation.run("claude-cheap", *source, "--fallback", "none", "hello")).status == 4
    checks = ["doctor", "--no-canary", "--skip", "at-rest", "--skip", "shells", "--skip", "api"]
    for way in ("mail:me@example.com", "desktop"):
        assert (await workstation.run("farmhand", *checks, "--notify", way)).status == 1
    up = await workstation.run("farmhand", "up", "--project-dir", str(project))
    assert up.status == 0, up.err
    seen = {path.stem: path.read_text() for path in tmp_path.glob("*.env")}
    assert sorted(seen) == ["mail", "notify-send", "ssh", "up"]
    assert [name for name, text in seen.items() if key in text or "PATH=" not in text] == []


async def test_the_pot_of_a_written_task_says_which_key_is_sent(
    workstation: Workstation, farm: Sshd, api: MessagesApi
) -> None:
    keys = {pot: f"sk-ant-test-{secrets.token_hex(16)}" for pot in ("plan", "paid")}
    api.state.keys = frozenset(keys.values())
    workstation.environment |= {f"{pot.upper()}_KEY": key for pot, key in keys.items()}
    tables = "".join(f'[pots.{pot}]\nkey_source = "env:{pot.upper()}_KEY"\n' for pot in keys)
    (workstation.config_dir / "config.toml").write_text(tables)
    for pot in ("paid", "plan"):
        task = json.dumps({"prompt": "hi", "pot": pot}).encode()
        done = await workstation.run("farmhand", "run", "--task", "-", stdin=task)
        assert done.status == 0, done.err
        assert api.posts[-1].headers["x-api-key"] == keys[pot]
    done = await workstation.run("farmhand", "run", "--task", "-", stdin=b'{"prompt": "hi", "pot": "nope"}')
    assert (done.status, "there is no pot 'nope' (known: plan, paid)" in done.err) == (2, True)
    assert len(api.posts) == 2
