"""`farmhand up`: run `ansible-playbook site.yml` in the checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from farmhand.cli.verb import VerbResult, verb
from farmhand.core.errors import FarmhandError, FarmUnreachable
from farmhand.core.settings import Settings
from farmhand.places.ansible_environment import ansible_environment, find_program
from farmhand.places.checkout import find_project

#: An exit status of ansible-playbook. Source: ansible.executor.task_queue_manager, RUN_UNREACHABLE_HOSTS.
_UNREACHABLE = 4


@verb(
    "up",
    "project_dir",
    json_help="Print one JSON object when done; Ansible's output goes to stderr.",
    context_settings={"ignore_unknown_options": True},
    epilog="For example: farmhand up --check --diff, or farmhand up -i inventory/mine --limit farm1.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ANSIBLE-PLAYBOOK OPTIONS]")
def command(conf: Settings, *, as_json: bool, arguments: tuple[str, ...]) -> VerbResult:
    """Build or update the farm hosts. What is not an option of this command goes to ansible-playbook.

    It runs in the checkout, so paths in its options are relative to that.
    """
    directory = find_project(conf.project_dir, Path.cwd())
    status = play(directory, arguments, quiet=as_json)
    if status == _UNREACHABLE:
        raise FarmUnreachable("site.yml did not reach every host", hint="see Ansible's output above")
    if status != 0:
        raise FarmhandError(f"site.yml failed: ansible-playbook ended with {status}", hint="see its output above")
    return VerbResult({"project_dir": str(directory), "playbook": "site.yml", "status": "done"}, "")


def play(directory: Path, arguments: tuple[str, ...], *, quiet: bool) -> int:
    """Run the playbook in its directory, with its ansible.cfg, and return ansible-playbook's exit status."""
    done = subprocess.run(
        [find_program("ansible-playbook"), "site.yml", *arguments],
        cwd=directory,
        env=ansible_environment(directory),
        stdout=sys.stderr if quiet else None,
        check=False,
    )
    return done.returncode
