"""A farm host on AWS: what is wanted of it, what is there, and the steps from one to the other.

Each step is found by looking at what is there, so a run that was cut off is completed by the next one.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple, Protocol

from farmhand.aws.boxes.keys import HostKey, PublicKey
from farmhand.aws.errors import code_of, explain, explained
from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured, Refused, UsageError

#: The tags of everything that belongs to a box, beside the environment's.
TAG_BOX, TAG_KEY = "farmhand:box", "farmhand:ssh-key"
SSH_PORT = 22
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_RESERVED = frozenset({"all", "ungrouped", "farm", "localhost", "example", "hosts", "group-vars", "host-vars"})
#: Networks that never reach a box on AWS as a sender's address. Source: RFC 1918, 6598, 3927, 1122.
_PRIVATE = tuple(
    ipaddress.IPv4Network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8")
)
#: A firewall that lets more than this many addresses in is not the operator's.
_WIDEST = 16
#: AWS says so while a change has not reached all of it yet. Source: the services' own lists of error codes.
_NOT_YET = frozenset(
    {
        *("DependencyViolation", "IncorrectInstanceState", "InvalidInstanceID", "InvalidInstanceID.NotFound"),
        *("InvalidGroup.NotFound", "InvalidAllocationID.NotFound", "InvalidKeyPair.NotFound", "InvalidIPAddress.InUse"),
        "OperationFailureException",
    }
)
HOW_TO_FIND = (
    "box_ssh_from=ADDRESS/32 with this workstation's public address: your provider or router shows it, or "
    "`curl https://checkip.amazonaws.com`, which asks Amazon"
)


@dataclass(frozen=True)
class BoxSpec:
    """What is wanted: `ssh_from` are IPv4 networks, `size` a bundle or an instance type, `user` "" the image's own."""

    name: str
    environment: str
    region: str
    zone: str = ""
    size: str = ""
    image: str = ""
    ssh_from: tuple[str, ...] = ()
    key: PublicKey | None = None
    user: str = ""
    disk_gb: int = 40
    usd_month: str = ""
    #: Whether it is to push its metrics to CloudWatch by a role of its own.
    metrics: bool = False

    @property
    def profile(self) -> str:
        """The instance profile by which a host may push metrics, and nothing else: of the stack that watches."""
        return f"farmhand-{self.environment}-host"

    @property
    def full_name(self) -> str:
        """The name of everything that AWS keeps of the box."""
        return f"farmhand-{self.environment}-{self.name}"

    @property
    def tags(self) -> dict[str, str]:
        """The tags by which a box is ours."""
        return {"farmhand:environment": self.environment, TAG_BOX: self.name}


@dataclass(frozen=True)
class BoxSeen:
    """What is there. "", 0 and empty mean none or not known. `address` is the static one, once it leads to the box.

    `image` is as a `BoxSpec` has it.
    """

    state: str = ""
    instance: str = ""
    size: str = ""
    image: str = ""
    disk_gb: int = 0
    zone: str = ""
    key: str = ""
    user: str = ""
    address: str = ""
    reserved: str = ""
    attached: bool = False
    open_to: tuple[str, ...] = ()
    parts: dict[str, str] = field(default_factory=dict)

    @property
    def lines(self) -> str:
        """What a diff shows."""
        if not (self.state or self.reserved or self.parts):
            return ""
        open_to = ", ".join(self.open_to) or "nobody"
        profile = f"instance profile: {self.parts['profile']}\n" if "profile" in self.parts else ""
        return profile + (
            f"instance: {self.state or 'none'}\nsize: {self.size}\nstatic address: {self.reserved or 'none'}"
            f"{'' if self.attached or not self.reserved else ' (not attached)'}\nopen to: {open_to}\n"
        )


class BoxStep(NamedTuple):
    """One change. `do` None means that only waiting helps."""

    what: str
    do: Callable[[], object] | None


class BoxPrice(NamedTuple):
    """US$ a month, of what, and where that is from."""

    usd_month: Decimal
    of: str
    source: str


class BoxProvider(Protocol):
    """A service that has boxes. Errors are FarmhandErrors, those of boto3 are explained."""

    service: str
    image: str
    size: str

    def check(self, spec: BoxSpec, seen: BoxSeen) -> BoxPrice:
        """Raise if the box cannot be made as wanted; else return what it costs. Nothing is changed."""

    def look(self, spec: BoxSpec) -> BoxSeen:
        """Return what is there. Raise Refused if the name is taken by something that is not ours."""

    def left_to_do(self, spec: BoxSpec) -> str:
        """Return what the operator has to do for the box's metrics, "" for nothing."""

    def missing(self, spec: BoxSpec, seen: BoxSeen) -> list[BoxStep]:
        """Return the steps to the wanted box, in order."""

    def surplus(self, spec: BoxSpec, seen: BoxSeen) -> list[BoxStep]:
        """Return the steps until nothing is left, in order."""

    def host_keys(self, seen: BoxSeen) -> list[HostKey]:
        """Return the host keys that the provider's API knows, [] for none yet."""


class Patience:
    """How long something may take, in seconds, and how often it is looked at."""

    def __init__(self, wait_s: float, poll_s: float) -> None:
        self.wait_s, self._poll_s = wait_s, poll_s
        self._end = time.monotonic() + wait_s

    def rest(self) -> bool:
        """Sleep until the next look; return False when the time is over."""
        if time.monotonic() >= self._end:
            return False
        time.sleep(self._poll_s)
        return True


