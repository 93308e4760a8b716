"""`farmhand cloud down`: remove the network, or everything but the data, or the data too."""

from __future__ import annotations

from pathlib import Path

import click

from farmhand.aws.client import Aws
from farmhand.aws.environment import attached, data, running
from farmhand.aws.environment.stacks import Stacks
from farmhand.cli.cloud.playbook import Playbook
from farmhand.cli.cloud.verb import cloud_verb
from farmhand.cli.say import ask, note
from farmhand.cli.verb import VerbResult
from farmhand.core.errors import NotConfigured, Refused, UsageError
from farmhand.core.readable import counted
from farmhand.core.settings import Settings
from farmhand.places.checkout import find_project


@cloud_verb("down", "project_dir", json_help="Print one JSON object when done; Ansible's output goes to stderr.")
@click.option("--network-only", is_flag=True, help="Remove only what costs by the hour.")
@click.option("--delete-data", is_flag=True, help="Remove bucket, table and key too. Nothing brings them back.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def command(conf: Settings, *, as_json: bool, network_only: bool, delete_data: bool, yes: bool) -> VerbResult:
    """Remove the stacks on AWS. What holds data (bucket, table, key) stays, unless --delete-data is given.

    The data's stack goes as well if its first creation failed, since nothing is in it then.

    Nothing is removed while something runs: farmhand cloud cancel ends it.
    """
    if network_only and delete_data:
        raise UsageError("--network-only keeps the data, --delete-data removes it: give one of them")
    aws = Aws(conf)
    stacks = Stacks(aws)
    account = aws.account
    names = aws.names
    wanted = [names.network] if network_only else [*stacks.hosts(), names.network, names.watch, names.base]
    data_stack = stacks.look(names.data)
    empty = data_stack is not None and data_stack.never_made and not network_only
    there = [name for name in (*wanted, *([names.data] if delete_data or empty else [])) if stacks.look(name)]
    removed: list[str] = []
    if there:
        if busy := running.busy(aws):
            hint = f"farmhand cloud cancel {busy[0]}, or wait"
            raise Refused(
                f"{counted(len(busy), 'task or job still runs', 'tasks or jobs still run')}: {', '.join(busy[:3])}",
                hint=hint,
            )
        if names.base in there:
            attached.check_detached(aws, stacks)
        directory = find_project(conf.project_dir, Path.cwd())
        playbook = Playbook(conf, directory, as_json=as_json)
        playbook.check()
        note(f"account {account}, region {aws.region}: this removes {', '.join(there)}")
        if not yes:
            ask("remove it, and all results in the bucket?" if delete_data else "remove it?")
        parts = ["network"] if network_only else ["network", "watch", "base"]
        playbook.run(wanted, stacks, {"aws_state": "absent", "aws_parts": parts})
        removed = [name for name in there if name != names.data]
    elif delete_data and not yes:
        ask(f"remove the data of {names.base}, if there is any?")
    if delete_data:
        removed += data.delete_data(aws, stacks)
    elif empty and stacks.delete(names.data):
        removed.append(names.data)
    if not removed:
        raise NotConfigured(f"there is nothing of {names.base} to remove (account {account}, {aws.region})")
    kept = [] if delete_data else [name for name in names.stacks if name not in removed and stacks.look(name)]
    document = {"environment": conf.aws_environment, "account": account, "removed": removed, "kept": kept}
    return VerbResult(document, f"removed {', '.join(removed)}" + (f"; {', '.join(kept)} stays" if kept else ""))
