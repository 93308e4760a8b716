"""A farm host on Lightsail: one instance and its static address.

community.aws.lightsail makes instances and opens ports, but sets no tags, knows no check mode, writes the ports on each
run, and neither attaches an address nor asks for host keys. So this is boto3.
"""

from __future__ import annotations

import datetime
from decimal import Decimal
from functools import partial
from typing import Any

from farmhand.aws.boxes.box import (
    SSH_PORT,
    TAG_KEY,
    BoxPrice,
    BoxSeen,
    BoxSpec,
    BoxStep,
    check_kept,
    name_taken,
    not_offered,
    own_price,
)
from farmhand.aws.boxes.keys import HostKey, lightsail_keys
from farmhand.aws.client import Aws
from farmhand.aws.errors import code_of, explained
from farmhand.core.errors import Refused

#: Lightsail has no other word for "there is none".
_NONE = frozenset({"NotFoundException", "DoesNotExist"})
#: Replaces the keys of the image's user, so that the region's default key of Lightsail opens nothing.
#: ImportKeyPair takes RSA keys only. Source: the API's reference.
_LAUNCH = """#!/bin/sh
home=$(getent passwd 1000 | cut -d: -f6)
printf '%s\\n' '{line}' > "$home/.ssh/authorized_keys"
"""


