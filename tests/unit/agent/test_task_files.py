from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from farmhand.agent import task_files
from farmhand.agent.task_files import TaskFiles
from farmhand.core.errors import FarmhandError, UsageError
from farmhand.core.task import TASK_OUTPUTS


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.fixture
def files(tmp_path: Path) -> TaskFiles:
    return TaskFiles(str(tmp_path))


async def test_a_bundle_is_whole_or_not_there(files: TaskFiles) -> None:
    assert await files.receive("t1", pieces(b"ab", b"c")) == 3
    assert files.bundle("t1").read_bytes() == b"abc"
    assert files.bundle("t1").parent.stat().st_mode & 0o077 == 0

    async def broken() -> AsyncIterator[bytes]:
        yield b"new"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await files.receive("t1", broken())
    assert files.bundle("t1").read_bytes() == b"abc"
    assert os.listdir(files.bundle("t1").parent) == ["source.bundle"]


async def test_its_size_and_the_disk_are_heeded(files: TaskFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_files, "MAX_BUNDLE_BYTES", 3)
    with pytest.raises(UsageError, match="larger than 3 bytes"):
        await files.receive("t1", pieces(b"ab", b"cd"))
    monkeypatch.setattr(task_files, "_SPARE", 2**60)
    with pytest.raises(FarmhandError, match="no room"):
        await files.receive("t1", pieces(b"ab"))
    assert os.listdir(files.bundle("t1").parent) == []


@pytest.mark.parametrize("task_id", ["", "..", "../x", "a/b", "a\0b", "-x", "x" * 65])
async def test_an_id_is_no_path(files: TaskFiles, task_id: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        await files.receive(task_id, pieces(b"x"))
    with pytest.raises(UsageError):
        files.output(task_id, "changes.patch")
    assert os.listdir(tmp_path) == []


async def test_only_what_a_task_leaves_can_be_had(files: TaskFiles) -> None:
    await files.receive("t1", pieces(b"x"))
    for name in ("source.bundle", "..", "../t1/changes.patch", "changes.patch"):
        with pytest.raises(UsageError, match="has left no"):
            files.output("t1", name)


async def test_outputs_are_bounded_and_of_the_last_attempt(files: TaskFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    await files.receive("t1", pieces(b"x"))
    monkeypatch.setitem(TASK_OUTPUTS, "changes.patch", 5)
    outputs = files.begin("t1")
    for piece in (b"abc", b"def", b"ghi"):
        outputs.add("changes.patch", piece)
    outputs.add("../other", b"x")
    assert files.output("t1", "changes.patch").read_bytes() == b"abcde"
    files.begin("t1").add("changes.patch", b"new")
    assert files.output("t1", "changes.patch").read_bytes() == b"new"
    assert sorted(os.listdir(files.bundle("t1").parent)) == ["changes.patch", "source.bundle"]
    assert files.tasks() == ["t1"]
    assert files.age_s("t1", time.time() + 100) > 50
    files.remove("t1")
    assert files.tasks() == []


async def test_the_oldest_files_go_first(files: TaskFiles) -> None:
    for number in range(4):
        await files.receive(f"t{number}", pieces(b"x" * 100))
        os.utime(files.bundle(f"t{number}"), (number, number))
    (files.bundle("t0").parent / "changes.patch").write_bytes(b"x" * 100)  # the newest
    files.shrink(["t0", "t1", "t2", "unknown"], 350)
    assert sorted(files.tasks()) == ["t0", "t2", "t3"]
    files.shrink(["t0", "t1", "t2"], 200)
    assert sorted(files.tasks()) == ["t0", "t3"]
