"""Since when a key has been here, and when that is too long."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from farmhand.cli.checks.station import key_age
from farmhand.core.errors import NotConfigured
from farmhand.core.keys import fingerprint
from farmhand.core.settings import Settings
from farmhand.rotation.build import age_days, given_host, is_old, known_hosts, memory_of
from farmhand.wire.transport import SshTransport
from tests.unit.rotation.doubles import OLD


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "repos.env"
    path.write_text(f"ANTHROPIC_API_KEY={OLD}\n")
    path.chmod(0o600)
    long_ago = time.time() - 100 * 86400
    os.utime(path, (long_ago, long_ago))
    (tmp_path / "hosts.json").write_text('{"hosts": {"farm1": {"address": "192.0.2.1"}}}')
    return Settings(key_source=f"file:{path}", hosts_file=str(tmp_path / "hosts.json"))


def test_a_key_whose_file_has_not_changed_for_long_is_old(conf: Settings, tmp_path: Path) -> None:
    assert age_days(conf, OLD) == pytest.approx(100, abs=0.1)
    check = key_age(conf)
    assert (check.ok, check.fix) == (False, "farmhand rotate")
    assert not (tmp_path / "state").exists(), "looking changes nothing"


def test_a_key_that_a_rotation_has_brought_counts_from_then(conf: Settings) -> None:
    memory_of(conf.key_source).first_seen(fingerprint(OLD), time.time() - 5 * 86400)
    assert age_days(conf, OLD) == pytest.approx(5, abs=0.1)
    assert key_age(conf).ok


def test_what_cannot_tell_its_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", OLD)
    assert age_days(Settings(key_source="env:A_KEY"), OLD) == 0


def test_the_policy() -> None:
    assert is_old(91.0, Settings())
    assert not is_old(89.0, Settings())
    assert not is_old(9999.0, Settings(key_max_age_days=0.0))


def test_the_hosts_of_both_front_ends(conf: Settings) -> None:
    [known] = known_hosts(conf)
    given = given_host({"name": "farm1", "address": "192.0.2.1", "port": 22, "user": None}, 5.0)
    for host, argument in ((known, "ConnectTimeout=10"), (given, "ConnectTimeout=5")):
        transport = host._way()
        assert isinstance(transport, SshTransport)
        assert (host.name, transport.host.address) == ("farm1", "192.0.2.1")
        assert argument in transport.argv()
    with pytest.raises(NotConfigured, match="hosts: host 'farm2': address is missing"):
        given_host({"name": "farm2"}, 5.0)
