"""The image in the registry: Docker's own push, to a registry on loopback that asks for the login as ECR does."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from farmhand.aws.client import Aws
from farmhand.aws.environment import image
from farmhand.cli import app
from farmhand.core.settings import Settings
from farmhand.places import image as places_image
from tests.support import aws_rights
from tests.support.cloud import ROOT, deploy
from tests.support.fakeaws import FakeAws
from tests.support.registry import PASSWORD, Registry

REPOSITORY = "farmhand-prod/farmhand-worker"


@pytest.fixture
def aws(aws_docker: FakeAws, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> FakeAws:
    for name, value in aws_docker.environ().items():
        monkeypatch.setenv(name, value)
    deploy(aws_docker, parts=("data", "base"), ImageUri="none")
    return aws_docker


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A tiny image in the place of the real one, which takes minutes to build."""
    name = f"farmhand-push-test-{os.getpid()}:1"
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("x"))
    subprocess.run(["docker", "import", "-", name], input=made.getvalue(), check=True, capture_output=True)
    monkeypatch.setattr(places_image, "ensure", lambda *_: name)
    yield name
    subprocess.run(["docker", "rmi", "--force", name], check=True, capture_output=True)


def push(*, check: bool = False) -> image.Pushed:
    return image.push(Aws(Settings()), ROOT, lambda _: None, check=check)


def test_it_is_pushed_once_and_named_by_its_digest(
    aws: FakeAws, registry: Registry, small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    expected = push(check=True)
    assert (expected.changed, expected.uri, registry.tags(REPOSITORY)) == (True, "", [])
    stop = threading.Event()
    seen: set[bytes] = set()

    def watch() -> None:
        while not stop.is_set():
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    words = entry.read_bytes()
                except OSError:
                    continue
                seen.update({words} if PASSWORD.encode() in words else ())
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    first = push()
    stop.set()
    watcher.join()
    assert seen == set()
    assert first.changed
    assert registry.tags(REPOSITORY) == [first.tag] == [expected.tag]
    manifest = json.loads(registry.get(f"{REPOSITORY}/manifests/{first.digest}"))
    assert manifest["layers"] or manifest["fsLayers"]
    assert first.uri == f"{aws.account}.dkr.ecr.us-east-1.amazonaws.com/{REPOSITORY}@{first.digest}"
    # Neither the login nor a name of the image stays here.
    assert not list(tmp_path.glob("farmhand-run-*"))
    listed = subprocess.run(
        ["docker", "images", "--format", "{{.Repository}}"], check=True, capture_output=True, text=True
    )
    assert registry.address not in listed.stdout
    monkeypatch.setattr(places_image, "ensure", lambda *_: pytest.fail("it is there: nothing is built"))
    second = push()
    assert (second.changed, second.uri) == (False, first.uri)
    assert push(check=True).changed is False


def test_the_command_says_what_it_pushed(aws: FakeAws, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARMHAND_PROJECT_DIR", str(ROOT))
    for said in ("was pushed", "is there already"):
        done = CliRunner().invoke(app.farmhand, ["cloud", "push"], standalone_mode=False)
        assert (done.exception, said in done.output) == (None, True), done.output
    called = aws_rights.actions(aws.calls)
    assert called == {"ecr:DescribeRepositories", "ecr:GetAuthorizationToken"}
    assert aws_rights.refused(called, aws_rights.builder()) == []


def test_a_push_that_another_has_finished_first_is_none_of_ours(
    aws: FakeAws, registry: Registry, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tags are immutable there: the second push of a tag is refused, and the image is there all the same."""
    real = image.Registry.push

    def late(self: image.Registry, local: str, repository: str, tag: str) -> str:
        real(self, local, repository, tag)
        return "tag invalid: The image tag already exists in the repository and cannot be overwritten"

    monkeypatch.setattr(image.Registry, "push", late)
    found = push()
    assert (found.changed, registry.tags(REPOSITORY)) == (False, [found.tag])
