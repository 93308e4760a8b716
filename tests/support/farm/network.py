"""A Docker network for several hosts, on which each gets an address of its own choosing."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass

from tests.support.farm.run import check, run


@dataclass(frozen=True)
class Network:
    """The network `name`."""

    name: str

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        """Its addresses; the first one is this machine's, the gateway. There must be a network."""
        found = json.loads(check(["docker", "network", "inspect", self.name]))
        return ipaddress.IPv4Network(found[0]["IPAM"]["Config"][0]["Subnet"])

    @property
    def gateway(self) -> str:
        """This machine's address on it."""
        return str(self.subnet[1])

    def exists(self) -> bool:
        """Whether there is such a network."""
        return run(["docker", "network", "inspect", self.name]).returncode == 0

    def make(self) -> None:
        """Make it, if it is not there, of the subnet that Docker finds free: named to it, so that hosts may choose."""
        if self.exists():
            return
        check(["docker", "network", "create", self.name])
        subnet = self.subnet
        check(["docker", "network", "rm", self.name])
        chosen = ["--subnet", str(subnet), "--gateway", str(subnet[1])]
        check(["docker", "network", "create", "--label", "farmhand", *chosen, self.name])

    def remove(self) -> None:
        """Remove it, if it is there."""
        if self.exists():
            check(["docker", "network", "rm", self.name])
