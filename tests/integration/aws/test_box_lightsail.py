"""A box on Lightsail: made, kept, completed, refused, removed, against a stand-in that botocore's own model checks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws

from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured, Refused, UsageError
from tests.support.boxes import Workstation, key_line
from tests.support.lightsail import FakeLightsail, Refusal

NAME = "farmhand-try-farm1"
MADE = ["Instance farmhand-try-farm1", "StaticIp farmhand-try-farm1-address"]
KEYS = [key_line(2), key_line(3)]
#: The inventory's group of a box that was begun: nothing runs there.
UNFINISHED = '"farmhand_unfinished": {'


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLightsail]:
    fake = FakeLightsail(host_keys=KEYS, addresses=["198.51.100.7"])
    fake.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_LIGHTSAIL", fake.endpoint)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with mock_aws():
        yield fake
    fake.stop()


@pytest.fixture
def station(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workstation:
    monkeypatch.setenv("HOME", str(tmp_path))
    return Workstation(tmp_path)


def made(api: FakeLightsail, station: Workstation, **given: Any) -> dict[str, Any]:
    answer = station.make(**given)
    api.calls.clear()
    return answer


def test_it_is_made_closed_and_known(api: FakeLightsail, station: Workstation) -> None:
    station.known_hosts.write_text("198.51.100.7 ssh-rsa AAAAold\nother ssh-rsa AAAAother\n")

    answer = station.make(size="medium_3_0")

    assert answer["changed"] is answer["ready"] is True
    assert api.names() == MADE
    box = api.instance(NAME)
    assert [(each["fromPort"], each["toPort"], each["cidrs"]) for each in box["_ports"]] == [
        (22, 22, ["203.0.113.7/32"])
    ]
    assert not any(each["ipv6Cidrs"] or each["cidrListAliases"] for each in box["_ports"])
    create = next(given for action, given in api.calls if action == "CreateInstances")
    assert create["ipAddressType"] == "ipv4"
    assert key_line(1) in create["userData"]
    assert {"key": "farmhand:environment", "value": "try"} in create["tags"]
    expected = "other ssh-rsa AAAAother\n" + "".join(f"198.51.100.7 {key}\n" for key in KEYS)
    assert station.known_hosts.read_text() == expected
    host = json.loads(station.record.read_text().split("\n", 2)[2])["farm"]["hosts"]["farm1"]
    assert (host["ansible_host"], host["ansible_user"]) == ("198.51.100.7", "admin")
    assert host["ansible_ssh_private_key_file"] == str(station.ssh / "id_ed25519")
    assert not [text for text in station.said if "login" in text]
    assert "a login" not in json.dumps(answer)


def test_what_metrics_need_on_lightsail_is_said_plainly(api: FakeLightsail, station: Workstation) -> None:
    for check in (True, False):
        answer = station.make(check=check, cloudwatch=True)
        assert "can have no role: give it a key that may only call PutMetricData" in answer["left_to_do"]
        assert station.said.count(answer["left_to_do"]) == 1
        station.said.clear()
    assert station.make()["left_to_do"] == ""


def test_the_price_is_the_providers_own(api: FakeLightsail, station: Workstation) -> None:
    answer = station.make(check=True)

    assert answer["usd_month"] == "24.00"
    assert "US$ 24.00 a month: medium_3_0" in answer["price"]
    assert "GetBundles" in answer["price"]
    assert api.changes() == []


def test_check_mode_says_every_step_and_makes_none(api: FakeLightsail, station: Workstation) -> None:
    before = station.files()

    answer = station.make(check=True)

    assert answer["changed"] is True
    assert [step.split()[0] for step in answer["steps"]] == ["make", "open", "take", "attach"]
    assert (api.changes(), station.files()) == ([], before)
    station.make()
    assert [text for text in station.said if not text.startswith("write")] == answer["steps"]


def test_a_second_run_changes_nothing_and_needs_only_the_name(api: FakeLightsail, station: Workstation) -> None:
    made(api, station, ssh_from=["203.0.113.7/32", "198.51.100.0/24"], size="large_3_0")
    before = station.files()
    times = {path: path.stat().st_mtime_ns for path in (station.record, station.known_hosts)}

    answer = station.make(ssh_from=None)
    checked = station.make(check=True, ssh_from=None)

    assert (answer["changed"], checked["changed"]) == (False, False)
    assert checked["diff"][0]["before"] == checked["diff"][0]["after"]
    assert (api.changes(), station.files()) == ([], before)
    assert times == {path: path.stat().st_mtime_ns for path in times}


@pytest.mark.parametrize(
    "at", ["PutInstancePublicPorts", "AllocateStaticIp", "AttachStaticIp", "GetInstanceAccessDetails"]
)
def test_a_run_that_was_cut_off_is_completed_by_the_next(api: FakeLightsail, station: Workstation, at: str) -> None:
    api.fail[at] = [Refusal("ServiceException", "cut off")]

    with pytest.raises(FarmhandError, match="cut off"):
        station.make()
    assert UNFINISHED in station.record.read_text()
    assert not station.known_hosts.exists()
    answer = station.make(ssh_from=None)  # what was asked for is in the record

    assert (answer["ready"], api.names()) == (True, MADE)
    assert len([action for action in api.changes() if action == "CreateInstances"]) == 1


def test_what_was_changed_by_hand_is_put_right(api: FakeLightsail, station: Workstation) -> None:
    made(api, station)
    box = api.instance(NAME)
    box["_ports"].append({"fromPort": 80, "toPort": 80, "protocol": "tcp", "ipv6Cidrs": ["::/0"], "state": "open"})
    address = api.things["us-east-1", "StaticIp", f"{NAME}-address"]
    address["isAttached"] = False
    del address["attachedTo"]
    box["state"]["name"] = "stopped"

    answer = station.make()

    assert api.changes() == ["StartInstance", "PutInstancePublicPorts", "AttachStaticIp"]
    assert "80 from ::/0" in answer["diff"][0]["before"]
    assert "80" not in answer["diff"][0]["after"].replace("198.51.100", "")


@pytest.mark.parametrize(("state", "changes"), [("stopping", ["StartInstance"]), ("pending", [])])
def test_a_check_waits_for_nothing_and_predicts_what_the_wait_leads_to(
    api: FakeLightsail, station: Workstation, state: str, changes: list[str]
) -> None:
    """An instance that stops is started once it has stopped: by a run, and never by a check."""
    made(api, station)
    before = station.files()
    for check in (True, False):
        api.instance(NAME).update(state={"code": 0, "name": state}, _looks=1)
        answer = station.make(check=check)
        assert answer["changed"] is bool(changes)
        assert (api.changes(), station.files()) == ([] if check else changes, before)


def test_another_address_of_the_operator_replaces_the_old_one(api: FakeLightsail, station: Workstation) -> None:
    made(api, station)

    answer = station.make(ssh_from=["203.0.113.99/32"])

    assert api.changes() == ["PutInstancePublicPorts"]
    assert answer["steps"] == ["open tcp 22 from 203.0.113.99/32 and nothing else"]
    assert api.instance(NAME)["_ports"][0]["cidrs"] == ["203.0.113.99/32"]


def test_host_keys_that_come_late_are_awaited(api: FakeLightsail, station: Workstation) -> None:
    api.blind = 5
    station.make()
    assert KEYS[0] in station.known_hosts.read_text()


def test_without_host_keys_nothing_is_written(api: FakeLightsail, station: Workstation) -> None:
    api.blind = 10**6
    before = station.files()

    with pytest.raises(FarmUnreachable, match=r"knew no host key of the box for 3 s .*never taken"):
        station.make(wait_s=3)

    assert UNFINISHED in station.record.read_text()
    station.record.unlink()
    assert station.files() == before


def test_keys_that_the_api_has_forgotten_are_those_of_the_record(api: FakeLightsail, station: Workstation) -> None:
    made(api, station)
    station.known_hosts.unlink()
    api.blind = 10**6

    answer = station.make()

    assert [change["after_header"] for change in answer["diff"][1:]] == [str(station.known_hosts)]
    assert KEYS[1] in station.known_hosts.read_text()


def test_a_key_that_is_not_what_its_fingerprint_says_is_refused(api: FakeLightsail, station: Workstation) -> None:
    api.host_keys = [KEYS[0][:-8]]
    with pytest.raises(Refused, match="host key ssh-ed25519 that is none"):
        station.make()
    assert UNFINISHED in station.record.read_text()


def test_an_instance_that_stays_pending_ends_the_wait(api: FakeLightsail, station: Workstation) -> None:
    api.pending = 10**6
    with pytest.raises(FarmUnreachable, match=r"the instance farmhand-try-farm1 is pending for more than 0\.2 s"):
        station.make(wait_s=0.2)
    assert UNFINISHED in station.record.read_text()


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        ({"name": "Farm 1"}, UsageError, "cannot name a box"),
        ({"name": ""}, UsageError, "cannot name a box"),
        ({"name": "hosts"}, UsageError, "cannot name a box"),
        ({"ssh_from": None}, UsageError, "box_ssh_from is missing.*checkip"),
        ({"ssh_from": ["0.0.0.0/0"]}, UsageError, "would let 4294967296 addresses in"),
        ({"ssh_from": ["203.0.113.7/24"]}, UsageError, "has host bits set"),
        ({"ssh_from": ["192.168.1.5/32"]}, UsageError, "private network"),
        ({"ssh_from": ["2001:db8::/32"]}, UsageError, "no IPv6 address"),
        ({"region": "mars-1"}, NotConfigured, "lightsail has no region 'mars-1'"),
        ({"zone": "us-east-1z"}, NotConfigured, "no zone 'us-east-1z'.*us-east-1a"),
        ({"zone": "eu-west-1a"}, UsageError, "not in the region"),
        ({"size": "huge_9_0"}, NotConfigured, "no size 'huge_9_0'.*medium_3_0"),
        ({"size": "nano_ipv6_3_0"}, NotConfigured, "no size 'nano_ipv6_3_0'"),
        ({"image": "debian_9"}, NotConfigured, "no image 'debian_9'.*debian_12"),
        ({"image": "big_1"}, Refused, "needs a larger size"),
        ({"usd_month": "much"}, UsageError, "not an amount"),
        ({"public_key": "~/.ssh/id_ed25519"}, NotConfigured, "not opened: its name does not end in .pub"),
        ({"public_key": "~/.ssh/none.pub"}, NotConfigured, "cannot be read: No such file"),
        ({"names": ("farm1",)}, Refused, "has a host farm1 already"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(
    api: FakeLightsail, station: Workstation, given: dict[str, Any], kind: type[FarmhandError], says: str
) -> None:
    before = station.files()
    with pytest.raises(kind, match=says) as caught:
        station.make(**given)
    assert "\n" not in str(caught.value)
    assert (api.changes(), api.names(), station.files()) == ([], [], before)


@pytest.mark.parametrize(
    "text", ["-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "", key_line(1)[:-9], f"{key_line(1)}\n{key_line(2)}\n"]
)
def test_a_file_that_is_not_one_public_key(api: FakeLightsail, station: Workstation, text: str) -> None:
    station.public.write_text(text)
    with pytest.raises(NotConfigured, match="is not one public key of OpenSSH"):
        station.make()
    assert api.calls == []


def test_a_name_that_is_taken_is_left_alone(api: FakeLightsail, station: Workstation) -> None:
    made(api, station)
    station.record.unlink()
    api.instance(NAME)["tags"] = [{"key": "farmhand:environment", "value": "prod"}]

    for state in ("present", "absent"):
        with pytest.raises(Refused, match="is taken by an instance in us-east-1 that is not this box"):
            station.make(state=state)

    assert (api.changes(), api.names()) == ([], MADE)


def test_another_size_or_key_does_not_replace_the_box(api: FakeLightsail, station: Workstation) -> None:
    made(api, station)
    with pytest.raises(Refused, match="has the size medium_3_0, not large_3_0"):
        station.make(size="large_3_0")
    station.public.write_text(key_line(9))
    with pytest.raises(Refused, match=r"has the key .* cannot be changed in place"):
        station.make()
    assert api.changes() == []


def test_a_quota_is_one_line(api: FakeLightsail, station: Workstation) -> None:
    message = "You have reached the maximum number of instances\n for this account"
    api.fail["CreateInstances"] = [Refusal("InvalidInputException", message)]
    with pytest.raises(FarmhandError, match=r"make the instance .*: InvalidInputException: You have reached") as caught:
        station.make()
    assert "\n" not in str(caught.value)
    assert not station.record.exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"image": "ubuntu_24_04"}, "has the box_image debian_12, not ubuntu_24_04"),
        ({"zone": "us-east-1b"}, "has the box_zone us-east-1a, not us-east-1b"),
        ({"disk_gb": 80}, "has the box_disk_gb 40, not 80"),
    ],
)
def test_what_cannot_be_changed_in_place_is_refused_and_not_recorded(
    api: FakeLightsail, station: Workstation, given: dict[str, Any], says: str
) -> None:
    made(api, station)
    before = station.files()
    with pytest.raises(Refused, match=f"{says}, and that cannot be changed in place"):
        station.make(**given)
    assert (station.files(), api.changes()) == (before, [])


def test_a_disk_of_nothing_is_not_the_usual_disk(api: FakeLightsail, station: Workstation) -> None:
    with pytest.raises(NotConfigured, match="box_disk_gb 0 is not 8 to 16384"):
        station.make(disk_gb=0)


def test_files_that_cannot_be_written_are_found_before_anything_is_made(
    api: FakeLightsail, station: Workstation
) -> None:
    pipe = station.home / "pipe"
    os.mkfifo(pipe)
    (station.home / "file").touch()
    odd = {
        str(pipe): "is not a regular file",
        str(station.ssh): "is not a regular file",
        str(station.home / "file/known_hosts"): "file/known_hosts cannot be",
    }
    for name, says in odd.items():
        for check in (True, False):
            with pytest.raises(NotConfigured, match=says):
                station.make(known_hosts_file=name, check=check)
    with pytest.raises(NotConfigured, match=r"farm1\.yml cannot be"):
        station.make(inventory_dir=str(station.home / "file"))
    assert (api.changes(), station.record.exists(), pipe.is_fifo()) == ([], False, True)


def test_a_known_hosts_file_that_is_a_link_stays_one(api: FakeLightsail, station: Workstation) -> None:
    """Its other lines stay as they are, whatever bytes they have."""
    kept = station.home / "dotfiles"
    others = b"old ssh-rsa AAAA caf\xe9\r\n# \xe2\x80\xa8\n"
    kept.write_bytes(others)
    station.known_hosts.symlink_to(kept)
    answer = made(api, station)
    assert station.known_hosts.is_symlink()
    assert kept.read_bytes() == others + "".join(f"198.51.100.7 {key}\n" for key in KEYS).encode()
    json.dumps(answer, ensure_ascii=False).encode()  # Ansible's output is UTF-8


def test_a_right_that_is_missing_is_one_line_with_the_statement(api: FakeLightsail, station: Workstation) -> None:
    arn = "arn:aws:lightsail:us-east-1:966509639900:Instance/6468d7ef"
    message = (
        "User: arn:aws:sts::966509639900:assumed-role/x is not authorized to perform: lightsail:PutInstancePublicPorts "
        f"on resource: {arn} because no identity-based policy allows the lightsail:PutInstancePublicPorts action"
    )
    api.fail["PutInstancePublicPorts"] = [Refusal("AccessDeniedException", message)]
    with pytest.raises(NotConfigured, match=f'"Action": "lightsail:PutInstancePublicPorts", "Resource": "{arn}"'):
        station.make()
    assert UNFINISHED in station.record.read_text()


def test_one_name_is_in_one_region(api: FakeLightsail, station: Workstation) -> None:
    made(api, station)
    with pytest.raises(Refused, match="farm1 is on lightsail in us-east-1, not on eu-west-1"):
        station.make(region="eu-west-1")
    with pytest.raises(Refused, match="not on ec2"):
        station.make(provider="ec2")
    station.region = "eu-west-1"  # the record wins over the setting
    assert station.make()["changed"] is False
    answer = station.make(name="farm2")
    assert (answer["region"], api.names()) == ("eu-west-1", sorted([*MADE, *(each.replace("1", "2") for each in MADE)]))


def test_a_file_of_the_operators_is_not_overwritten(api: FakeLightsail, station: Workstation) -> None:
    station.record.write_text("farm:\n  hosts:\n    farm1:\n")
    for state in ("present", "absent"):
        with pytest.raises(Refused, match="was not written by playbooks/box"):
            station.make(state=state)
    assert api.calls == []


def test_the_stand_in_refuses_what_the_service_would() -> None:
    fake = FakeLightsail()
    for action, given in (
        ("GetInstance", {"name": "x"}),
        ("CreateInstances", {"instanceNames": ["x"], "availabilityZone": "us-east-1a", "bundleId": "nano_3_0"}),
        ("PutInstancePublicPorts", {"instanceName": "x1", "portInfos": [{"protocol": "ssh"}]}),
        ("GetInstanceAccessDetails", {"instanceName": "x1", "protocol": "telnet"}),
    ):
        status, answer = fake.answer(action, given, "us-east-1")
        assert (status, answer["__type"]) == (400, "InvalidInputException")
    assert fake.calls == []
