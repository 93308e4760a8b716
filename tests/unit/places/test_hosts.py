from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from farmhand.core.errors import NotConfigured
from farmhand.places.hosts import Host, candidates, choose_host, load_hosts
from farmhand.wire.transport import SshTransport


def test_what_site_yml_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "hosts.json"
    entry: dict[str, Any] = {
        "address": "10.0.0.7",
        "port": 2222,
        "user": "farmhand",
        "identity_file": "/k",
        "known_hosts_file": None,
        "options": ["ProxyJump=bastion"],
        "ssh_config": None,
    }
    path.write_text(json.dumps({"hosts": {"farm1": {**entry, "later": 1}, "farm2": {"address": "f2"}}}))
    hosts = load_hosts(path)
    assert hosts == {
        "farm1": Host(name="farm1", **{**entry, "options": ("ProxyJump=bastion",)}),
        "farm2": Host(name="farm2", address="f2"),
    }
    transport = hosts["farm2"].transport(3.0)
    assert isinstance(transport, SshTransport)
    assert transport.host[:4] == ("farm2", "f2", 0, "farmhand")
    assert transport.connect_timeout_s == 3.0


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "not JSON"),
        ("[]", "no object 'hosts'"),
        pytest.param("[" * 200_000, "not JSON", id="deep"),
        ({"hosts": []}, "no object 'hosts'"),
        ({"hosts": {"a": 1}}, "host 'a' is not an object"),
        ({"hosts": {"a": {}}}, "address is missing"),
        ({"hosts": {"a": {"address": ""}}}, "address is ''"),
        ({"hosts": {"a": {"address": "x", "port": "22"}}}, "port is '22'"),
        ({"hosts": {"a": {"address": "x", "port": True}}}, "port is True"),
        ({"hosts": {"a": {"address": "x", "port": 0}}}, "port is 0"),
        ({"hosts": {"a": {"address": "x", "user": None}}}, "user is None"),
        ({"hosts": {"a": {"address": "x", "options": "ProxyJump=b"}}}, "options is 'ProxyJump=b'"),
        ({"hosts": {"a": {"address": "x", "options": [1]}}}, "options: 1 does not say"),
        ({"hosts": {"a": {"address": "x", "options": ["-Jb"]}}}, "'-Jb' is no option"),
        ({"hosts": {"a": {"address": "x", "options": ["StrictHostKeyChecking=no"]}}}, "does not say how to reach"),
        ({"hosts": {"a": {"address": "x", "options": ["LocalCommand=id"]}}}, "does not say how to reach"),
        ({"hosts": {"a": {"address": "x", "ssh_config": 1}}}, "ssh_config is 1"),
    ],
)
def test_a_broken_file_is_refused_with_its_name(tmp_path: Path, document: Any, words: str) -> None:
    path = tmp_path / "hosts.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(NotConfigured, match=words) as caught:
        load_hosts(path)
    assert str(path) in caught.value.message


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="farmhand up"):
        load_hosts(tmp_path / "hosts.json")


def test_choosing() -> None:
    one, two = Host(name="one", address="a"), Host(name="two", address="b")
    path = Path("/x/hosts.json")
    assert choose_host({"one": one}, "", path) is one
    assert choose_host({"one": one, "two": two}, "two", path) is two
    for hosts, wanted, words in (
        ({"one": one, "two": two}, "", "there are 2 farm hosts: one, two"),
        ({"one": one}, "two", "known: one"),
        ({}, "", "names no farm host"),
    ):
        with pytest.raises(NotConfigured, match=words):
            choose_host(hosts, wanted, path)


def test_an_ipv6_literal_as_a_name_may_have_brackets() -> None:
    host = Host(name="2001:db8::7", address="2001:db8::7")
    assert candidates({host.name: host}, "[2001:db8::7]", Path("/x")) == [host]


def test_candidates_are_all_in_their_order_or_the_one_that_is_wanted() -> None:
    two, one = Host(name="two", address="b"), Host(name="one", address="a")
    hosts = {"two": two, "one": one}
    assert candidates(hosts, "", Path("/x")) == [two, one]
    assert candidates(hosts, "one", Path("/x")) == [one]
