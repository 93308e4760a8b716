"""`farmhand up`: run `ansible-playbook site.yml` in the checkout, or start the containers of the place `docker`.

With --create it runs playbooks/box.yml, which makes the host on AWS first.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from farmhand.cli.playbook import play
from farmhand.cli.say import note
from farmhand.cli.verb import VerbResult, verb
from farmhand.core.errors import UsageError
from farmhand.core.settings import AWS_PLACES, Settings
from farmhand.places import docker
from farmhand.places.checkout import find_project


@verb(
    "up",
    "place",
    "project_dir",
    json_help="Print one JSON object when done; Ansible's output goes to stderr.",
    context_settings={"ignore_unknown_options": True},
)
@click.option(
    "--create",
    metavar="NAME",
    help="Make the farm host NAME on AWS first (playbooks/box.yml), say before what it costs, and build only that.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ANSIBLE-PLAYBOOK OPTIONS]")
def command(conf: Settings, *, as_json: bool, create: str | None, arguments: tuple[str, ...]) -> VerbResult:
    """Build or update the farm hosts. What is not an option of this command goes to ansible-playbook.

    It runs in the checkout if there is one, so paths in its options are relative to that. With --place docker, build
    the image and start the containers on this machine instead.
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
    if create is None:
        return play(directory, "site.yml", arguments, as_json=as_json)
    box = ("-e", json.dumps({"box_name": create}))
    return play(directory, "playbooks/box.yml", (*box, *arguments), as_json=as_json)
