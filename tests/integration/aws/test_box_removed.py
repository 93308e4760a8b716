"""The end of a box on Lightsail: removed by the command or by hand, with all that knows it."""

from __future__ import annotations

import json

import pytest

from farmhand.core.errors import FarmhandError
from tests.integration.aws.test_box_lightsail import NAME, api, made, station
from tests.support.boxes import Workstation, key_line
from tests.support.lightsail import FakeLightsail, Refusal

__all__ = ["api", "station"]


def test_a_box_that_was_begun_elsewhere_is_not_lost(api: FakeLightsail, station: Workstation) -> None:
    """It costs money where it is, though a later run gives only its name."""
    api.fail["AllocateStaticIp"] = [Refusal("InvalidInputException", "your maximum limit of Static Ips")]
    with pytest.raises(FarmhandError, match="maximum limit"):
        station.make(region="eu-west-1")

    assert station.make(state="absent", ssh_from=None)["steps"] == [f"delete the instance {NAME} with its disk"]

    assert (api.names(), station.record.exists()) == ([], False)


def test_it_is_removed_with_all_that_knows_it(api: FakeLightsail, station: Workstation) -> None:
    station.known_hosts.write_text("other ssh-rsa AAAAother\n")
    made(api, station)
    hosts = station.home / "hosts.json"
    entries = {"farm1": {"address": "198.51.100.7"}, "farm9": {"address": "192.0.2.9"}}
    hosts.write_text(json.dumps({"hosts": entries}))

    checked = station.make(state="absent", check=True)
    assert (api.changes(), checked["changed"]) == ([], True)
    answer = station.make(state="absent")

    assert checked["steps"] == answer["steps"]
    assert api.changes() == ["DetachStaticIp", "ReleaseStaticIp", "DeleteInstance"]
    assert (api.names(), station.record.exists()) == ([], False)
    assert station.known_hosts.read_text() == "other ssh-rsa AAAAother\n"
    assert json.loads(hosts.read_text()) == {"hosts": {"farm9": {"address": "192.0.2.9"}}}
    assert station.make(state="absent")["changed"] is False


def test_what_was_removed_by_hand_is_absent(api: FakeLightsail, station: Workstation) -> None:
    made(api, station)
    api.things.clear()

    answer = station.make(state="absent")

    assert (answer["steps"], answer["changed"], station.record.exists()) == ([], True, False)
    assert station.known_hosts.read_text() == ""


def test_a_box_that_was_removed_by_hand_is_made_again_with_its_new_keys(
    api: FakeLightsail, station: Workstation
) -> None:
    made(api, station)
    api.things.clear()
    api.addresses, api.host_keys, api.blind = ["198.51.100.8"], [key_line(8)], 3

    station.make()

    assert station.known_hosts.read_text() == f"198.51.100.8 {key_line(8)}\n"
