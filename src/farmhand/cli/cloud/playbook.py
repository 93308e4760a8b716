"""`playbooks/cloud.yml`, as `farmhand cloud up` and `down` run it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from farmhand.aws.environment.stacks import Stacks
from farmhand.aws.prices import Extras
from farmhand.core.errors import FarmhandError, NotConfigured
from farmhand.core.scratch import private_directory
from farmhand.core.settings import Settings
from farmhand.places.ansible_environment import ansible_environment, find_program

PLAYBOOK, PRICE_PLAYBOOK = "playbooks/cloud.yml", "playbooks/cloud_price.yml"
_COLLECTION = "amazon.aws"
#: What Ansible says of a task whose collection is not there.
_MISSING = f"couldn't resolve module/action '{_COLLECTION}.".encode()


class Playbook:
    """The playbook in the checkout `directory`. With `as_json` its output goes to stderr."""

    def __init__(self, conf: Settings, directory: Path, *, as_json: bool) -> None:
        self._conf = conf
        self._directory = directory
        self._as_json = as_json

    def check(self, arguments: Sequence[str] = ()) -> Extras | None:
        """Return what the role's variables ask for besides, None if that cannot be known: cloud.yml then says why.

        Raise NotConfigured if Ansible or its collection for AWS is not installed.
        """
        with private_directory() as directory:
            path = directory / "asked.json"
            given = ["--extra-vars", json.dumps({"cloud_price_file": str(path)})]
            done = subprocess.run(
                [find_program("ansible-playbook"), PRICE_PLAYBOOK, *arguments, *given],
                cwd=self._directory,
                env=ansible_environment(self._directory),
                capture_output=True,
                check=False,
            )
            # Ansible breaks its lines.
            if _MISSING in b" ".join((done.stdout + done.stderr).split()):
                hint = f"ansible-galaxy collection install {_COLLECTION}, or pip install ansible"
                raise NotConfigured(f"Ansible's collection {_COLLECTION} is not installed", hint=hint)
            try:
                return msgspec.convert(msgspec.json.decode(path.read_bytes()), Extras)
            except (OSError, ValueError):
                return None

    def run(self, names: Sequence[str], stacks: Stacks, given: dict[str, Any], arguments: Sequence[str] = ()) -> None:
        """Run it with the settings and `given` as variables. Raise FarmhandError: why a stack of `names` failed."""
        conf, began = self._conf, time.time()
        variables = {
            **{name: getattr(conf, name) for name in ("aws_environment", "aws_region", "aws_profile", "aws_account")},
            **{"aws_network": conf.aws_network, "aws_max_vcpus": int(conf.cloud_max_vcpus), **given},
        }
        environ = ansible_environment(self._directory)
        if conf.config_file and Path(conf.config_file).exists():
            # The role calls `farmhand cloud push`.
            environ["FARMHAND_CONFIG"] = conf.config_file
        status = subprocess.run(
            [find_program("ansible-playbook"), PLAYBOOK, "--extra-vars", json.dumps(variables), *arguments],
            cwd=self._directory,
            env=environ,
            stdout=sys.stderr if self._as_json else None,
            check=False,
        ).returncode
        if status == 0:
            return
        for name in dict.fromkeys((*names, *stacks.hosts())):
            stack = stacks.look(name)
            if stack is not None and (why := stacks.first_failure(name, began - 5)):
                message = f"the stack {name} is in state {stack.status}: {why}"
                raise FarmhandError(message, hint=stacks.way_out(stack))
        raise FarmhandError(f"{PLAYBOOK} failed: ansible-playbook ended with {status}", hint="see its output above")
