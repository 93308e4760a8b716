"""`farmhand playbook`: run one of Farmhand's playbooks from anywhere, also from an installed wheel; `play` for `up`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from farmhand.cli.verb import VerbResult, verb
from farmhand.core import ansible_error
from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured, UsageError
from farmhand.core.scratch import private_directory
from farmhand.core.settings import Settings
from farmhand.places.ansible_environment import ansible_environment, find_program
from farmhand.places.checkout import CARRIED, find_project, inventory_of

#: Exit statuses of ansible-playbook, and those that are errors of ours. Source: ansible.errors.ExitCode.
_FAILED, _NOT_TAKEN = 2, 5
_STATUSES: dict[int, tuple[type[FarmhandError], str]] = {
    4: (FarmUnreachable, "did not reach every host"),
    _NOT_TAKEN: (UsageError, "was not run: ansible-playbook does not take these options"),
}
_BOX = "playbooks/box.yml"
#: These work on this machine: they ask no inventory for hosts.
_HERE = {_BOX, *(f"playbooks/{name}.yml" for name in ("workstation", "gateway", "cloud", "cloud_price", "credential"))}


@verb(
    "playbook",
    "project_dir",
    json_help="Print one JSON object when done; Ansible's output goes to stderr.",
    context_settings={"ignore_unknown_options": True},
    epilog="`farmhand playbook list` names them.",
)
@click.argument("name", metavar="NAME")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ANSIBLE-PLAYBOOK OPTIONS]")
def command(conf: Settings, *, as_json: bool, name: str, arguments: tuple[str, ...]) -> VerbResult:
    """Run playbooks/NAME.yml with the options that follow.

    It runs in the checkout if there is one, so paths in its options are relative to that.
    """
    directory = find_project(conf.project_dir, Path.cwd())
    names = sorted(path.stem for path in (directory / "playbooks").glob("*.yml"))
    if name == "list":
        return VerbResult({"playbooks": names}, "\n".join(names) + "\n")
    if name not in names:
        raise UsageError(f"there is no playbook {name!r}", hint=f"there are {', '.join(names)}")
    return play(directory, f"playbooks/{name}.yml", arguments, as_json=as_json)


def play(directory: Path, playbook: str, arguments: Sequence[str], *, as_json: bool) -> VerbResult:
    """Run a playbook of the checkout. Raise FarmhandError as its exit status says."""
    environ, own = ansible_environment(directory), inventory_of(directory)
    words = [find_program("ansible-playbook"), str(directory / playbook), *arguments]
    if playbook == _BOX:
        words[2:2] = ["-e", json.dumps({"box_inventory_dir": str(own)})]
    named = environ.get("ANSIBLE_INVENTORY") != str(own) or any(word.startswith(("-i", "--inv")) for word in arguments)
    if not (named or playbook in _HERE or own.exists()):  # Ansible would do nothing, and call that success
        raise NotConfigured(f"no farm host is known: {own} does not exist", hint="farmhand init, or -i INVENTORY")
    # What a wheel carries is no place to work in.
    cwd = None if directory == CARRIED else directory
    with private_directory() as private:
        left = private / "error.json"
        status = subprocess.run(
            words,
            cwd=cwd,
            env=environ | {ansible_error.VARIABLE: str(left)},
            stdout=sys.stderr if as_json else None,
            check=False,
        ).returncode
        error = ansible_error.found(left) if status else None
    if error is not None:
        raise error
    # Its parser's exit status is that of a host that failed. With --list-hosts no host can fail.
    if status == _FAILED:
        listed = subprocess.run([*words, "--list-hosts"], cwd=cwd, env=environ, capture_output=True, check=False)
        status = _NOT_TAKEN if listed.returncode == _FAILED else status
    if status in _STATUSES:
        kind, what = _STATUSES[status]
        raise kind(f"{playbook} {what}", hint="see Ansible's output above")
    if status != 0:
        raise FarmhandError(f"{playbook} failed: ansible-playbook ended with {status}", hint="see its output above")
    return VerbResult({"project_dir": str(directory), "playbook": playbook, "status": "done"}, "")
