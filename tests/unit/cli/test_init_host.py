from __future__ import annotations

import re

import pytest

from farmhand.cli import init, init_host
from farmhand.core.errors import UsageError


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("admin@203.0.113.10", "give --address 203.0.113.10 --user admin"),
        ("203.0.113.10:2222", "give --address 203.0.113.10 --port 2222"),
        ("[2001:db8::7]:22", "give --address 2001:db8::7 --port 22"),
        ("ssh://admin@box.example:22/", "give --address box.example --user admin --port 22"),
        ("https://box.example/", "give --address box.example"),
        ("box.example:ssh", "give the name alone, and --user and --port"),
    ],
)
def test_what_is_more_than_an_address_is_told_as_options(address: str, hint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"'{address}' is more than an address ({hint})")):
        init_host.way(address, None)


@pytest.mark.parametrize("address", ["203.0.113.10", "2001:db8::7", "fe80::1%eth0", "my-box"])
def test_an_address_is_one(address: str) -> None:
    assert init_host.way(address, None).address == address


@pytest.mark.parametrize("user", ["", "-l", "a b", "a@b"])
def test_what_is_no_login_is_not_tried(user: str) -> None:
    way = init_host.Way("box", "box", 22, "box", "/nowhere", False)
    with pytest.raises(UsageError, match="is no login"):
        init._login(way, user, None, 1)
