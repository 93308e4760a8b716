"""A box on EC2: made, kept, completed, refused, removed, against moto, whose console says what cloud-init prints."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.ec2.models import amis
from moto.ec2.responses import general

from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured, Refused
from tests.support.boxes import Workstation, key_line

NAME = "farmhand-try-farm1"
CONSOLE = """[   11.2] cloud-init[712]: Cloud-init v. 22.4.2 finished\r
<14>Apr  9 22:06:30 ec2: -----BEGIN SSH HOST KEY FINGERPRINTS-----\r
<14>Apr  9 22:06:30 ec2: 256 SHA256:KgQxOfmozd6b1vKFEbCHhu95dyUUfG3HW8eaWCaqLZc root@debian (ED25519)\r
<14>Apr  9 22:06:30 ec2: -----END SSH HOST KEY FINGERPRINTS-----\r
-----BEGIN SSH HOST KEY KEYS-----\r
{keys}
-----END SSH HOST KEY KEYS-----\r
debian login: """
KEYS = [key_line(2), key_line(3)]
#: The calls that change nothing.
_LOOKS = ("Describe", "Get")


def image(number: int, architecture: str = "x86_64", day: str = "2026-05-01") -> dict[str, Any]:
    """An image of Debian as its publisher offers it."""
    arch = {"x86_64": "amd64", "arm64": "arm64"}[architecture]
    return {
        **amis.AMIS[0],
        "ami_id": f"ami-{number:08x}",
        "name": f"debian-12-{arch}-{day.replace('-', '')}-1",
        "owner_id": "136693071363",
        "architecture": architecture,
        "state": "available",
        "creation_date": f"{day}T00:00:00.000Z",
        "root_device_name": "/dev/xvda",
        "public": True,
    }


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The calls of EC2 that were made, in order."""
    images = [image(1), image(2, day="2026-06-01"), image(3, "arm64")]
    # With some of moto's own images; it has 1,300, and makes all of them for each test.
    monkeypatch.setattr(amis, "AMIS", [*amis.AMIS[:20], *images])
    monkeypatch.setenv("MOTO_AMIS_PATH", "these alone")
    console(monkeypatch, KEYS)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "true")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    made: list[str] = []
    before = boto3.Session.client

    def client(session: Any, *args: Any, **named: Any) -> Any:
        found = before(session, *args, **named)
        found.meta.events.register("before-call.ec2", lambda model, **_: made.append(model.name))
        return found

    with mock_aws():
        monkeypatch.setattr(boto3.Session, "client", client)
        yield made


@pytest.fixture
def station(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workstation:
    monkeypatch.setenv("HOME", str(tmp_path))
    return Workstation(tmp_path)


@pytest.fixture
def ec2(calls: list[str]) -> Any:
    return boto3.client("ec2", region_name="us-east-1")


def console(monkeypatch: pytest.MonkeyPatch, keys: list[str]) -> None:
    text = CONSOLE.format(keys="\n".join(f"{key} root@debian\r" for key in keys))
    monkeypatch.setattr(general, "SAMPLE_CONSOLE_OUTPUT", text)


def make(station: Workstation, **given: Any) -> dict[str, Any]:
    return station.make(provider="ec2", **given)


def changes(calls: list[str]) -> list[str]:
    return [call for call in calls if not call.startswith(_LOOKS)]


def boxes(ec2: Any) -> list[dict[str, Any]]:
    found = [each for group in ec2.describe_instances()["Reservations"] for each in group["Instances"]]
    return [each for each in found if each["State"]["Name"] != "terminated"]


def test_it_is_made_closed_and_known(ec2: Any, calls: list[str], station: Workstation) -> None:
    answer = make(station)

    (box,) = boxes(ec2)
    tags = {each["Key"]: each["Value"] for each in box["Tags"]}
    assert (tags["farmhand:environment"], tags["farmhand:box"], tags["Name"]) == ("try", "farm1", NAME)
    assert (box["ImageId"], box["InstanceType"], box["State"]["Name"]) == ("ami-00000002", "t3.medium", "running")
    (group,) = ec2.describe_security_groups(GroupNames=[NAME])["SecurityGroups"]
    (rule,) = group["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"], [each["CidrIp"] for each in rule["IpRanges"]]) == (
        22,
        22,
        ["203.0.113.7/32"],
    )
    assert [each["GroupId"] for each in box["SecurityGroups"]] == [group["GroupId"]]
    (address,) = ec2.describe_addresses()["Addresses"]
    assert (address["InstanceId"], address["PublicIp"]) == (box["InstanceId"], answer["address"])
    (pair,) = ec2.describe_key_pairs(KeyNames=[NAME], IncludePublicKey=True)["KeyPairs"]
    assert key_line(1) in pair["PublicKey"]
    assert changes(calls)[:2] == ["CreateSecurityGroup", "AuthorizeSecurityGroupIngress"]  # before the instance
    assert station.known_hosts.read_text() == "".join(f"{answer['address']} {key}\n" for key in KEYS)
    host = json.loads(station.record.read_text().split("\n", 2)[2])["farm"]["hosts"]["farm1"]
    assert (host["ansible_host"], host["ansible_user"]) == (answer["address"], "admin")


