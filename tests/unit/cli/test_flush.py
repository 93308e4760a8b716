from __future__ import annotations

from pathlib import Path

import pytest

from farmhand.cli.flush import _for_others
from farmhand.core.settings import Settings
from farmhand.offline.spool import SpooledTask


@pytest.mark.parametrize(
    ("conf", "farm", "told"),
    [
        (Settings(), "docker:farmhand", "the containers farmhand: farmhand flush --place docker sends them"),
        (
            Settings(),
            "docker:two",
            "the containers two: farmhand flush --place docker with FARMHAND_DOCKER_NAME=two sends them",
        ),
        (Settings(), "/h.json", "the hosts of /h.json: farmhand flush with FARMHAND_HOSTS_FILE=/h.json sends them"),
        (
            Settings(config_file="/elsewhere/config.toml"),
            "",
            "the hosts of the usual hosts.json: farmhand flush without a hosts file of its own sends them",
        ),
        (Settings(place="docker"), "", "the hosts of the usual hosts.json: farmhand flush --place farm sends them"),
    ],
)
def test_what_waits_for_others_says_how_it_is_sent(conf: Settings, farm: str, told: str) -> None:
    entry = SpooledTask(path=Path("t"), task={"id": "t"}, wanted="", sent="", queued_at=1.0, farm=farm, deliveries=0)
    assert _for_others([entry], conf) == [f"1 task waits for {told}"]
    assert _for_others([entry] * 2, conf) == [f"2 tasks wait for {told}"]
