from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from farmhand.core.errors import NotConfigured, UsageError
from farmhand.core.settings import PLACE_NAMES, Settings, farm_name, hosts_of
from farmhand.places import docker, hosts
from farmhand.places.base import PlaceSettings
from farmhand.places.containers import ContainerPair
from farmhand.places.table import PLACES


def test_settings_and_table_name_the_same_places() -> None:
    assert tuple(PLACES) == PLACE_NAMES


def test_a_place_on_aws_is_imported_when_it_is_made() -> None:
    """The farm needs neither boto3 nor what calls it."""
    found = "[m for m in sys.modules if 'aws' in m or 'boto' in m]"
    script = f"import sys, farmhand.cli.batch, farmhand.cli.code; print({found})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_batch_at_the_place_of_one_task_is_a_mistake() -> None:
    with pytest.raises(UsageError) as caught:
        PLACES["fargate"](PlaceSettings(project_dir=Path()))
    assert "--place aws-batch" in caught.value.hint
    with pytest.raises(UsageError, match="no host to ask"):
        hosts.known_hosts(Settings(place="aws-batch"))


def test_what_waits_for_containers_does_not_wait_for_the_farm() -> None:
    farm, here = farm_name(Settings()), farm_name(Settings(place="docker"))
    assert farm != here
    assert hosts_of(here) == "the containers farmhand"


def test_a_key_may_be_at_the_farm_and_in_the_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = Settings(hosts_file=str(tmp_path / "hosts.json"))
    monkeypatch.setattr(ContainerPair, "exists", lambda _self: False)
    with pytest.raises(NotConfigured):
        hosts.every_host(conf)
    monkeypatch.setattr(ContainerPair, "exists", lambda _self: True)
    assert list(hosts.every_host(conf)) == [docker.NAME]
    (tmp_path / "hosts.json").write_text('{"hosts": {"farm1": {"address": "a"}}}')
    for place in PLACE_NAMES:
        assert list(hosts.every_host(conf._replace(place=place))) == ["farm1", docker.NAME]


def test_where_no_pair_was_started_docker_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    assert not docker.existing(Settings()).exists()
    (tmp_path / "farmhand").mkdir()
    (tmp_path / "farmhand/farmhand.lock").touch()
    assert not docker.existing(Settings()).exists()
