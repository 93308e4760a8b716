"""Accounts and sshd: what the dispatch account may do, as sshd itself says."""

from __future__ import annotations

import functools

import pytest
from testinfra.host import Host

NO_PASSWORD = "*"  # noqa: S105 - what /etc/shadow holds when no password can match


@functools.cache
def sshd(host: Host, user: str) -> dict[str, str]:
    lines = host.check_output(f"sshd -T -C user={user},host=localhost,addr=127.0.0.1").splitlines()
    return {name: value for name, _, value in (line.partition(" ") for line in lines)}


def test_agent_account_has_no_shell(host: Host) -> None:
    user = host.user("jada")
    assert user.shell == "/usr/sbin/nologin"
    assert user.groups == ["jada"]
    assert user.password == NO_PASSWORD


def test_dispatch_account_has_no_password_and_no_writable_home(host: Host) -> None:
    user = host.user("farmhand")
    assert user.password == NO_PASSWORD
    assert user.groups == ["farmhand"]
    home = host.file("/var/lib/farmhand")
    assert (home.user, home.group, home.mode) == ("root", "root", 0o755)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("forcecommand", "/usr/bin/jada-agent bridge"),
        ("authorizedkeysfile", "/etc/ssh/farmhand_authorized_keys"),
        ("authenticationmethods", "publickey"),
        ("passwordauthentication", "no"),
        ("kbdinteractiveauthentication", "no"),
        ("permittty", "no"),
        ("permituserrc", "no"),
        ("permittunnel", "no"),
        ("disableforwarding", "yes"),
        ("allowtcpforwarding", "no"),
        ("allowstreamlocalforwarding", "no"),
        ("allowagentforwarding", "no"),
        ("x11forwarding", "no"),
        ("permitopen", "none"),
        ("permitlisten", "none"),
        ("permituserenvironment", "no"),
    ],
)
def test_sshd_restricts_the_dispatch_account(host: Host, setting: str, value: str) -> None:
    assert sshd(host, "farmhand")[setting] == value


def test_sshd_leaves_other_accounts_alone(host: Host) -> None:
    root = sshd(host, "root")
    assert root["forcecommand"] == "none"
    assert root["authorizedkeysfile"] != "/etc/ssh/farmhand_authorized_keys"


@pytest.mark.parametrize("user", ["root", "farmhand"])
def test_sshd_takes_no_credential_from_a_client(host: Host, user: str) -> None:
    lines = host.check_output(f"sshd -T -C user={user},host=localhost,addr=127.0.0.1").splitlines()
    accepted = {line.split()[1] for line in lines if line.startswith("acceptenv ")}
    assert accepted == {"LANG", "LC_*"}


def test_authorized_key_is_restricted(host: Host) -> None:
    file = host.file("/etc/ssh/farmhand_authorized_keys")
    assert (file.user, file.group, file.mode) == ("root", "root", 0o644)
    keys = [line for line in file.content_string.splitlines() if not line.startswith("#")]
    assert keys
    for key in keys:
        assert key.startswith('restrict,command="/usr/bin/jada-agent bridge" ssh-ed25519 ')
