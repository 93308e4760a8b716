"""A credential in an image of the registry: pushed once, loud as long as it is there, gone with all its tags."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farmhand.aws.credentials.baked import WorkerImage
from farmhand.aws.credentials.vault import Options, Stored, Vault
from farmhand.core.settings import Settings
from farmhand.places import image as places_image
from tests.e2e.aws.test_push import small
from tests.integration.aws.test_baked import docker
from tests.integration.aws.test_cloud import Operator
from tests.support.cloud import deploy
from tests.support.fakeaws import FakeAws
from tests.support.registry import Registry
from tests.unit.aws.test_vault import key

__all__ = ["small"]

ENVIRONMENT = f"b{uuid.uuid4().hex[:8]}"
REPOSITORY = f"farmhand-{ENVIRONMENT}/farmhand-worker-baked"
SECRET = f"sk-ant-test-{uuid.uuid4().hex}"


@pytest.fixture
def aws(aws_docker: FakeAws, registry: Registry, small: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAws]:
    for name, value in aws_docker.environ().items():
        monkeypatch.setenv(name, value)
    yield aws_docker
    for image in docker("images", "--quiet", "--filter", f"label=farmhand.base={small}").decode().split():
        docker("image", "rm", "--force", image)


@pytest.fixture
def me(aws: FakeAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    operator = Operator(aws, tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", operator.environ["XDG_STATE_HOME"])
    operator.environ["FARMHAND_AWS_ENVIRONMENT"] = ENVIRONMENT
    return operator


def put(base: str, secret: str = SECRET, sources: str = "", **more: Any) -> Stored:
    worker = WorkerImage(made=lambda: base, name=lambda: sources or base)
    options = Options(place="image", accept_image=True, worker=worker)
    return Vault(Settings(aws_environment=ENVIRONMENT), lambda _key: None, options).put(key(secret), **more)


def test_it_is_pushed_once_and_red_until_it_is_removed_with_all_its_tags(
    aws: FakeAws, registry: Registry, small: str, me: Operator
) -> None:
    deploy(aws, ENVIRONMENT, BakedImage="true")
    assert me.cloud("status").returncode == 0
    assert put(small, check=True).changed
    assert registry.tags(REPOSITORY) == []
    first = put(small)
    [tag] = registry.tags(REPOSITORY)
    uri = f"{aws.account}.dkr.ecr.us-east-1.amazonaws.com/{REPOSITORY}@{first.version}"
    assert first.notes[-1].endswith(f"farmhand cloud up -e aws_baked_image=true -e aws_baked_image_uri={uri}")
    assert (tag.partition("-")[0], first.changed) == ("key", True)
    assert registry.get(f"{REPOSITORY}/manifests/{first.version}")
    again = put(small)
    assert (again.changed, again.version, registry.tags(REPOSITORY)) == (False, first.version, [tag])
    shown = me.cloud("status")
    assert (shown.returncode, shown.stdout.splitlines()[0][:31]) == (3, "A CREDENTIAL IS IN AN IMAGE of ")
    document = json.loads(me.cloud("status", "--json").stdout)
    assert document["baked_images"] == [tag]
    [row] = json.loads(me.cloud("credential", "status", "--json").stdout)["credentials"]
    assert (row["place"], row["version"]) == (f"image:farmhand-worker-baked:{ENVIRONMENT}-key", first.version)
    assert "whoever can pull the image" in row["trouble"]
    # Neither another credential nor other sources of the worker are the image that is there.
    other = put(small, secret=f"{SECRET}2")
    assert (other.changed, len(registry.tags(REPOSITORY))) == (True, 2)
    assert put(small, secret=f"{SECRET}2", sources="farmhand-worker:newer", check=True).changed
    assert SECRET not in shown.stdout + json.dumps(document) + "".join(registry.tags(REPOSITORY))
    gone = me.cloud("credential", "remove", "--yes")
    assert (gone.returncode, "make another one" in gone.stderr) == (0, True), gone.stderr
    assert registry.tags(REPOSITORY) == []
    assert docker("image", "ls", "--quiet", f"farmhand-worker-baked:{ENVIRONMENT}-key") == b""
    assert me.cloud("status").returncode == 0
    assert json.loads(me.cloud("credential", "status", "--json").stdout)["credentials"] == []


def test_what_another_machine_has_pushed_is_seen_and_removed_here(
    aws: FakeAws, registry: Registry, small: str, me: Operator
) -> None:
    deploy(aws, ENVIRONMENT, ("data", "base"), BakedImage="true")
    first = put(small)
    docker("image", "rm", "--force", f"farmhand-worker-baked:{ENVIRONMENT}-key")
    [row] = json.loads(me.cloud("credential", "status", "--json").stdout)["credentials"]
    assert (row["version"], "whoever can pull" in row["trouble"]) == (first.version, True)
    assert me.cloud("credential", "remove", "--place", "image", "--yes").returncode == 0
    assert registry.tags(REPOSITORY) == []


def test_without_the_repository_it_stays_here_and_is_pushed_when_there_is_one(
    aws: FakeAws, registry: Registry, small: str, me: Operator
) -> None:
    deploy(aws, ENVIRONMENT, ("data", "base"))
    here = put(small)
    assert "on this machine only" in here.notes[-1]
    assert put(small).changed is False
    cloudformation, stack = aws.client("cloudformation"), f"farmhand-{ENVIRONMENT}"
    given = [{"ParameterKey": "BakedImage", "ParameterValue": "true"}]
    given += [{"ParameterKey": name, "ParameterValue": ENVIRONMENT} for name in ("Environment",)]
    cloudformation.update_stack(
        StackName=stack, UsePreviousTemplate=True, Parameters=given, Capabilities=["CAPABILITY_NAMED_IAM"]
    )
    there = put(small)
    assert (there.changed, there.version != here.version) == (True, True)
    assert re.fullmatch(r"key-[0-9a-f]{64}", registry.tags(REPOSITORY)[0])
    assert places_image.docker("images", "--format", "{{.Repository}}").count(registry.address) == 0
