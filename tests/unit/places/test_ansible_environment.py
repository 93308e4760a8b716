from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from farmhand.core.errors import NotConfigured
from farmhand.places.ansible_environment import CONNECTION, ansible_environment, find_program

PROJECT = Path("/checkout")


def test_what_a_run_needs_is_named_and_the_rest_of_ansibles_variables_left_out() -> None:
    given = {
        "PATH": "/usr/bin",
        "HOME": "/home/me",
        "SSH_AUTH_SOCK": "/run/agent",
        "ANSIBLE_CONFIG": "/etc/other.cfg",
        "ANSIBLE_RUN_TAGS": "never",
        "ANSIBLE_ASK_PASS": "true",
        "_ANSIBLE_ANYTHING": "x",
        "AWX_LIB_DIRECTORY": "/x",
        "ANSIBLE_SSH_COMMON_ARGS": "-J bastion",
        "ANSIBLE_REMOTE_USER": "",
        "FARMHAND_CONFIG": "/home/me/c.toml",
        "MY_KEY": "sk-ant-test-000000000000",
        "ANTHROPIC_BASE_URL": "http://x",
    }
    assert ansible_environment(PROJECT, given) == {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}/usr/bin",
        "HOME": "/home/me",
        "SSH_AUTH_SOCK": "/run/agent",
        "ANSIBLE_CONFIG": "/checkout/ansible.cfg",
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_SSH_COMMON_ARGS": "-J bastion",
        "FARMHAND_CONFIG": "/home/me/c.toml",
    }


def test_files_are_found_from_the_checkout_and_missing_ones_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hosts").touch()
    (tmp_path / "secret").touch()
    made = ansible_environment(
        PROJECT,
        {
            "ANSIBLE_INVENTORY": "hosts, one.example,",
            "ANSIBLE_PRIVATE_KEY_FILE": "nowhere",
            "ANSIBLE_VAULT_PASSWORD_FILE": "secret",
            "ANSIBLE_BECOME_PASSWORD_FILE": "nowhere",
            "ANSIBLE_VAULT_IDENTITY_LIST": "a@secret, b@prompt,c@nowhere,secret",
        },
    )
    assert made["ANSIBLE_INVENTORY"] == f"{tmp_path}/hosts,one.example,"
    assert made["ANSIBLE_VAULT_PASSWORD_FILE"] == f"{tmp_path}/secret"
    assert made["ANSIBLE_VAULT_IDENTITY_LIST"] == f"a@{tmp_path}/secret,{tmp_path}/secret"
    assert not {"ANSIBLE_PRIVATE_KEY_FILE", "ANSIBLE_BECOME_PASSWORD_FILE"} & set(made)


def test_the_operator_can_read_which_are_taken_over() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "operations.md").read_text("utf-8")
    for name in CONNECTION:
        assert f"`{name}`" in text


def test_a_program_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotConfigured, match="ansible is not installed"):
        find_program("ansible")


@pytest.mark.parametrize(
    ("given", "set_to"),
    [
        ({"LC_ALL": "C"}, "C.UTF-8"),
        ({"LANG": "de_DE.ISO-8859-1@euro"}, "C.UTF-8"),
        ({"LC_ALL": "", "LC_CTYPE": "POSIX", "LANG": "en_US.UTF-8"}, "C.UTF-8"),
        ({"LC_ALL": "de_DE.utf8@euro", "LANG": "C"}, "de_DE.utf8@euro"),
        ({"LANG": "en_US.UTF-8"}, None),
        ({}, None),
    ],
)
def test_ansible_gets_a_locale_in_which_it_starts(given: dict[str, str], set_to: str | None) -> None:
    assert ansible_environment(Path("/project"), given).get("LC_ALL") == set_to


def test_ansible_starts_in_that_locale() -> None:
    environ = ansible_environment(Path(__file__).parents[3], {"LC_ALL": "C", "HOME": "/nonexistent"})
    done = subprocess.run(["ansible", "--version"], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
