"""`farmhand up`: run `ansible-playbook site.yml` in the checkout, or start the containers of the place `docker`.

With --create it runs playbooks/box.yml, which makes the host on AWS first.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click

from farmhand.cli.say import note
from farmhand.cli.verb import VerbResult, verb
from farmhand.core import ansible_error
from farmhand.core.errors import FarmhandError, FarmUnreachable, UsageError
from farmhand.core.scratch import private_directory
from farmhand.core.settings import AWS_PLACES, Settings
from farmhand.places import docker
from farmhand.places.ansible_environment import ansible_environment, find_program
from farmhand.places.checkout import find_project

#: Exit statuses of ansible-playbook, and those that are errors of ours. Source: ansible.errors.ExitCode.
_FAILED, _NOT_TAKEN = 2, 5
_STATUSES: dict[int, tuple[type[FarmhandError], str]] = {
    4: (FarmUnreachable, "did not reach every host"),
    _NOT_TAKEN: (UsageError, "was not run: ansible-playbook does not take these options"),
}


@verb(
    "up",
    "place",
    "project_dir",
    json_help="Print one JSON object when done; Ansible's output goes to stderr.",
    context_settings={"ignore_unknown_options": True},
    epilog="For example: farmhand up --check --diff, or farmhand up -i inventory/mine --limit farm1, "
    "or farmhand up --create farm1 -e box_ssh_from=203.0.113.7/32.",
)
@click.option(
    "--create",
    metavar="NAME",
    help="Make the farm host NAME on AWS first (playbooks/box.yml), say before what it costs, and build only that.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ANSIBLE-PLAYBOOK OPTIONS]")
def command(conf: Settings, *, as_json: bool, create: str | None, arguments: tuple[str, ...]) -> VerbResult:
    """Build or update the farm hosts. What is not an option of this command goes to ansible-playbook.

    It runs in the checkout, so paths in its options are relative to that. With --place docker, build the image and
    start the containers on this machine instead.
    """
    if conf.place in AWS_PLACES:
        raise UsageError(f"the place {conf.place} is on AWS", hint="farmhand cloud up")
    if create is not None and conf.place == docker.NAME:
        raise UsageError("--create makes a farm host, and --place docker needs none", hint="leave one of them out")
    if conf.place == docker.NAME:
        if arguments:
            raise UsageError(f"--place docker has no use for {arguments[0]!r}", hint="it is for ansible-playbook")
        pair = docker.pair(conf)
        pair.up(note)
        document = {"place": conf.place, "containers": [pair.agent, pair.worker], "status": "done"}
        return VerbResult(document, f"{pair.agent} and {pair.worker} run")
    directory = find_project(conf.project_dir, Path.cwd())
    playbook = "site.yml" if create is None else "playbooks/box.yml"
    box = [] if create is None else ["-e", json.dumps({"box_name": create})]
    words = [find_program("ansible-playbook"), playbook, *box, *arguments]
    with private_directory() as private:
        left = private / "error.json"
        status = subprocess.run(
            words,
            cwd=directory,
            env=ansible_environment(directory) | {ansible_error.VARIABLE: str(left)},
            stdout=sys.stderr if as_json else None,
            check=False,
        ).returncode
        error = ansible_error.found(left) if status else None
    if error is not None:
        raise error
    if status == _FAILED and _failed_before_any_host(words, directory):
        status = _NOT_TAKEN
    if status in _STATUSES:
        kind, what = _STATUSES[status]
        raise kind(f"{playbook} {what}", hint="see Ansible's output above")
    if status != 0:
        raise FarmhandError(f"{playbook} failed: ansible-playbook ended with {status}", hint="see its output above")
    return VerbResult({"project_dir": str(directory), "playbook": playbook, "status": "done"}, "")


def _failed_before_any_host(words: list[str], directory: Path) -> bool:
    """Return whether ansible-playbook refuses its options: its parser's exit status is that of a host that failed.

    With --list-hosts no host can fail.
    """
    done = subprocess.run(
        [*words, "--list-hosts"], cwd=directory, env=ansible_environment(directory), capture_output=True, check=False
    )
    return done.returncode == _FAILED
