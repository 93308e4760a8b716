"""`farmhand cloud up`: what it costs is said, all that can be checked is checked, then `playbooks/cloud.yml` runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import click

from farmhand.aws.client import Aws
from farmhand.aws.environment import image, readiness
from farmhand.aws.environment.stacks import Stacks
from farmhand.aws.prices import cloud_prices, estimate_lines
from farmhand.cli.cloud.playbook import Playbook
from farmhand.cli.cloud.verb import cloud_verb
from farmhand.cli.say import ask, note
from farmhand.cli.verb import VerbResult
from farmhand.core.errors import UsageError
from farmhand.core.settings import NETWORKS, Settings
from farmhand.places.checkout import find_project

#: What the checks and the estimate are made for. As a variable of Ansible it would win after them.
_OWN = {
    "aws_environment": "--aws-environment",
    "aws_region": "--aws-region",
    "aws_profile": "--aws-profile",
    "aws_network": "--network",
    "aws_ipv4": "--ipv4",
    "aws_state": "farmhand cloud down",
}
_SET = re.compile(rf"\b({'|'.join(_OWN)})\b[\"']?\s*[=:]")


@cloud_verb(
    "up",
    "project_dir",
    json_help="Print one JSON object when done; Ansible's output goes to stderr.",
    context_settings={"ignore_unknown_options": True},
    epilog="For example: farmhand cloud up --check --diff, or farmhand cloud up -e aws_email=me@example.com.",
)
@click.option("--network", "aws_network", type=click.Choice(NETWORKS), help="How tasks reach the API.")
@click.option("--ipv4", is_flag=True, help="private: reach the API by IPv4 too, through a NAT gateway.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ANSIBLE-PLAYBOOK OPTIONS]")
def command(conf: Settings, *, as_json: bool, ipv4: bool, yes: bool, arguments: tuple[str, ...]) -> VerbResult:
    """Make or update the place on AWS: stacks, image. What is not an option of this command goes to ansible-playbook.

    Nothing is made before everything that can be checked was. On a terminal it says what it will cost, and asks.
    """
    _check_variables(arguments)
    if ipv4 and conf.aws_network == "public":
        raise UsageError("--ipv4 is for --network private: a public network has IPv4 already")
    aws = Aws(conf)
    stacks = Stacks(aws)
    prices = cloud_prices(aws.region, conf.aws_prices_file)
    directory = find_project(conf.project_dir, Path.cwd())
    playbook = Playbook(conf, directory, as_json=as_json)
    readiness.check_templates(directory)
    architecture = image.machine()
    image.check_docker()
    account, region = aws.account, readiness.check_region(aws)
    readiness.check_stacks(aws, stacks)
    for line in (*readiness.quota_notes(aws, conf.cloud_max_vcpus), prices.note):
        if line:
            note(line)
    extras = playbook.check(arguments)
    if extras is None:
        note("what the variables of the role aws ask for besides is not known, and not in the price")
    estimate = prices.estimate(conf.aws_network, ipv4=ipv4, extras=extras)
    note(f"{aws.names.base} in account {account}, region {region}, network {conf.aws_network}")
    for line in estimate_lines(estimate, conf.aws_network):
        note(line)
    if not yes and "--check" not in arguments and "-C" not in arguments:
        ask("make it?")
    playbook.run(aws.names.stacks, stacks, {"aws_ipv4": ipv4, "aws_architecture": architecture}, arguments)
    outputs = {} if {"--check", "-C"} & {*arguments} else stacks.require(aws.names.base).outputs
    document = {
        **{"environment": conf.aws_environment, "account": account, "region": region, "network": conf.aws_network},
        **{"stacks": [*aws.names.stacks], "outputs": outputs, "estimate": estimate, "status": "done"},
    }
    return VerbResult(document, "")


def _check_variables(arguments: Sequence[str]) -> None:
    """Raise UsageError for a variable in --extra-vars that this command sets itself."""
    for before, word in zip(("", *arguments), arguments, strict=False):
        given = before in ("-e", "--extra-vars") or word.startswith(("-e", "--extra-vars="))
        if given and (found := _SET.search(word.removeprefix("-e"))):
            raise UsageError(f"{found[1]} is not for --extra-vars here", hint=f"use {_OWN[found[1]]}")
