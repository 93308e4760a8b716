"""The module and its action plugin through ansible, ansible-playbook, ansible-runner and farmhand.dispatch."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import secrets
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.integration.dispatch.conftest import CHECKOUT, Done, Workstation, agent_knows, received
from tests.integration.dispatch.sshd import Sshd, shared_connections
from tests.support.agent import Agent, bodies
from tests.support.messages_api import DEFAULT_KEY, MessagesApi
from tests.support.pictures import png


async def ansible(station: Workstation, inventory: Path, agent: Agent, arguments: str, *options: str) -> Done:
    """`ansible farm -m farmhand_task -a ARGUMENTS`, with the answer as JSON where there is one."""
    station.environment["ANSIBLE_CALLBACK_RESULT_FORMAT"] = "json"
    given = f"{arguments} socket={agent.socket}"
    return await station.run("ansible", "-i", str(inventory), "farm", "-m", "farmhand_task", "-a", given, *options)


def answer(done: Done) -> dict[str, object]:
    """The result that ansible printed for the one host."""
    text = done.out.decode()
    value: dict[str, object] = json.loads(text[text.index("=> {") + 3 :])
    return value


def ssh_inventory(workstation: Workstation, farm: Sshd, tmp_path: Path) -> tuple[Path, Path]:
    """An inventory whose host is reached by ssh, and the shell to use there."""
    inventory = tmp_path / "ssh.ini"
    inventory.write_text(
        f"[farm]\nfarm1 ansible_host=127.0.0.1 ansible_port={farm.port} ansible_user={farm.user}"
        f" ansible_ssh_private_key_file={farm.identity} ansible_python_interpreter=/usr/bin/python3"
        f" ansible_ssh_common_args='-o UserKnownHostsFile={farm.known_hosts}'\n"
    )
    # A login shell of sshd has its own PATH; on a farm host jada-agent is in /usr/bin.
    wrapper = tmp_path / "su"
    wrapper.write_text(f'#!/bin/sh\nexport PATH={workstation.environment["PATH"]}\nexec /bin/sh "$@"\n')
    wrapper.chmod(0o755)
    return inventory, wrapper


async def test_ad_hoc(workstation: Workstation, local_farm: Path, agent: Agent, api: MessagesApi) -> None:
    done = await ansible(workstation, local_farm, agent, "prompt='a; id $(id) \"x\"'")
    assert done.status == 0, done.err + done.out.decode()
    assert received(api) == ['a; id $(id) "x"']
    result = answer(done)
    assert (result["state"], result["changed"], result["engine"]) == ("succeeded", True, "api")


async def test_a_picture_and_what_it_may_cost(
    workstation: Workstation, local_farm: Path, agent: Agent, api: MessagesApi, tmp_path: Path
) -> None:
    (tmp_path / "cow").write_bytes(png(8000, 8000))
    given = f"prompt=look files={tmp_path}/cow work_class=cows max_tokens=9"
    done = await ansible(workstation, local_farm, agent, f"{given} max_usd=0.002")
    assert done.status == 0, done.err + done.out.decode()
    [body] = bodies(api)
    assert [block["type"] for block in body["messages"][0]["content"]] == ["image", "text"]
    done = await ansible(workstation, local_farm, agent, f"{given} max_usd=0.0004")
    assert "the budget of the task" in str(answer(done)["msg"])
    (tmp_path / "cow").write_bytes(b"text")
    done = await ansible(workstation, local_farm, agent, given)
    assert str(answer(done)["msg"]).endswith("cow is no PNG, JPEG, GIF, WebP or PDF")


async def test_the_same_id_again_is_unchanged(workstation: Workstation, local_farm: Path, agent: Agent) -> None:
    first = await ansible(workstation, local_farm, agent, "prompt=hello id=once")
    again = await ansible(workstation, local_farm, agent, "prompt=hello id=once")
    assert answer(again) == answer(first) | {"changed": False}
    other = await ansible(workstation, local_farm, agent, "prompt=other id=once")
    assert other.status == 2
    assert b"id_conflict" in other.out


async def test_check_mode_runs_nothing_and_needs_no_key(
    workstation: Workstation, local_farm: Path, agent: Agent, api: MessagesApi
) -> None:
    await ansible(workstation, local_farm, agent, "prompt=hello id=done")
    (workstation.home / "repos.env").unlink()
    fresh = await ansible(workstation, local_farm, agent, "prompt=hello", "--check")
    assert (fresh.status, answer(fresh)["changed"]) == (0, True)
    known = await ansible(workstation, local_farm, agent, "prompt=hello id=done", "--check")
    assert (known.status, answer(known)["changed"], answer(known)["state"]) == (0, False, "succeeded")
    for arguments, words in (
        ("prompt=other id=done", "is known with other content"),
        ("prompt=x network=full tools=Bash", "does not allow network: full"),
        ("prompt=' '", "the prompt is empty"),
    ):
        refused = await ansible(workstation, local_farm, agent, arguments, "--check")
        assert refused.status == 2
        assert words in str(answer(refused)["msg"])
    assert len(received(api)) == 1
    with sqlite3.connect(agent.directory / "state" / "ledger.db") as ledger:
        assert ledger.execute("SELECT id FROM task").fetchall() == [("done",)]


async def test_a_task_with_a_priority_is_queued_with_it(
    workstation: Workstation, local_farm: Path, agent: Agent
) -> None:
    assert (await ansible(workstation, local_farm, agent, "prompt=hello id=first priority=7")).status == 0
    with sqlite3.connect(agent.directory / "state" / "ledger.db") as ledger:
        assert ledger.execute("SELECT priority FROM task WHERE id = 'first'").fetchall() == [(7,)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("id=x", "prompt is missing"),
        ("prompt=' '", "the prompt is empty"),
        ("prompt=x prompt_file=y", "exclude each other"),
        ("prompt_file=/nowhere.txt", "not on the controller"),
        ("prompt=x model=claude-nothing-1", "does not know the model"),
        ("prompt=x key_source=env:NOT_SET", "NOT_SET is not set"),
        ("prompt=x network=full tools=Bash", "does not allow network: full"),
        ("prompt=x colour=red", "colour"),
    ],
)
async def test_failures_are_one_line(
    workstation: Workstation, local_farm: Path, agent: Agent, arguments: str, words: str
) -> None:
    done = await ansible(workstation, local_farm, agent, arguments)
    assert done.status == 2
    message = str(answer(done)["msg"])
    assert words in message
    assert "\n" not in message
    assert "Traceback" not in done.out.decode() + done.err
    assert DEFAULT_KEY not in done.out.decode() + done.err


async def test_a_task_that_holds_the_key_is_not_sent(
    workstation: Workstation, local_farm: Path, agent: Agent, api: MessagesApi
) -> None:
    source = workstation.home / "repos.env"
    done = await ansible(workstation, local_farm, agent, f"prompt_file={source}")
    assert done.status == 2
    assert "the API key itself" in str(answer(done)["msg"])
    assert DEFAULT_KEY not in done.out.decode() + done.err
    assert not api.posts


async def test_a_key_in_the_environment_of_ansible_runner_does_not_go_unnoticed(
    workstation: Workstation, local_farm: Path, agent: Agent, api: MessagesApi
) -> None:
    workstation.environment |= {"FARMHAND_KEY_SOURCE": "env:THE_KEY", "THE_KEY": DEFAULT_KEY}
    assert (await ansible(workstation, local_farm, agent, "prompt=hello")).status == 0
    workstation.environment["AWX_ISOLATED_DATA_DIR"] = "/somewhere/artifacts/1"  # as ansible-runner sets it
    done = await ansible(workstation, local_farm, agent, "prompt=hello")
    assert done.status == 2
    assert "/somewhere/artifacts/1/command" in str(answer(done)["msg"])
    assert DEFAULT_KEY not in done.out.decode() + done.err
    assert len(api.posts) == 1


async def test_a_host_without_agent(workstation: Workstation, local_farm: Path, agent: Agent) -> None:
    await agent.stop()
    down = await ansible(workstation, local_farm, agent, "prompt=x")
    assert "the agent does not answer" in str(answer(down)["msg"])
    # The tests' own jada-agent is beside ansible, which is called by its whole path.
    workstation.environment["PATH"] = "/usr/bin:/bin"
    missing = await ansible(workstation, local_farm, agent, "prompt=x")
    assert "jada-agent is not installed there" in str(answer(missing)["msg"])


async def test_where_ansible_was_installed_alone_one_line_says_what_is_missing(
    workstation: Workstation, local_farm: Path, agent: Agent, tmp_path: Path
) -> None:
    (tmp_path / "msgspec.py").write_text("raise ModuleNotFoundError('No module named msgspec')\n")
    workstation.environment["PYTHONPATH"] = str(tmp_path)
    done = await ansible(workstation, local_farm, agent, "prompt=x")
    assert done.status != 0
    (line,) = [line for line in (done.out.decode() + done.err).splitlines() if "farmhand_task: " in line]
    assert "install farmhand there, or only that (pip install msgspec)" in line
    assert "Traceback" not in done.out.decode() + done.err


async def test_a_playbook_with_files_loops_and_braces(
    workstation: Workstation, local_farm: Path, agent: Agent, api: MessagesApi, tmp_path: Path
) -> None:
    (tmp_path / "prompt.txt").write_bytes("{{ not a template }} 😀\n".encode())
    play = tmp_path / "play.yml"
    play.write_text(
        f"""
