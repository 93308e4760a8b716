"""A credential in an image: who can read it there, and that building it leaves it nowhere else."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farmhand.aws.credentials.baked import WorkerImage
from farmhand.aws.credentials.vault import Options, Vault
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
    docker("image", "rm", "--force", name)


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


async def test_the_image_has_it_for_the_agent_and_nothing_else_has(station: Path, base: str) -> None:
    secret = f"sk-ant-test-{uuid.uuid4().hex}"
    conf = Settings(aws_environment=ENVIRONMENT, aws_region=REGION)
    options: dict[str, Any] = {"place": "image", "accept_image": True, "worker": WorkerImage(made=lambda: base)}
    keeper = Vault(conf, lambda _key: None, Options(**options))
    watching = asyncio.create_task(watch([secret]))
    first = await asyncio.to_thread(keeper.put, key(secret, 4e9))
    assert first.changed
    assert first.place == f"image:farmhand-worker-baked:{ENVIRONMENT}-key"
    assert any("whoever can pull the image" in note for note in first.notes)
    assert "on this machine only: farmhand cloud up -e aws_baked_image=true" in first.notes[-1]
    assert (await asyncio.to_thread(keeper.put, key(secret, 4e9))).changed is False
    watching.cancel()
    assert await watching == []
    name = first.place.removeprefix("image:")
    [(_, uid, mode, content)] = [file for file in layers(name) if file[0] == FILE.lstrip("/")]
    assert (uid, mode & 0o777, content) == (900, 0o400, secret.encode())
    assert [file[0] for file in layers(name) if secret.encode() in file[3]] == [FILE.lstrip("/")]
    about = docker("image", "inspect", name) + docker("history", "--no-trunc", name)
    assert secret.encode() not in about + json.dumps(items()).encode()
    [row] = keeper.status(14)
    assert "whoever can pull the image" in row["trouble"], "red as long as it is there"
    gone = await asyncio.to_thread(keeper.remove, "key")
    assert "make another one" in gone.notes[0]
    assert docker("image", "ls", "--quiet", name) == b""
