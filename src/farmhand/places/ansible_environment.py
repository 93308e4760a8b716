"""The environment in which Farmhand runs Ansible.

It has everything that a run needs. Of the operator's own ANSIBLE_* variables it keeps those that name the hosts and the
login. docs/operations.md lists them.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from farmhand.core.child import scrubbed
from farmhand.core.errors import NotConfigured
from farmhand.places.checkout import CARRIED, inventory_of

#: Variables for the inventory, the route to its hosts, and the login. Host keys are always checked, so variables that
#: change this are left out, as are those that make Ansible prompt, because most runs have no user to answer.
CONNECTION = frozenset(
    {
        "ANSIBLE_INVENTORY", "ANSIBLE_REMOTE_USER", "ANSIBLE_REMOTE_PORT", "ANSIBLE_PRIVATE_KEY_FILE",
        "ANSIBLE_SSH_AGENT", "ANSIBLE_SSH_ARGS", "ANSIBLE_SSH_COMMON_ARGS", "ANSIBLE_SSH_EXTRA_ARGS",
        "ANSIBLE_SSH_EXECUTABLE", "ANSIBLE_SSH_CONTROL_PATH", "ANSIBLE_SSH_CONTROL_PATH_DIR", "ANSIBLE_SSH_RETRIES",
        "ANSIBLE_CONNECTION_PASSWORD_FILE", "ANSIBLE_BECOME", "ANSIBLE_BECOME_METHOD", "ANSIBLE_BECOME_USER",
        "ANSIBLE_BECOME_EXE", "ANSIBLE_BECOME_FLAGS", "ANSIBLE_BECOME_PASSWORD_FILE", "ANSIBLE_VAULT_PASSWORD_FILE",
        "ANSIBLE_VAULT_IDENTITY_LIST",
    }
)  # fmt: skip
#: Variables that Ansible, its callback plugins and ansible-runner read.
_FOREIGN = re.compile(r"_?(ANSIBLE|AWX|RUNNER|JUNIT|AD_HOC|ORIGINAL_STDOUT|JOB_EVENT)_")


def ansible_environment(project_dir: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for Ansible in the checkout `project_dir`, based on `environ` (None: this process's own).

    It contains no credential, names the checkout's ansible.cfg, enables the host key check, and finds the programs next
    to this Python.
    """
    given = scrubbed(environ, settings=True)
    kept = {name: value for name, value in given.items() if not _FOREIGN.match(name)}
    kept |= {name: value for name in sorted(CONNECTION) if (value := _taken_over(name, given.get(name, "")))}
    # Beside ansible.cfg is the checkout's own; a wheel's has none.
    own = {"ANSIBLE_INVENTORY": str(inventory_of(CARRIED))} if project_dir == CARRIED else {}
    return {
        **own,
        **kept,
        **_readable_locale(kept),
        "ANSIBLE_CONFIG": str(project_dir / "ansible.cfg"),
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        # Ansible is installed next to this Python, whether or not the virtual environment is on the operator's PATH.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}",
    }


def _readable_locale(environ: Mapping[str, str]) -> dict[str, str]:
    """Return a locale for Ansible, which refuses to start in one that is not UTF-8; nothing where it is."""
    names = ("LC_ALL", "LC_CTYPE", "LANG")
    used = next((value for name in names if (value := environ.get(name, ""))), "")
    encoding = used.partition("@")[0].rpartition(".")[2].lower().replace("-", "")
    # In none at all Python takes UTF-8 by itself.
    return {} if not used or encoding == "utf8" else {"LC_ALL": "C.UTF-8"}


def _taken_over(name: str, value: str) -> str:
    """Return the value with absolute paths, because the run has another working directory; "" to leave it out.

    A missing file would end every run, and a prompt for a vault's password would hang it.
    """
    if name.endswith("_FILE"):
        path = Path(os.path.expanduser(value))
        return str(path.absolute()) if value and path.is_file() else ""
    if name == "ANSIBLE_VAULT_IDENTITY_LIST":
        return ",".join(filter(None, map(_vault, value.split(","))))
    if name == "ANSIBLE_INVENTORY":
        return ",".join(_inventory(part.strip()) for part in value.split(",")) if value.strip(" ,") else ""
    return value


def _vault(entry: str) -> str:
    label, at, name = entry.strip().rpartition("@")
    path = Path(os.path.expanduser(name))
    return f"{label}{at}{path.absolute()}" if name and path.is_file() else ""


def _inventory(part: str) -> str:
    path = Path(os.path.expanduser(part))
    return str(path.absolute()) if part and path.exists() else part


def find_program(name: str) -> str:
    """Return the path of `ansible` or `ansible-playbook`, next to this Python or on PATH. Raise NotConfigured."""
    beside_us = Path(sys.executable).with_name(name)
    program = str(beside_us) if beside_us.exists() else shutil.which(name)
    if program is None:
        raise NotConfigured(
            f"{name} is not installed", hint="pip install 'ansible-core>=2.19,<2.20' ansible-runner hatchling"
        )
    return program