def converge(
    look: Callable[[], BoxSeen],
    steps_of: Callable[[BoxSeen], list[BoxStep]],
    patience: Patience,
    tell: Callable[[str], None],
) -> BoxSeen:
    """Take the first step until none is left, and return what is there then. A step is taken once, then awaited.

    Raise FarmUnreachable when the time is over.
    """
    taken: set[str] = set()
    while True:
        seen = look()
        steps = steps_of(seen)
        if not steps:
            return seen
        step = steps[0]
        waits = ""
        if step.do is None:
            waits = f"{step.what} for more than {patience.wait_s:g} s"
        elif step.what in taken:
            waits = f"{step.what}: had no effect in {patience.wait_s:g} s"
        else:
            with explained(step.what):
                try:
                    step.do()
                except Exception as error:
                    if code_of(error) not in _NOT_YET:
                        raise
                    waits = f"{explain(error, step.what)}; still so after {patience.wait_s:g} s"
                else:
                    taken.add(step.what)
                    tell(step.what)
        if waits and not patience.rest():
            raise FarmUnreachable(waits, hint="look at it in AWS's console, then run this again: it goes on")


def learn(provider: BoxProvider, seen: BoxSeen, known: Sequence[HostKey], patience: Patience) -> list[HostKey]:
    """Return the box's host keys from the provider's API, or the `known` ones of this instance if it has none now.

    Raise FarmUnreachable when none came in time: a key from the network is never taken instead.
    """
    while True:
        found = provider.host_keys(seen)
        if found or known:
            return found or list(known)
        if not patience.rest():
            raise FarmUnreachable(
                f"{provider.service}'s API knew no host key of the box for {patience.wait_s:g} s",
                hint="the box is there; run this again in a few minutes. A key from the network is never taken",
            )


def check_name(name: str) -> None:
    """Raise UsageError if `name` cannot name a box, an inventory file and a host."""
    if not _NAME.fullmatch(name) or name in _RESERVED or name.endswith("-"):
        raise UsageError(
            f"box_name {name!r} cannot name a box",
            hint="1 to 31 lower-case letters, digits and -, such as farm1, and no group's name",
        )


def check_ssh_from(given: Sequence[str]) -> tuple[str, ...]:
    """Return the networks that may use ssh, as IPv4 CIDR. Raise UsageError."""
    if not [text for text in given if text.strip()]:
        raise UsageError("box_ssh_from is missing: who may use ssh is never guessed", hint=HOW_TO_FIND)
    return tuple(sorted({_network(text.strip()) for text in given}))


def _network(text: str) -> str:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise UsageError(f"box_ssh_from: {error}", hint="an IPv4 network such as 203.0.113.7/32") from None
    if network.version != 4:
        raise UsageError(f"box_ssh_from {text}: the box has no IPv6 address", hint="an IPv4 network")
    if network.prefixlen < _WIDEST:
        raise UsageError(
            f"box_ssh_from {text} would let {network.num_addresses} addresses in", hint=f"/{_WIDEST} at most, /32 best"
        )
    if any(network.subnet_of(private) for private in _PRIVATE):
        raise UsageError(f"box_ssh_from {text} is a private network, which AWS never sees", hint=HOW_TO_FIND)
    return str(network)


def check_kept(spec: BoxSpec, seen: BoxSeen) -> None:
    """Raise Refused if the box is there and would have to be made again."""
    if not seen.state:
        return
    kept = (("size", seen.size, spec.size), ("key", seen.key, spec.key.short if spec.key else ""))
    for what, has, wanted in kept:
        if has and wanted and has != wanted:
            raise not_in_place(spec, what, has, wanted)


def not_in_place(spec: BoxSpec, what: str, has: object, wanted: object) -> Refused:
    """Return the error for something that only a new box can have."""
    return Refused(
        f"{spec.full_name} has the {what} {has}, not {wanted}, and that cannot be changed in place",
        hint="leave it out to keep the box; else remove it first: -e box_state=absent",
    )


def name_taken(spec: BoxSpec) -> Refused:
    """Return the error for an instance of that name which does not have the box's tags."""
    tags = ", ".join(f"{key}={value}" for key, value in spec.tags.items())
    return Refused(
        f"the name {spec.full_name} is taken by an instance in {spec.region} that is not this box",
        hint=f"give another box_name; a box of yours that has lost its tags needs them again: {tags}",
    )


def check_region(known: Sequence[str], spec: BoxSpec, service: str) -> None:
    """Raise NotConfigured if the region does not exist, as far as boto3 knows, or the zone is not in it."""
    if spec.region not in known:
        raise NotConfigured(
            f"{service} has no region {spec.region!r}", hint=f"box_region is one of {', '.join(sorted(known))}"
        )
    if spec.zone and not spec.zone.startswith(spec.region):
        raise UsageError(f"box_zone {spec.zone} is not in the region {spec.region}")


def own_price(spec: BoxSpec) -> BoxPrice | None:
    """Return the price that the operator gave, None for none. Raise UsageError."""
    if not spec.usd_month:
        return None
    try:
        usd = Decimal(spec.usd_month)
    except ArithmeticError:
        usd = Decimal(-1)
    if not usd.is_finite() or usd < 0:
        raise UsageError(f"box_usd_month {spec.usd_month!r} is not an amount in US$")
    return BoxPrice(usd, spec.size, "box_usd_month")


def not_offered(what: str, wanted: str, where: str, known: Sequence[str]) -> FarmhandError:
    """Return the error for a size or an image that is not to be had."""
    return NotConfigured(f"{where} has no {what} {wanted!r}", hint=f"it has {', '.join(known) or 'none'}")
