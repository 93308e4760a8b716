"""A farm host on EC2: one instance in the default VPC, its security group, key pair and static address.

amazon.aws has modules for each of them, but none for the console with the host keys. And five tasks that each look
again cannot say before the first whether the last one will do. So this is boto3, as for Lightsail.
"""

from __future__ import annotations

import hashlib
import time
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
from farmhand.aws.boxes.ec2_prices import month_price, price_table
from farmhand.aws.boxes.keys import HostKey, console_keys
from farmhand.aws.client import Aws
from farmhand.aws.errors import code_of, explained
from farmhand.core.errors import NotConfigured, Refused

#: Who publishes an image, how its name begins, and its user. Source: wiki.debian.org/Cloud/AmazonEC2Image,
#: documentation.ubuntu.com/aws.
_IMAGES = {
    "debian-12": ("136693071363", "debian-12-{debian}-*", "admin"),
    "debian-13": ("136693071363", "debian-13-{debian}-*", "admin"),
    "ubuntu-24.04": ("099720109477", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{debian}-server-*", "ubuntu"),
}
_DEBIAN = {"x86_64": "amd64", "arm64": "arm64"}
_GONE = "terminated"
#: Kinds of keys that ImportKeyPair takes. Source: the API's reference.
_IMPORTED = ("ssh-ed25519", "ssh-rsa")


class Ec2:
    """Boxes of EC2."""

    service = "ec2"
    image = "debian-12"
    size = "t3.medium"

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._subnet = self._ami = self._vpc = self._root = ""

    @property
    def _client(self) -> Any:
        return self._aws.client("ec2")

    def check(self, spec: BoxSpec, seen: BoxSeen) -> BoxPrice:
        """Raise if the box cannot be made as wanted; else return what it costs, from the dated table."""
        check_kept(spec, seen)
        price = own_price(spec) or month_price(spec)
        if spec.metrics:
            self._check_profile(spec, seen)
        if not seen.state:
            with explained("asking EC2 what it offers"):
                self._find_place(spec)
                self._find_image(spec)
            if spec.key is not None and spec.key.kind not in _IMPORTED:
                raise NotConfigured(
                    f"EC2 takes no key of the kind {spec.key.kind} ({spec.key.path})", hint="ssh-keygen -t ed25519"
                )
        return price

    def left_to_do(self, spec: BoxSpec) -> str:
        """Return "": the instance gets a role for its metrics."""
        return ""

    def _check_profile(self, spec: BoxSpec, seen: BoxSeen) -> None:
        """Raise NotConfigured if the instance profile is not there, Refused if the box has another one."""
        has = seen.parts.get("profile", spec.profile)
        if has != spec.profile:
            hint = f"let its role call PutMetricData and set box_cloudwatch=false, or take {has} away"
            raise Refused(f"{spec.full_name} has the instance profile {has} and needs {spec.profile}", hint=hint)
        with explained(f"looking for the instance profile {spec.profile}"):
            try:
                self._aws.client("iam").get_instance_profile(InstanceProfileName=spec.profile)
            except Exception as error:
                if code_of(error) != "NoSuchEntity":
                    raise
                hint = f"farmhand cloud up with aws_farm_hosts: [{spec.name}] makes it, and the alarms"
                raise NotConfigured(f"there is no instance profile {spec.profile} for metrics", hint=hint) from None

    def look(self, spec: BoxSpec) -> BoxSeen:
        """Return what is there. Raise Refused if a name is taken by something that is not ours."""
        with explained(f"looking for {spec.full_name}"):
            ours = [{"Name": f"tag:{key}", "Values": [value]} for key, value in spec.tags.items()]
            named = [{"Name": "tag:Name", "Values": [spec.full_name]}]
            every = self._instances(ours)
            living = [each for each in every if each["State"]["Name"] != _GONE]
            if [each for each in self._instances(named) if each["State"]["Name"] != _GONE and not _is_ours(each, spec)]:
                raise name_taken(spec)
            if len(living) > 1:
                ids = ", ".join(each["InstanceId"] for each in living)
                raise Refused(f"{spec.full_name} is more than one instance: {ids}", hint="terminate what is not needed")
            parts = {"gone": " ".join(sorted(each["InstanceId"] for each in every if each not in living))}
            open_to = self._look_group(spec, parts)
            self._look_key(spec, parts)
            addresses: list[dict[str, Any]] = self._client.describe_addresses(Filters=ours)["Addresses"]
            address = addresses[0] if addresses else {}
        instance = living[0] if living else {}
        tags = {each["Key"]: each["Value"] for each in instance.get("Tags", [])}
        holder = address.get("InstanceId", "")
        attached = bool(instance and holder == instance["InstanceId"])
        if holder and not attached and holder not in parts["gone"].split():
            raise Refused(f"the static address {address['PublicIp']} of {spec.full_name} is attached to {holder}")
        parts |= {
            "profile": self._profile_of(spec, instance),
            "address": address.get("AllocationId", ""),
            "association": address.get("AssociationId", ""),
        }
        return BoxSeen(
            state=instance.get("State", {}).get("Name", ""),
            instance=instance.get("InstanceId", ""),
            size=instance.get("InstanceType", ""),
            image=tags.get("farmhand:image", ""),
            disk_gb=int(disk) if (disk := tags.get("farmhand:disk-gb", "")).isdecimal() else 0,
            zone=instance.get("Placement", {}).get("AvailabilityZone", ""),
            key=tags.get(TAG_KEY, ""),
            user=tags.get("farmhand:user", ""),
            address=address.get("PublicIp", "") if attached else "",
            reserved=address.get("PublicIp", ""),
            attached=attached,
            open_to=open_to,
            parts={name: value for name, value in parts.items() if value},
        )

    def missing(self, spec: BoxSpec, seen: BoxSeen) -> list[BoxStep]:
        """Return the steps to the wanted box. The firewall is there before the instance."""
        client, name, parts = self._client, spec.full_name, seen.parts
        wanted = tuple(sorted(f"tcp {SSH_PORT} from {each}" for each in spec.ssh_from))
        steps = []
        if "group" not in parts:
            steps.append(BoxStep(f"make the security group {name}", lambda: self._create_group(spec)))
        if seen.open_to != wanted:
            steps.append(BoxStep(f"open {', '.join(wanted)} and nothing else", lambda: self._open(spec, seen)))
        if "key" in parts and not seen.state and spec.key and parts.get("key_is") != spec.key.short:
            forget = partial(client.delete_key_pair, KeyName=name)
            steps.append(BoxStep(f"delete the key pair {name}, which has another key", forget))
        elif "key" not in parts and not seen.state:
            steps.append(BoxStep(f"import the public key as {name}", lambda: self._import(spec)))
        if not seen.state:
            what = f"make the instance {name} ({spec.size}, {spec.image}, {spec.disk_gb} GB)"
            steps.append(BoxStep(what, lambda: self._create(spec, seen)))
        elif seen.state == "stopped":
            start = partial(client.start_instances, InstanceIds=[seen.instance])
            steps.append(BoxStep(f"start the instance {seen.instance}", start))
        elif seen.state != "running":
            steps.append(BoxStep(f"the instance {seen.instance} is {seen.state}", None))
        if spec.metrics and "profile" not in parts:
            about = {"IamInstanceProfile": {"Name": spec.profile}, "InstanceId": seen.instance}
            attach = partial(client.associate_iam_instance_profile, **about)
            steps.append(BoxStep(f"let it push metrics by the instance profile {spec.profile}", attach))
        if not seen.reserved:
            take = partial(client.allocate_address, Domain="vpc", TagSpecifications=_tags(spec, "elastic-ip"))
            steps.append(BoxStep("take a static address", take))
        if not seen.attached and "association" in parts:
            off = partial(client.disassociate_address, AssociationId=parts["association"])
            steps.append(BoxStep("detach the static address from the instance that is gone", off))
        if not seen.attached:
            steps.append(
                BoxStep(
                    "attach the static address",
                    lambda: client.associate_address(
                        AllocationId=parts["address"], InstanceId=seen.instance, AllowReassociation=False
                    ),
                )
            )
        return steps

    def surplus(self, spec: BoxSpec, seen: BoxSeen) -> list[BoxStep]:
        """Return the steps until nothing is left. The address goes first: an unattached one costs by the hour."""
        client, name, parts = self._client, spec.full_name, seen.parts
        calls = {
            "association": ("detach the static address", client.disassociate_address, {"AssociationId": ""}),
            "address": ("release the static address", client.release_address, {"AllocationId": ""}),
        }
        ends = {
            "group": (f"delete the security group {name}", client.delete_security_group, {"GroupId": ""}),
            "key": (f"delete the key pair {name}", client.delete_key_pair, {"KeyName": ""}),
        }
        steps = [_removal(call, parts[part]) for part, call in calls.items() if part in parts]
        if seen.state in ("running", "pending", "stopped", "stopping"):
            terminate = partial(client.terminate_instances, InstanceIds=[seen.instance])
            steps.append(BoxStep(f"terminate the instance {seen.instance}, with its disk", terminate))
        elif seen.state:
            steps.append(BoxStep(f"the instance {seen.instance} is {seen.state}", None))
        return steps + [_removal(call, parts[part]) for part, call in ends.items() if part in parts]

    def host_keys(self, seen: BoxSeen) -> list[HostKey]:
        """Return the host keys that cloud-init printed on the console at the first boot."""
        with explained("reading the box's console"):
            try:
                answer = self._client.get_console_output(InstanceId=seen.instance, Latest=True)
            except Exception as error:
                if code_of(error) not in ("UnsupportedOperation", "InvalidParameterCombination"):
                    raise
                answer = self._client.get_console_output(InstanceId=seen.instance)
        return console_keys(answer.get("Output") or "")

    def _find_place(self, spec: BoxSpec) -> None:
        """Choose the default VPC's subnet in a zone that has the size."""
        where = f"EC2 in {spec.region}"
        filters = [{"Name": "instance-type", "Values": [spec.size]}]
        offers = self._client.describe_instance_type_offerings(LocationType="availability-zone", Filters=filters)
        zones = sorted(each["Location"] for each in offers["InstanceTypeOfferings"])
        if not zones:
            raise not_offered("size", spec.size, where, sorted(price_table()["hour"]))
        if spec.zone not in ("", *zones):
            raise not_offered(f"{spec.size} in the zone", spec.zone, where, zones)
        vpc = self._default_vpc()
        subnets = self._client.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]
        usable = {each["AvailabilityZone"]: each["SubnetId"] for each in subnets if each.get("DefaultForAz")}
        chosen = [zone for zone in zones if zone in usable and spec.zone in ("", zone)]
        if not chosen:
            raise NotConfigured(
                f"{where} has no default subnet in {spec.zone or f'a zone with {spec.size}'}",
                hint="aws ec2 create-default-subnet --availability-zone ZONE makes one",
            )
        self._vpc, self._subnet = vpc, usable[chosen[0]]

    def _default_vpc(self) -> str:
        filters = [{"Name": "is-default", "Values": ["true"]}]
        found = self._client.describe_vpcs(Filters=filters)["Vpcs"]
        if not found:
            raise NotConfigured(
                f"the account has no default VPC in {self._aws.region}", hint="aws ec2 create-default-vpc"
            )
        return str(found[0]["VpcId"])

    def _find_image(self, spec: BoxSpec) -> None:
        where = f"EC2 in {spec.region}"
        types = self._client.describe_instance_types(InstanceTypes=[spec.size])["InstanceTypes"]
        kinds = [each for each in types[0]["ProcessorInfo"]["SupportedArchitectures"] if each in _DEBIAN]
        if spec.image.startswith("ami-"):
            if not spec.user:
                raise NotConfigured(f"which user does the image {spec.image} have?", hint="box_user=NAME")
            images = self._client.describe_images(Filters=[{"Name": "image-id", "Values": [spec.image]}])["Images"]
        elif spec.image in _IMAGES and kinds:
            owner, pattern, _ = _IMAGES[spec.image]
            filters = [{"Name": "name", "Values": [pattern.format(debian=_DEBIAN[kinds[0]])]}]
            images = self._client.describe_images(Owners=[owner], Filters=filters)["Images"]
        else:
            raise not_offered("image", spec.image, where, [*_IMAGES, "ami-…"])
        images = [each for each in images if each["Architecture"] in kinds and each.get("State") == "available"]
        if not images:
            raise not_offered(f"image for {spec.size} ({', '.join(kinds)})", spec.image, where, [*_IMAGES, "ami-…"])
        newest = max(images, key=lambda each: str(each.get("CreationDate", "")))
        self._ami, self._root = newest["ImageId"], newest["RootDeviceName"]

    def _instances(self, filters: list[dict[str, Any]]) -> list[dict[str, Any]]:
        pages = self._client.get_paginator("describe_instances").paginate(Filters=filters)
        return [each for page in pages for group in page["Reservations"] for each in group["Instances"]]

    def _profile_of(self, spec: BoxSpec, instance: dict[str, Any]) -> str:
        """Return the name of the instance's profile, "" for none. It is asked for only where it matters."""
        if not (spec.metrics and instance):
            return ""
        filters = [{"Name": "instance-id", "Values": [instance["InstanceId"]]}]
        filters.append({"Name": "state", "Values": ["associating", "associated"]})
        with explained("asking for the instance's profile"):
            found = self._client.describe_iam_instance_profile_associations(Filters=filters)
        given = [each["IamInstanceProfile"]["Arn"] for each in found["IamInstanceProfileAssociations"]]
        return str(given[0]).rpartition("/")[2] if given else ""

    def _look_group(self, spec: BoxSpec, parts: dict[str, str]) -> tuple[str, ...]:
        filters = [{"Name": "group-name", "Values": [spec.full_name]}]
        found = self._client.describe_security_groups(Filters=filters)["SecurityGroups"]
        if not found:
            return ()
        group = found[0]
        if len(found) > 1 or not _is_ours(group, spec):
            raise Refused(f"the security group {spec.full_name} in {spec.region} is not this box's")
        parts["group"] = group["GroupId"]
        return tuple(sorted(rule for each in group["IpPermissions"] for rule in _rules(each)))

    def _look_key(self, spec: BoxSpec, parts: dict[str, str]) -> None:
        filters = [{"Name": "key-name", "Values": [spec.full_name]}]
        found = self._client.describe_key_pairs(Filters=filters)["KeyPairs"]
        if found and not _is_ours(found[0], spec):
            raise Refused(f"the key pair {spec.full_name} in {spec.region} is not this box's")
        if found:
            parts["key"] = spec.full_name
            tags = {each["Key"]: each["Value"] for each in found[0].get("Tags", [])}
            parts["key_is"] = tags.get(TAG_KEY, "")

    def _create_group(self, spec: BoxSpec) -> None:
        self._client.create_security_group(
            GroupName=spec.full_name,
            Description="Farmhand: ssh from the operator",
            VpcId=self._vpc or self._default_vpc(),
            TagSpecifications=_tags(spec, "security-group"),
        )

    def _open(self, spec: BoxSpec, seen: BoxSeen) -> None:
        group = seen.parts["group"]
        found = self._client.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
        wanted = set(spec.ssh_from)
        there = {rule.rpartition(" ")[2] for rule in seen.open_to if rule.startswith(f"tcp {SSH_PORT} from ")}
        new = [{"CidrIp": each, "Description": "ssh from the operator"} for each in sorted(wanted - there)]
        if new:
            ports = {"IpProtocol": "tcp", "FromPort": SSH_PORT, "ToPort": SSH_PORT}
            self._client.authorize_security_group_ingress(GroupId=group, IpPermissions=[{**ports, "IpRanges": new}])
        old = [rest for each in found if (rest := _beside(each, wanted))]
        if old:
            self._client.revoke_security_group_ingress(GroupId=group, IpPermissions=old)

    def _import(self, spec: BoxSpec) -> None:
        assert spec.key is not None  # noqa: S101 - apply reads it before
        self._client.import_key_pair(
            KeyName=spec.full_name,
            PublicKeyMaterial=spec.key.line.encode(),
            TagSpecifications=_tags(spec, "key-pair", {TAG_KEY: spec.key.short}),
        )

    def _create(self, spec: BoxSpec, seen: BoxSeen) -> None:
        assert spec.key is not None  # noqa: S101
        disk = {"VolumeSize": spec.disk_gb, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
        more = {TAG_KEY: spec.key.short, "farmhand:user": spec.user or _IMAGES[spec.image][2]}
        more |= {"farmhand:image": spec.image, "farmhand:disk-gb": str(spec.disk_gb)}
        # The same within an hour, and another after each instance that is gone: a call sent twice makes one instance.
        # Other values need another one: EC2 remembers those of a call that failed (IdempotentParameterMismatch).
        asked = f"{self._ami} {spec.size} {self._subnet} {self._root} {sorted(more.items())}"
        token = f"{seen.parts['group']} {seen.parts.get('gone', '')} {asked} {int(time.time()) // 3600}"
        self._client.run_instances(
            ImageId=self._ami,
            InstanceType=spec.size,
            KeyName=spec.full_name,
            MinCount=1,
            MaxCount=1,
            SubnetId=self._subnet,
            SecurityGroupIds=[seen.parts["group"]],
            ClientToken=hashlib.sha256(token.encode()).hexdigest(),
            BlockDeviceMappings=[{"DeviceName": self._root, "Ebs": disk}],
            MetadataOptions={"HttpTokens": "required", "HttpEndpoint": "enabled"},
            TagSpecifications=[*_tags(spec, "instance", more), *_tags(spec, "volume")],
        )


def _tags(spec: BoxSpec, kind: str, more: dict[str, str] | None = None) -> list[dict[str, Any]]:
    named = {"Name": spec.full_name} | spec.tags | (more or {})
    return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in named.items()]}]


