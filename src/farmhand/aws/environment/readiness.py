"""What can be checked before anything is made on AWS: so that nothing is half made."""

from __future__ import annotations

from pathlib import Path

from farmhand.aws.client import Aws
from farmhand.aws.environment import data
from farmhand.aws.environment.stacks import TEMPLATE_BYTES, Stacks
from farmhand.aws.errors import code_of, explained
from farmhand.core.errors import NotConfigured

#: Source: Service Quotas, Fargate: vCPUs at once on demand, and on Spot.
_VCPU_QUOTAS = {"L-3032A538": "Fargate vCPUs on demand", "L-36FBB829": "Fargate vCPUs on Spot"}
#: An answer of Service Quotas that says nothing about the quota.
_NOT_TOLD = frozenset({"AccessDeniedException", "NoSuchResourceException", "TooManyRequestsException", "AccessDenied"})
TEMPLATES = ("data", "base", "watch", "network", "host")


def check_templates(checkout: Path) -> None:
    """Raise NotConfigured if a template is not there or too large to be sent."""
    for name in TEMPLATES:
        path = checkout / "aws" / f"{name}.yaml"
        try:
            size = path.stat().st_size
        except OSError as error:
            raise NotConfigured(f"{path} cannot be read: {error.strerror}", hint="use a whole checkout") from None
        if size > TEMPLATE_BYTES:
            raise NotConfigured(f"{path} has {size} bytes, and CloudFormation takes {TEMPLATE_BYTES}")


def check_region(aws: Aws) -> str:
    """Return the region. Raise NotConfigured if there is none of that name that this account uses."""
    region, session = aws.region, aws.session
    partitions = session.get_available_partitions()
    # An endpoint of a region that is not there only does not answer.
    if not any(region in session.get_available_regions("ec2", name) for name in partitions):
        hint = "set aws_region in config.toml, or AWS_REGION; a new one needs a newer boto3"
        raise NotConfigured(f"there is no AWS region {region}", hint=hint)
    with explained(f"asking for the region {region}"):
        found = aws.client("ec2").describe_regions(AllRegions=True)["Regions"]
    states = {one["RegionName"]: one.get("OptInStatus", "opt-in-not-required") for one in found}
    if states.get(region) == "not-opted-in":
        hint = "see Account, AWS Regions in the console"
        raise NotConfigured(f"the region {region} is not switched on in account {aws.account}", hint=hint)
    return region


def check_stacks(aws: Aws, stacks: Stacks) -> None:
    """Raise NotConfigured if a stack cannot be updated, or its bucket or a secret is there without it."""
    for stack in stacks.all().values():
        if stack is not None:
            stacks.check_usable(stack)
    data.check_orphans(aws, stacks)


def quota_notes(aws: Aws, vcpus: float) -> list[str]:
    """Return a line for each quota that is less than `vcpus`, or that could not be asked. Raise FarmhandError."""
    notes = []
    for code, what in _VCPU_QUOTAS.items():
        with explained(f"asking for the quota of {what}"):
            try:
                found = aws.client("service-quotas").get_service_quota(ServiceCode="fargate", QuotaCode=code)
                value = float(found["Quota"]["Value"])
            except Exception as error:
                if code_of(error) not in _NOT_TOLD:
                    raise
                notes.append(f"the quota of {what} could not be asked ({code_of(error)})")
                continue
        if value <= 0:
            notes.append(
                f"the account may use no {what}: nothing would ever start there; ask for some in Service Quotas"
            )
        elif value < vcpus:
            notes.append(
                f"the account may use {value:g} {what}, and cloud_max_vcpus is {vcpus:g}: more waits in the queue"
            )
    return notes