- hosts: farm
  gather_facts: false
  module_defaults: {{farmhand_task: {{socket: {agent.socket}}}}}
  tasks:
    - farmhand_task: {{prompt_file: prompt.txt}}
    - farmhand_task: {{prompt: !unsafe "{{{{ braces }}}}", labels: {{a: b}}}}
    - farmhand_task: {{prompt: "number {{{{ item }}}}"}}
      loop: [1, 2]
"""
    )
    done = await workstation.run("ansible-playbook", "-i", str(local_farm), str(play))
    assert done.status == 0, done.out.decode() + done.err
    assert received(api) == ["{{ not a template }} 😀\n", "{{ braces }}", "number 1", "number 2"]


async def test_over_ssh_with_and_without_become_and_no_key_in_any_output(
    workstation: Workstation, farm: Sshd, agent: Agent, api: MessagesApi, tmp_path: Path
) -> None:
    farm.authorize(farm.identity.with_suffix(".pub").read_text().strip(), "")
    inventory, wrapper = ssh_inventory(workstation, farm, tmp_path)
    options = ["-e", f"ansible_shell_executable={wrapper}"]
    plain = await ansible(workstation, inventory, agent, "prompt=plain", "-vvvvv", *options)
    assert plain.status == 0, plain.out.decode() + plain.err
    workstation.environment["ANSIBLE_BECOME_EXE"] = "su"
    become = await ansible(
        workstation, inventory, agent, "prompt=become", "-vvvvv", "-b", "--become-method", "su", *options
    )
    if getpass.getuser() == "root":
        assert become.status == 0, become.out.decode() + become.err
        assert received(api) == ["plain", "become"]
    for done in (plain, become):
        assert DEFAULT_KEY not in done.out.decode() + done.err
    assert "jada-agent task" in plain.out.decode()


async def test_the_key_goes_to_no_host_whose_key_is_unknown(
    workstation: Workstation, farm: Sshd, agent: Agent, api: MessagesApi, tmp_path: Path
) -> None:
    farm.authorize(farm.identity.with_suffix(".pub").read_text().strip(), "")
    inventory, _ = ssh_inventory(workstation, farm, tmp_path)
    farm.known_hosts.write_text("")
    workstation.environment["ANSIBLE_HOST_KEY_CHECKING"] = "False"  # ansible-runner sets it so, too
    done = await ansible(workstation, inventory, agent, "prompt=x")
    assert done.status == 4
    assert b"Host key verification failed" in done.out
    assert farm.known_hosts.read_text() == ""


async def test_ansibles_shared_connection_does_not_hold_a_key_from_the_environment(
    workstation: Workstation, farm: Sshd, agent: Agent, api: MessagesApi, tmp_path: Path
) -> None:
    key = f"sk-ant-test-{secrets.token_hex(16)}"
    api.state.keys = frozenset({key})
    farm.authorize(farm.identity.with_suffix(".pub").read_text().strip(), "")
    inventory, wrapper = ssh_inventory(workstation, farm, tmp_path)
    workstation.environment |= {"FARMHAND_KEY_SOURCE": "env:THE_KEY", "THE_KEY": key, "SEEN_BY_SSH": "yes"}
    tasks = [{"farmhand_task": {"prompt": "number {{ item }}", "socket": str(agent.socket)}, "loop": [1, 2]}]
    play = tmp_path / "play.json"
    play.write_text(json.dumps([{"hosts": "farm", "gather_facts": False, "tasks": tasks}]))
    shell = f"ansible_shell_executable={wrapper}"
    done = await workstation.run("ansible-playbook", "-i", str(inventory), str(play), "-e", shell)
    assert done.status == 0, done.out.decode() + done.err
    assert received(api) == ["number 1", "number 2"]
    held = shared_connections(workstation.environment["XDG_RUNTIME_DIR"])
    assert held, "the shared connection has ended"
    assert all(b"SEEN_BY_SSH=yes" in each for each in held), "nothing can be told from these"
    assert not any(key.encode() in each for each in held)


async def test_the_literal_ansible_runner_command(
    workstation: Workstation, local_farm: Path, agent: Agent, api: MessagesApi, tmp_path: Path
) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "inventory").mkdir(parents=True)
    for name in ("ansible.cfg", "library", "action_plugins", "filter_plugins", "src"):
        (checkout / name).symlink_to(CHECKOUT / name)
    (checkout / "inventory" / "hosts.ini").write_text(local_farm.read_text())
    command = ["ansible-runner", "run", str(checkout), "--hosts", "farm", "-m", "farmhand_task"]
    process = await asyncio.create_subprocess_exec(
        *command,
        "-a",
        f"prompt='hello there' socket={agent.socket}",
        cwd=checkout,
        env=workstation.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, out
    assert received(api) == ["hello there"]
    artifacts = [path for path in (checkout / "artifacts").rglob("*") if path.is_file()]
    assert artifacts
    assert [path for path in artifacts if DEFAULT_KEY in path.read_text(errors="replace")] == []


async def test_ctrl_c_on_the_controller_cancels_the_task_on_the_host(
    workstation: Workstation, farm: Sshd, agent: Agent, api: MessagesApi, tmp_path: Path
) -> None:
    farm.authorize(farm.identity.with_suffix(".pub").read_text().strip(), "")
    inventory, shell = ssh_inventory(workstation, farm, tmp_path)
    await stop_in_the_middle(workstation, agent, api, inventory, "-e", f"ansible_shell_executable={shell}")


async def test_ctrl_c_with_a_local_connection(
    workstation: Workstation, local_farm: Path, agent: Agent, api: MessagesApi
) -> None:
    await stop_in_the_middle(workstation, agent, api, local_farm)


async def test_a_connection_that_sends_no_input_is_refused_in_one_line(
    workstation: Workstation, agent: Agent, tmp_path: Path
) -> None:
    """paramiko's and vmware_tools' say so with an internal error, or not at all: ansible#57234, #86397."""
    plugins = tmp_path / "connection_plugins"
    plugins.mkdir()
    (plugins / "mute.py").write_text(
        "from ansible.plugins.connection import ConnectionBase\n"
        "DOCUMENTATION = 'name: mute\\nshort_description: x\\ndescription: x\\nauthor: x\\n'\n"
        "class Connection(ConnectionBase):\n"
        "    transport = 'mute'\n"
        "    def _connect(self): return self\n"
        "    def exec_command(self, cmd, in_data=None, sudoable=True): return 0, b'', b''\n"
        "    def put_file(self, in_path, out_path): pass\n"
        "    def fetch_file(self, in_path, out_path): pass\n"
        "    def close(self): pass\n"
    )
    workstation.environment["ANSIBLE_CONNECTION_PLUGINS"] = str(plugins)
    inventory = tmp_path / "mute.ini"
    inventory.write_text("[farm]\nfarm1 ansible_connection=mute\n")
    done = await ansible(workstation, inventory, agent, "prompt=hello")
    assert done.status == 2
    assert "the connection mute cannot send a command's input" in str(answer(done)["msg"])
    assert "ansible_connection: ssh" in str(answer(done)["msg"])


async def stop_in_the_middle(
    workstation: Workstation, agent: Agent, api: MessagesApi, inventory: Path, *options: str
) -> None:
    """Start a task with ansible, press Ctrl-C while it runs, and see it cancelled."""
    api.state.event_s = 5.0  # nobody waits for it; a busy machine must not be overtaken by the answer
    process = await workstation.start(
        *("ansible", "-i", str(inventory), "farm", "-m", "farmhand_task", *options),
        *("-a", f"prompt=hello id=slow socket={agent.socket}"),
    )
    await agent_knows(agent, "slow")
    os.killpg(process.pid, signal.SIGINT)
    await asyncio.wait_for(process.communicate(), 120)
    await agent.wait_state("slow", "cancelled")