def test_check_mode_says_price_and_steps_and_makes_nothing(ec2: Any, calls: list[str], station: Workstation) -> None:
    before = station.files()

    answer = make(station, check=True, disk_gb=100)

    assert (changes(calls), boxes(ec2), station.files()) == ([], [], before)
    # 0.0416 * 730 + 100 * 0.08 + 0.005 * 730
    assert answer["usd_month"] == "42.02"
    assert "t3.medium 30.37, 100 GB disk 8.00, static address 3.65 (aws.amazon.com/ec2/pricing" in answer["price"]
    make(station, disk_gb=100)
    assert [text for text in station.said if not text.startswith("write")] == answer["steps"]


def test_a_second_run_changes_nothing_even_with_an_empty_console(
    ec2: Any, calls: list[str], station: Workstation, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(station)
    calls.clear()
    before = station.files()
    monkeypatch.setattr(general, "SAMPLE_CONSOLE_OUTPUT", "")

    answers = [station.make(), station.make(check=True)]

    assert [answer["changed"] for answer in answers] == [False, False]
    assert (changes(calls), station.files()) == ([], before)


def test_an_arm_size_gets_an_arm_image(ec2: Any, station: Workstation) -> None:
    make(station, size="t4g.medium")
    assert boxes(ec2)[0]["ImageId"] == "ami-00000003"


@pytest.mark.parametrize(
    "text",
    [
        "",
        CONSOLE.format(keys=KEYS[0])[:-60],  # the end of the block is not there yet
        CONSOLE.format(keys=f"{KEYS[0][:60]}[   12.5] random: crng init done {KEYS[0][60:]}"),
        CONSOLE.split("-----BEGIN SSH HOST KEY KEYS-----")[0],
    ],
)
def test_a_console_without_whole_keys_is_awaited_and_nothing_is_written(
    ec2: Any, station: Workstation, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(general, "SAMPLE_CONSOLE_OUTPUT", text)
    before = station.files()

    with pytest.raises(FarmUnreachable, match="ec2's API knew no host key"):
        make(station, wait_s=1)
    assert '"farmhand_unfinished": {' in station.record.read_text()
    station.record.unlink()
    assert station.files() == before
    console(monkeypatch, KEYS)
    make(station)

    assert len(boxes(ec2)) == 1
    assert KEYS[0] in station.known_hosts.read_text()


def test_the_firewall_is_put_right(ec2: Any, calls: list[str], station: Workstation) -> None:
    make(station)
    (group,) = ec2.describe_security_groups(GroupNames=[NAME])["SecurityGroups"]
    wide = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    more = [
        {**wide, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
        {**wide, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]},
        {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "198.51.100.0/24"}]},
    ]
    ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=more)
    calls.clear()

    answer = station.make(ssh_from=["203.0.113.8/32"])

    assert changes(calls) == ["AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress"]
    (after,) = ec2.describe_security_groups(GroupNames=[NAME])["SecurityGroups"]
    sources = [each["CidrIp"] for rule in after["IpPermissions"] for each in rule["IpRanges"]]
    assert (sources, [rule["Ipv6Ranges"] for rule in after["IpPermissions"]]) == (["203.0.113.8/32"], [[]])
    assert "all from 198.51.100.0/24" in answer["diff"][0]["before"]


