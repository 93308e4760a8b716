"""`farmhand cloud status`: the stacks, what runs, and how long the network has been up."""

from __future__ import annotations

import click

from farmhand.aws.client import Aws
from farmhand.aws.environment import running
from farmhand.aws.environment.baked_images import BakedImages
from farmhand.aws.environment.idle import NetworkUse, network_use
from farmhand.aws.environment.running import Running
from farmhand.aws.environment.spent import SpentRecords
from farmhand.aws.environment.stacks import Stack, Stacks
from farmhand.aws.prices import cloud_prices
from farmhand.cli.cloud.verb import cloud_verb
from farmhand.cli.verb import VerbResult
from farmhand.core.errors import NotConfigured
from farmhand.core.settings import Settings

_BAKED = (
    "A CREDENTIAL IS IN AN IMAGE of the registry ({}): whoever can pull it has the credential. "
    "farmhand cloud credential remove --place image takes it out."
)


@cloud_verb("status")
def command(conf: Settings, *, as_json: bool) -> VerbResult:
    """Show the stacks, what runs, and what the network costs.

    The exit status is 3 if another stack is missing, or an image with a credential in it is in the registry.
    """
    aws = Aws(conf)
    stacks = Stacks(aws)
    found = stacks.all()
    if not any(found.values()):
        where = f"account {aws.account}, region {aws.region}"
        raise NotConfigured(f"there is nothing of {aws.names.base} ({where})", hint="farmhand cloud up makes it")
    network = _network(conf, aws, found[aws.names.network])
    runs = running.everything(aws)
    images = BakedImages.of(aws, found[aws.names.base])
    baked = sorted(images.listed()) if images else []
    bad = {name: _trouble(stacks, name, stack) for name, stack in found.items()}
    document = {
        **{"environment": conf.aws_environment, "account": aws.account, "region": aws.region},
        "stacks": {
            name: {"status": stack.status if stack else "", "trouble": bad[name]} for name, stack in found.items()
        },
        "network": network.document() if network else {},
        "running": [one.document() for one in runs],
        "baked_images": baked,
    }
    lines = [click.style(_BAKED.format(", ".join(baked)), fg="red", bold=True)] if baked else []
    lines += [
        f"{name:<32}  {stack.status if stack else 'is not there'}  {bad[name]}".rstrip()
        for name, stack in found.items()
    ]
    lines += [network.line() if network else "there is no network, so nothing can run (farmhand cloud up)"]
    lines += [_line(one) for one in runs] or ["nothing runs"]
    # Without the network nothing can run, but that may be meant.
    missing = [name for name, stack in found.items() if bad[name] or (stack is None and name != aws.names.network)]
    return VerbResult(document, lambda: click.echo("\n".join(lines)), 3 if missing or baked else 0)


def _trouble(stacks: Stacks, name: str, stack: Stack | None) -> str:
    if stack is None or not (stack.stuck or stack.status.endswith("ROLLBACK_COMPLETE")):
        return ""
    return stacks.first_failure(name) or stack.reason or ("no reason is given" if stack.stuck else "")


def _network(conf: Settings, aws: Aws, stack: Stack | None) -> NetworkUse | None:
    if stack is None:
        return None
    prices = cloud_prices(aws.region, conf.aws_prices_file)
    return network_use(stack, prices, [one.span for row in SpentRecords(aws, prices).sums() for one in row.stretches])


def _line(one: Running) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in sorted(one.children.items()) if count)
    what = f"batch {one.batch}" if one.batch else f"task {one.task}" if one.task else one.name
    return f"{one.kind:<5}  {one.id}  {one.status:<9}  {what}  {counts}{'  Spot' if one.spot else ''}".rstrip()