class Lightsail:
    """Boxes of Lightsail."""

    service = "lightsail"
    image = "debian_12"
    size = "medium_3_0"

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._zone = ""

    @property
    def _client(self) -> Any:
        return self._aws.client("lightsail")

    def check(self, spec: BoxSpec, seen: BoxSeen) -> BoxPrice:
        """Raise if the box cannot be made as wanted; else return what it costs, as the API says today."""
        check_kept(spec, seen)
        with explained("asking Lightsail what it offers"):
            bundles = {each["bundleId"]: each for each in self._all("get_bundles", "bundles")}
            blueprints = {each["blueprintId"]: each for each in self._all("get_blueprints", "blueprints")}
            regions = self._client.get_regions(includeAvailabilityZones=True)["regions"]
        where = f"Lightsail in {spec.region}"
        bundle, blueprint = bundles.get(spec.size), blueprints.get(spec.image)
        if not seen.state:
            usable = [
                name for name, each in bundles.items() if each.get("isActive", True) and _is_linux_with_ipv4(each)
            ]
            if spec.size not in usable:
                raise not_offered("size", spec.size, where, usable)
            if not blueprint or not blueprint.get("isActive", True):
                systems = [
                    name for name, each in blueprints.items() if each.get("type") == "os" and each.get("isActive", True)
                ]
                raise not_offered("image", spec.image, where, systems)
            if bundle and bundle.get("power", 0) < blueprint.get("minPower", 0):
                raise Refused(f"{spec.image} needs a larger size than {spec.size}")
            zones = next((_zones(each) for each in regions if each["name"] == spec.region), [])
            if not zones or spec.zone not in ("", *zones):
                raise not_offered("zone", spec.zone or "at all", where, zones)
            self._zone = spec.zone or zones[0]
        price = own_price(spec)
        if price is not None:
            return price
        if bundle is None:
            raise not_offered("size", spec.size, where, list(bundles))
        source = f"Lightsail's GetBundles in {spec.region}, {datetime.datetime.now(datetime.UTC).date().isoformat()}"
        return BoxPrice(Decimal(str(bundle["price"])), f"{spec.size} with its static address", source)

    def look(self, spec: BoxSpec) -> BoxSeen:
        """Return what is there. Raise Refused if the name is taken by something that is not ours."""
        instance = self._one("get_instance", "instance", instanceName=spec.full_name)
        address = self._one("get_static_ip", "staticIp", staticIpName=_address_name(spec))
        tags = {each["key"]: each.get("value", "") for each in instance.get("tags", [])}
        if instance and spec.tags.items() - tags.items():
            raise name_taken(spec)
        if address.get("isAttached") and address.get("attachedTo") != spec.full_name:
            raise Refused(f"the static address {_address_name(spec)} is attached to {address.get('attachedTo')}")
        open_to: tuple[str, ...] = ()
        if instance:
            with explained("reading the box's firewall"):
                states = self._client.get_instance_port_states(instanceName=spec.full_name)["portStates"]
            open_to = tuple(sorted(rule for each in states if each.get("state") != "closed" for rule in _rules(each)))
        attached = bool(instance and address.get("isAttached"))
        return BoxSeen(
            state=instance.get("state", {}).get("name", ""),
            instance=instance.get("arn", ""),
            size=instance.get("bundleId", ""),
            image=instance.get("blueprintId", ""),
            zone=instance.get("location", {}).get("availabilityZone", ""),
            key=tags.get(TAG_KEY, ""),
            user=instance.get("username", ""),
            address=address.get("ipAddress", "") if attached else "",
            reserved=address.get("ipAddress", ""),
            attached=attached,
            open_to=open_to,
            parts={"name": spec.full_name} if instance else {},
        )

    def left_to_do(self, spec: BoxSpec) -> str:
        """Return what the operator has to do for the box's metrics, "" for nothing. Lightsail's have no role."""
        if not spec.metrics:
            return ""
        return (
            f"{spec.name} is to push metrics, and an instance of Lightsail can have no role: give it a key that may "
            "only call PutMetricData, by jada_agent_cloudwatch_key_file (docs/operations.md, CloudWatch), or use EC2"
        )

    def missing(self, spec: BoxSpec, seen: BoxSeen) -> list[BoxStep]:
        """Return the steps to the wanted box. The ports are closed as soon as Lightsail takes that."""
        client, name, address = self._client, spec.full_name, _address_name(spec)
        steps = []
        if not seen.state:
            steps.append(BoxStep(f"make the instance {name} ({spec.size}, {spec.image})", lambda: self._create(spec)))
        elif seen.state == "stopped":
            steps.append(BoxStep(f"start the instance {name}", lambda: client.start_instance(instanceName=name)))
        elif seen.state != "running":
            steps.append(BoxStep(f"the instance {name} is {seen.state}", None))
        wanted = tuple(sorted(f"tcp {SSH_PORT} from {each}" for each in spec.ssh_from))
        if seen.open_to != wanted:
            rule = {"fromPort": SSH_PORT, "toPort": SSH_PORT, "protocol": "tcp", "cidrs": list(spec.ssh_from)}
            rule["ipv6Cidrs"] = rule["cidrListAliases"] = []
            step = partial(client.put_instance_public_ports, portInfos=[rule], instanceName=name)
            steps.append(BoxStep(f"open {', '.join(wanted)} and nothing else", step))
        if not seen.reserved:
            steps.append(BoxStep(f"take the static address {address}", lambda: self._allocate(address)))
        if not seen.attached:
            attach = partial(client.attach_static_ip, staticIpName=address, instanceName=name)
            steps.append(BoxStep(f"attach the static address {address}", attach))
        return steps

    def surplus(self, spec: BoxSpec, seen: BoxSeen) -> list[BoxStep]:
        """Return the steps until nothing is left. The address goes first: an unattached one costs by the hour."""
        client, name, address = self._client, spec.full_name, _address_name(spec)
        steps = []
        if seen.attached:
            detach = partial(client.detach_static_ip, staticIpName=address)
            steps.append(BoxStep(f"detach the static address {address}", detach))
        if seen.reserved:
            release = partial(client.release_static_ip, staticIpName=address)
            steps.append(BoxStep(f"release the static address {address}", release))
        if seen.state in ("pending", "starting", "stopping", "shutting-down", "deleting"):
            steps.append(BoxStep(f"the instance {name} is {seen.state}", None))
        if seen.state:
            delete = partial(client.delete_instance, instanceName=name)
            steps.append(BoxStep(f"delete the instance {name} with its disk", delete))
        return steps

    def host_keys(self, seen: BoxSeen) -> list[HostKey]:
        """Return the host keys that Lightsail has witnessed. The login in the same answer is dropped unread."""
        with explained("asking Lightsail for the box's host keys"):
            answer = self._client.get_instance_access_details(instanceName=seen.parts["name"], protocol="ssh")
        return lightsail_keys(answer["accessDetails"].get("hostKeys", []))

    def _create(self, spec: BoxSpec) -> None:
        assert spec.key is not None  # noqa: S101 - apply reads it before
        tags = spec.tags | {TAG_KEY: spec.key.short}
        self._client.create_instances(
            instanceNames=[spec.full_name],
            availabilityZone=self._zone,
            blueprintId=spec.image,
            bundleId=spec.size,
            userData=_LAUNCH.format(line=spec.key.line),
            tags=[{"key": key, "value": value} for key, value in tags.items()],
            ipAddressType="ipv4",
        )

    def _allocate(self, address: str) -> None:
        self._client.allocate_static_ip(staticIpName=address)

    def _one(self, call: str, key: str, **named: str) -> dict[str, Any]:
        with explained(f"looking for {next(iter(named.values()))}"):
            try:
                found: dict[str, Any] = getattr(self._client, call)(**named)[key]
            except Exception as error:
                if code_of(error) not in _NONE:
                    raise
                return {}
            return found

    def _all(self, call: str, key: str) -> list[dict[str, Any]]:
        return [each for page in self._client.get_paginator(call).paginate() for each in page[key]]


def _address_name(spec: BoxSpec) -> str:
    """The static address's name. Lightsail has no tags for addresses, so the name alone makes it ours."""
    return f"{spec.full_name}-address"


def _rules(state: dict[str, Any]) -> list[str]:
    first, last = state.get("fromPort"), state.get("toPort")
    ports = f"{state.get('protocol')} {first}" + ("" if first == last else f"-{last}")
    sources = [*state.get("cidrs", []), *state.get("ipv6Cidrs", []), *state.get("cidrListAliases", [])]
    return [f"{ports} from {each}" for each in sources or ["anywhere"]]


def _zones(region: dict[str, Any]) -> list[str]:
    return [each["zoneName"] for each in region.get("availabilityZones", []) if each.get("state") == "available"]


def _is_linux_with_ipv4(bundle: dict[str, Any]) -> bool:
    linux = "LINUX_UNIX" in bundle.get("supportedPlatforms", ["LINUX_UNIX"])
    return linux and bundle.get("publicIpv4AddressCount", 1) > 0 and not bundle.get("supportedAppCategories")