def _is_ours(thing: dict[str, Any], spec: BoxSpec) -> bool:
    tags = {each["Key"]: each["Value"] for each in thing.get("Tags", [])}
    return not spec.tags.items() - tags.items()


def _removal(call: tuple[str, Any, dict[str, str]], value: str) -> BoxStep:
    what, function, named = call
    return BoxStep(what, lambda: function(**dict.fromkeys(named, value)))


def _sources(permission: dict[str, Any]) -> list[str]:
    return [
        *(each["CidrIp"] for each in permission.get("IpRanges", [])),
        *(each["CidrIpv6"] for each in permission.get("Ipv6Ranges", [])),
        *(each["PrefixListId"] for each in permission.get("PrefixListIds", [])),
        *(each["GroupId"] for each in permission.get("UserIdGroupPairs", [])),
    ]


def _rules(permission: dict[str, Any]) -> list[str]:
    first, last = permission.get("FromPort"), permission.get("ToPort")
    ports = "all" if permission["IpProtocol"] == "-1" else f"{permission['IpProtocol']} {first}"
    ports += "" if first == last else f"-{last}"
    return [f"{ports} from {each}" for each in _sources(permission)]


def _beside(permission: dict[str, Any], wanted: set[str]) -> dict[str, Any]:
    """Return the part of a permission that is not wanted, {} for none."""
    ssh = {"IpProtocol": "tcp", "FromPort": SSH_PORT, "ToPort": SSH_PORT}
    rest = {key: value for key, value in permission.items() if value or key in ssh}
    if all(permission.get(key) == value for key, value in ssh.items()):
        rest["IpRanges"] = [each for each in permission.get("IpRanges", []) if each["CidrIp"] not in wanted]
    return rest if _sources(rest) else {}
