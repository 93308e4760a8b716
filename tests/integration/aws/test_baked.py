"""A credential in an image: who can read it there, and that building it leaves it nowhere else."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farmhand.aws.credentials.baked import WorkerImage
from farmhand.aws.credentials.vault import Options, Vault
from farmhand.aws.environment.baked_images import BakedImages
from farmhand.core.errors import FarmhandError, NotConfigured, Refused
from farmhand.core.settings import Settings
from farmhand.core.task_access import BAKED_FILE as FILE
from tests.integration.dispatch.test_rotate import watch
from tests.unit.aws.conftest import ENVIRONMENT, REGION
from tests.unit.aws.test_vault import items, key


def docker(*words: str, given: bytes | None = None) -> bytes:
    return subprocess.run(["docker", *words], input=given, stdout=subprocess.PIPE, check=True).stdout


@pytest.fixture
def base() -> Iterator[str]:
    """An image with nothing in it: the worker's own takes minutes."""
    name = f"farmhand-worker-empty:{uuid.uuid4().hex[:8]}"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    docker("import", "-", name, given=packed.getvalue())
    yield name
    made = docker("images", "--quiet", "--no-trunc", "--filter", f"label=farmhand.base={name}").decode().split()
    docker("image", "rm", "--force", name, *set(made))


def layers(image: str) -> list[tuple[str, int, int, bytes]]:
    """Name, owner, mode and content of every file of an image."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(docker("image", "save", image))) as outer:
        for member in outer.getmembers():
            inside = outer.extractfile(member)
            if not member.name.endswith("layer.tar") or inside is None:
                continue
            with tarfile.open(fileobj=io.BytesIO(inside.read())) as layer:
                for one in layer.getmembers():
                    held = layer.extractfile(one)
                    found.append((one.name, one.uid, one.mode, held.read() if held else b""))
    return found


def keeper(base: str) -> Vault:
    options: dict[str, Any] = {"place": "image", "accept_image": True, "worker": WorkerImage(made=lambda: base)}
    return Vault(Settings(aws_environment=ENVIRONMENT, aws_region=REGION), lambda _key: None, Options(**options))


def holding(base: str, secret: str) -> list[str]:
    """The images on this machine, made on `base`, that have the secret in a layer; with and without a name."""
    images = docker("images", "--all", "--quiet", "--no-trunc", "--filter", f"label=farmhand.base={base}")
    return [one for one in set(images.decode().split()) if any(secret.encode() in file[3] for file in layers(one))]


async def test_the_image_has_it_for_the_agent_and_nothing_else_has(station: Path, base: str) -> None:
    secret = f"sk-ant-test-{uuid.uuid4().hex}"
    baked = keeper(base)
    watching = asyncio.create_task(watch([secret]))
    first = await asyncio.to_thread(baked.put, key(secret, 4e9))
    assert first.changed
    assert first.place == f"image:farmhand-worker-baked:{ENVIRONMENT}-key"
    assert any("whoever can pull the image" in note for note in first.notes)
    assert "on this machine only: farmhand cloud up -e aws_baked_image=true" in first.notes[-1]
    assert (await asyncio.to_thread(baked.put, key(secret, 4e9))).changed is False
    watching.cancel()
    assert await watching == []
    name = first.place.removeprefix("image:")
    [(_, uid, mode, content)] = [file for file in layers(name) if file[0] == FILE.lstrip("/")]
    assert (uid, mode & 0o777, content) == (900, 0o400, secret.encode())
    assert [file[0] for file in layers(name) if secret.encode() in file[3]] == [FILE.lstrip("/")]
    about = docker("image", "inspect", name) + docker("history", "--no-trunc", name)
    assert secret.encode() not in about + json.dumps(items()).encode()
    [row] = baked.status(14)
    assert "whoever can pull the image" in row["trouble"], "red as long as it is there"
    gone = await asyncio.to_thread(baked.remove, "key")
    assert "make another one" in gone.notes[0]
    assert docker("image", "ls", "--quiet", name) == b""


def test_none_that_another_put_replaces_stays_here_and_remove_takes_every_name(station: Path, base: str) -> None:
    secrets = [f"sk-ant-test-{uuid.uuid4().hex}" for _ in range(2)]
    for secret in secrets:
        keeper(base).put(key(secret, 4e9))
    assert [len(holding(base, secret)) for secret in secrets] == [0, 1]
    name = f"farmhand-worker-baked:{ENVIRONMENT}-key"
    docker("tag", name, f"{base}-pushed")  # as a push leaves it that was killed
    docker("rmi", "--no-prune", name)
    [row] = keeper(base).status(14)
    assert "whoever can pull the image" in row["trouble"] or "another one was put" in row["trouble"]
    assert keeper(base).remove("key").changed
    assert holding(base, secrets[1]) == []


@pytest.mark.parametrize("end", [FarmhandError("the image could not be pushed"), KeyboardInterrupt()])
def test_a_push_that_fails_or_is_interrupted_leaves_what_was_there_and_nothing_else(
    station: Path, base: str, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    first, second = (f"sk-ant-test-{uuid.uuid4().hex}" for _ in range(2))
    keeper(base).put(key(first, 4e9))

    class NoPush:
        uri = "none"

        def listed(self, _kind: str) -> dict[str, str]:
            return {}

        def push(self, _local: str, _tag: str) -> str:
            raise end

    with monkeypatch.context() as patch:
        patch.setattr(BakedImages, "of", classmethod(lambda _cls, _aws: NoPush()))
        with pytest.raises(type(end)):
            keeper(base).put(key(second, 4e9))
    assert (len(holding(base, first)), holding(base, second)) == (1, [])
    assert keeper(base).put(key(first, 4e9)).changed is False
    keeper(base).remove("key")


def test_nothing_is_said_to_be_gone_while_docker_does_not_answer(
    station: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = f"sk-ant-test-{uuid.uuid4().hex}"
    keeper(base).put(key(secret, 4e9))
    with monkeypatch.context() as patch:
        patch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
        for check in (True, False):
            with pytest.raises(NotConfigured, match="docker version failed"):
                keeper(base).remove("key", check=check)
    assert len(holding(base, secret)) == 1
    assert keeper(base).remove("key").changed
    assert holding(base, secret) == []


@pytest.mark.parametrize("kind", ["git", "login"])
def test_what_no_task_would_read_from_an_image_is_refused_before_anything_is_built(
    station: Path, base: str, kind: str
) -> None:
    with pytest.raises(Refused, match=f"no task reads a {kind} from an image"):
        keeper(base).put(replace(key("a-test-token-0123456789", 4e9), kind=kind))
    assert holding(base, "a-test-token-0123456789") == []
