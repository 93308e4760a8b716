"""A patch that was paid for is kept somewhere, whole, whatever disk is full."""

from __future__ import annotations

import errno
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from farmhand.cli import code_runs
from farmhand.cli.code_kept import keep, keep_patch
from farmhand.cli.code_runs import DockerRun
from farmhand.cli.signals import Stoppable
from farmhand.code.repository import FetchedCommit
from farmhand.core.errors import FarmhandError, WireError
from farmhand.core.settings import Settings
from farmhand.core.task import TASK_OUTPUTS
from farmhand.places.containers import ContainerTransport
from farmhand.wire.client import Client

RESULT: dict[str, Any] = {"id": "t1", "state": "succeeded", "text": "done"}
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What came back from a task; state and temporary files are below `tmp_path`."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    directory = tmp_path / "tmp/left"
    directory.mkdir(parents=True)
    for name in TASK_OUTPUTS:
        (directory / name).write_text(f"all of {name}\n")
    return directory


def fill(monkeypatch: pytest.MonkeyPatch, *full: Path) -> None:
    """Nothing but the beginning of a file has room in the directories `full`."""
    copy = shutil.copyfile

    def copyfile(source: Path, target: Path) -> None:
        if any(target.is_relative_to(directory) for directory in full):
            target.write_bytes(source.read_bytes()[:3])
            raise NO_SPACE
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", copyfile)


def test_a_file_is_there_whole_or_not_at_all(left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    fill(monkeypatch, out)
    with pytest.raises(FarmhandError, match=r"out cannot be written: No space left on device"):
        keep(out, left, RESULT)
    assert list(out.iterdir()) == []
    kept = keep_patch(out, left, RESULT)
    assert kept == tmp_path / "state/farmhand/code/t1/changes.patch"
    assert kept.read_text() == "all of changes.patch\n"
    assert (kept.parent / "result.json").exists()


def test_without_room_at_home_it_stays_on_its_disk(
    left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(monkeypatch, tmp_path / "state")
    kept = keep_patch(None, left, RESULT)
    assert kept is not None
    assert kept.read_text() == "all of changes.patch\n"
    assert kept.parent.parent == tmp_path / "tmp"
    assert "code/t1 cannot be written: No space left on device" in capsys.readouterr().err
    assert not (tmp_path / "state/farmhand/code/t1").exists()


def test_a_patch_that_nothing_can_keep_is_no_success(
    left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(monkeypatch, tmp_path / "state")

    def full(**_: object) -> str:
        raise NO_SPACE

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(FarmhandError, match="cannot be written"):
        keep_patch(None, left, RESULT)


@pytest.mark.parametrize("failure", [NO_SPACE, WireError("unreachable", "docker: the connection broke", "")])
def test_files_that_cannot_be_fetched_are_still_in_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    class Agent:
        transport = type("Transport", (), {"name": "docker"})()

        def put_bundle(self, *_: object) -> None: ...

        def get_file(self, *_: object) -> bool:
            raise failure

    monkeypatch.setattr(code_runs, "run_task", lambda *_, **__: RESULT)
    run = DockerRun.__new__(DockerRun)
    vars(run).update(_conf=Settings(), _task={"id": "t1"}, _key="sk-ant-test-1", _agent="farmhand-agent", _span=None)
    source = FetchedCommit(tmp_path, tmp_path / "bundle", "0" * 40, ())
    with pytest.raises(FarmhandError, match="the task has ended, and its files cannot be fetched") as raised:
        run._run(Agent(), source, tmp_path, Stoppable(), quiet=True)  # type: ignore[arg-type]
    assert "docker cp farmhand-agent:/var/lib/farmhand/files/t1 ." in str(raised.value)


def test_a_full_disk_here_is_not_a_lost_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer:
        status = 200

        def allow(self, most: int) -> None: ...

        def read1(self) -> bytes:
            return b"all of it"

    class Full(io.BytesIO):
        def write(self, _data: Any) -> int:
            raise NO_SPACE

    client = Client(ContainerTransport("x-agent", "docker", 1.0))
    monkeypatch.setattr(client, "request", lambda *_: Answer())
    with pytest.raises(OSError, match="No space left on device"):
        client.get_file("t1", "changes.patch", Full(), 100)
