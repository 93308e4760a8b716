"""`farmhand batch` and `farmhand up` with the operator's environment full of settings for other work with Ansible."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from farmhand.places.ansible_environment import CONNECTION
from tests.integration.dispatch.batches import Farm
from tests.integration.dispatch.conftest import BIN, CHECKOUT, Workstation
from tests.integration.dispatch.sshd import Sshd
from tests.support.messages_api import MessagesApi


@pytest.fixture
async def farm(tmp_path: Path, api: MessagesApi, workstation: Workstation) -> AsyncIterator[Farm]:
    farm = Farm(tmp_path, api, workstation)
    yield farm
    await farm.stop()


@pytest.fixture(scope="module")
def variables() -> list[str]:
    """Every variable that Ansible, its plugins and its runner read."""
    argv = [str(BIN / "ansible-config"), "list", "-t", "all", "--format", "json"]
    said = json.loads(subprocess.run(argv, capture_output=True, check=True, cwd=CHECKOUT).stdout)
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            found.update(str(each.get("name")) for each in value.get("env") or [] if isinstance(each, dict))
            value = list(value.values())
        for part in value if isinstance(value, list) else []:
            walk(part)

    walk(said)
    assert len(found) > 250
    runners = {"AWX_LIB_DIRECTORY", "AWX_ISOLATED_DATA_DIR", "AD_HOC_COMMAND_ID", "RUNNER_ONLY_FAILED_EVENTS"}
    tags = {"ANSIBLE_RUN_TAGS", "ANSIBLE_SKIP_TAGS", "ANSIBLE_ACTION_PLUGINS", "ANSIBLE_ASK_PASS"}
    assert tags <= found | {"ANSIBLE_RUN_TAGS"}
    return sorted((found | runners | tags) - CONNECTION)


@pytest.mark.parametrize("value", ["true", "/nonexistent/odd", "never", "-1"])
async def test_a_batch_runs_whatever_is_set(farm: Farm, variables: list[str], value: str) -> None:
    await farm.start()
    farm.workstation.environment |= dict.fromkeys(variables, value)
    farm.workstation.environment |= dict.fromkeys(
        ("ANSIBLE_VAULT_PASSWORD_FILE", "ANSIBLE_CONNECTION_PASSWORD_FILE", "ANSIBLE_BECOME_PASSWORD_FILE"), "/nowhere"
    )
    farm.workstation.environment["ANSIBLE_VAULT_IDENTITY_LIST"] = "a@prompt,b@/nowhere"
    (farm.workstation.home / ".ansible.cfg").write_text("[defaults]\nstdout_callback = nosuch\n[tags]\nskip = all\n")
    farm.write(["one", "two"])
    done = await farm.batch()
    assert done.status == 0, done.err
    assert len(farm.results()) == 2


async def test_up_runs_the_whole_site_with_the_checkouts_own_settings(
    tmp_path: Path, workstation: Workstation, variables: list[str]
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    project.chmod(0o777)  # Ansible does not take an ansible.cfg from such a directory unless it is told to
    (project / "ansible.cfg").write_text(f"[defaults]\ninventory = {tmp_path}/hosts\nhost_key_checking = True\n")
    (tmp_path / "hosts").write_text("farm1 ansible_connection=local\n")
    tasks: list[dict[str, Any]] = [
        {"debug": {"msg": "forks {{ ansible_forks }}, key checks {{ lookup('config', 'HOST_KEY_CHECKING') }}"}},
        {"debug": {"msg": "tagged"}, "tags": ["base"]},
    ]
    (project / "site.yml").write_text(json.dumps([{"hosts": "farm1", "gather_facts": False, "tasks": tasks}]))
    workstation.environment |= dict.fromkeys(variables, "never")
    workstation.environment["MY_KEY"] = "sk-ant-test-environment-0000"
    done = await workstation.run("farmhand", "up", "--project-dir", str(project))
    assert done.status == 0, done.err
    assert b"forks 5, key checks True" in done.out
    assert b"tagged" in done.out


async def test_no_batch_goes_to_a_host_whose_key_is_unknown(
    tmp_path: Path, api: MessagesApi, workstation: Workstation
) -> None:
    """ansible-runner switches the check off where its caller does not say otherwise, and the key goes by this way."""
    directory = tmp_path / "sshd"
    directory.mkdir()
    server = Sshd(directory, "")
    server.start()
    known = tmp_path / "known"
    known.touch()
    farm = Farm(tmp_path, api, workstation)
    farm.inventory.write_text(
        f"[farm]\nfarm1 ansible_host=127.0.0.1 ansible_port={server.port} ansible_user={server.user}"
        f" ansible_ssh_private_key_file={server.identity} ansible_ssh_common_args='-o UserKnownHostsFile={known}'\n"
    )
    workstation.environment["ANSIBLE_HOST_KEY_CHECKING"] = "False"
    farm.write(["one"])
    try:
        done = await farm.batch("--patience", "1")
    finally:
        server.stop()
    assert done.status == 4, done.err
    assert "Host key verification failed" in done.err
    assert known.read_text() == ""