@pytest.mark.parametrize("at", ["AuthorizeSecurityGroupIngress", "ImportKeyPair", "RunInstances", "AssociateAddress"])
def test_a_run_that_was_cut_off_is_completed_by_the_next(
    ec2: Any, calls: list[str], station: Workstation, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    class CutOffError(Exception):
        pass

    def cut(model: Any, **_: Any) -> None:
        if model.name == at:
            raise CutOffError

    before = boto3.Session.client

    def client(session: Any, *args: Any, **named: Any) -> Any:
        found = before(session, *args, **named)
        found.meta.events.register("before-call.ec2", cut)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(boto3.Session, "client", client)
        with pytest.raises(CutOffError):
            make(station)
    assert '"farmhand_unfinished": {' in station.record.read_text()

    assert make(station)["ready"] is True
    assert len(boxes(ec2)) == len(ec2.describe_addresses()["Addresses"]) == 1


def test_another_key_before_the_instance_is_there_replaces_the_pair(ec2: Any, station: Workstation) -> None:
    tags = {"Name": NAME, "farmhand:environment": "try", "farmhand:box": "farm1", "farmhand:ssh-key": "another"}
    specification = {"ResourceType": "key-pair", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
    ec2.import_key_pair(KeyName=NAME, PublicKeyMaterial=key_line(9).encode(), TagSpecifications=[specification])

    make(station)

    (pair,) = ec2.describe_key_pairs(KeyNames=[NAME], IncludePublicKey=True)["KeyPairs"]
    assert key_line(1) in pair["PublicKey"]


def test_the_same_call_has_the_same_token_and_another_has_not(
    ec2: Any, station: Workstation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EC2 remembers the values of a call that failed, and refuses others with its token."""
    tokens: list[str] = []

    def none(_self: object, operation: str, given: dict[str, Any]) -> Any:
        if operation == "RunInstances":
            tokens.append(given["ClientToken"])
            answer = {"Error": {"Code": "InsufficientInstanceCapacity", "Message": "none"}}
            raise ClientError(answer, operation)
        return before(_self, operation, given)

    before = BaseClient._make_api_call
    monkeypatch.setattr(BaseClient, "_make_api_call", none)
    monkeypatch.setattr("time.time", lambda: 1e9)
    for size in ("t3.medium", "t3.medium", "t3.large"):
        with pytest.raises(FarmhandError, match="InsufficientInstanceCapacity"):
            make(station, size=size)
    assert tokens[0] == tokens[1] != tokens[2]


def test_another_image_or_disk_is_refused_without_a_record_too(ec2: Any, station: Workstation) -> None:
    make(station)
    station.record.unlink()
    for given, says in (({"image": "debian-13"}, "box_image debian-12, not"), ({"disk_gb": 80}, "box_disk_gb 40, not")):
        with pytest.raises(Refused, match=says):
            make(station, **given)


def test_stopped_is_started_and_terminated_is_made_again(ec2: Any, station: Workstation) -> None:
    make(station)
    (first,) = boxes(ec2)
    ec2.stop_instances(InstanceIds=[first["InstanceId"]])
    assert "start the instance" in station.make()["steps"][0]
    ec2.terminate_instances(InstanceIds=[first["InstanceId"]])

    station.make()

    (second,) = boxes(ec2)
    assert second["InstanceId"] != first["InstanceId"]


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        ({"size": "t9.huge"}, NotConfigured, "no price of t9.huge is known.*box_usd_month"),
        ({"size": "t9.huge", "usd_month": "10"}, NotConfigured, "EC2 in us-east-1 has no size 't9.huge'"),
        ({"zone": "us-east-1z"}, NotConfigured, "has no t3.medium in the zone 'us-east-1z'.*us-east-1a"),
        ({"image": "debian-9"}, NotConfigured, "no image 'debian-9'.*debian-12"),
        ({"image": "ubuntu-24.04"}, NotConfigured, r"no image for t3.medium \(x86_64\) 'ubuntu-24.04'"),
        ({"image": "ami-00000003"}, NotConfigured, "which user does the image"),
        ({"image": "ami-00000003", "user": "admin"}, NotConfigured, "no image for t3.medium"),
        ({"disk_gb": 4}, NotConfigured, "box_disk_gb 4 is not 8 to 16384"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(
    calls: list[str], station: Workstation, given: dict[str, Any], kind: type[FarmhandError], says: str
) -> None:
    before = station.files()
    with pytest.raises(kind, match=says):
        make(station, **given)
    assert (changes(calls), station.files()) == ([], before)


def test_a_kind_of_key_that_ec2_does_not_take(calls: list[str], station: Workstation) -> None:
    fields = (b"ecdsa-sha2-nistp256", b"nistp256", b"\x04" + bytes(64))
    blob = base64.b64encode(b"".join(len(each).to_bytes(4, "big") + each for each in fields)).decode()
    station.public.write_text(f"ecdsa-sha2-nistp256 {blob}\n")
    with pytest.raises(NotConfigured, match="EC2 takes no key of the kind ecdsa-sha2-nistp256"):
        make(station)
    assert changes(calls) == []


def test_without_a_default_vpc(ec2: Any, calls: list[str], station: Workstation) -> None:
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    (vpc,) = ec2.describe_vpcs()["Vpcs"]
    ec2.delete_vpc(VpcId=vpc["VpcId"])
    calls.clear()
    with pytest.raises(NotConfigured, match=r"no default VPC in us-east-1 .*create-default-vpc"):
        make(station)
    assert changes(calls) == []


def test_what_is_not_ours_is_left_alone(ec2: Any, calls: list[str], station: Workstation) -> None:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": NAME}]}]
    ec2.run_instances(ImageId="ami-00000001", MinCount=1, MaxCount=1, TagSpecifications=tags)
    calls.clear()
    for state in ("present", "absent"):
        with pytest.raises(Refused, match="is taken by an instance in us-east-1"):
            make(station, state=state)
    ec2.terminate_instances(InstanceIds=[boxes(ec2)[0]["InstanceId"]])
    ec2.create_security_group(GroupName=NAME, Description="another's")
    calls.clear()
    with pytest.raises(Refused, match=r"the security group .* is not this box's"):
        make(station)
    assert changes(calls) == []


def test_a_quota_is_one_line(station: Workstation, monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> None:
    from botocore.exceptions import ClientError

    from farmhand.aws.boxes.ec2 import Ec2

    def full(*_: Any) -> None:
        error = {"Code": "VcpuLimitExceeded", "Message": "You have requested more vCPU capacity\nthan your limit of 1"}
        raise ClientError({"Error": error}, "RunInstances")

    monkeypatch.setattr(Ec2, "_create", full)
    with pytest.raises(Refused, match=r"a quota of the account is reached: .* vCPU capacity than") as caught:
        make(station)
    assert "\n" not in str(caught.value)


def test_it_is_removed_with_all_that_belongs_to_it(ec2: Any, calls: list[str], station: Workstation) -> None:
    make(station)
    calls.clear()

    checked = station.make(state="absent", check=True)
    assert changes(calls) == []
    answer = station.make(state="absent")

    assert checked["steps"] == answer["steps"]
    ends = ["DisassociateAddress", "ReleaseAddress", "TerminateInstances", "DeleteSecurityGroup", "DeleteKeyPair"]
    assert changes(calls) == ends
    assert (boxes(ec2), ec2.describe_addresses()["Addresses"], station.record.exists()) == ([], [], False)
    assert station.make(state="absent", provider="ec2")["changed"] is False


def test_a_security_group_that_is_still_in_use_is_awaited(
    ec2: Any, calls: list[str], station: Workstation, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(station)
    from moto.ec2.exceptions import DependencyViolationError
    from moto.ec2.models import EC2Backend

    before, tries = EC2Backend.delete_security_group, []

    def busy(self: Any, *args: Any, **named: Any) -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise DependencyViolationError("resource sg has a dependent object")
        return before(self, *args, **named)

    monkeypatch.setattr(EC2Backend, "delete_security_group", busy)
    station.make(state="absent")
    assert len(tries) == 3
