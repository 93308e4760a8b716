"""Private directories, and what killed processes leave of them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from farmhand.core import scratch

HOLD = """
import sys
from farmhand.core.scratch import private_directory
with private_directory() as path:
    (path / "key").write_text("x")
    print(path, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_it_is_private_and_goes(temporary: Path) -> None:
    with scratch.private_directory() as path:
        assert path.parent == temporary
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        (path / "a" / "b").mkdir(parents=True)
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_has_left_goes_with_the_next_and_what_is_in_use_stays(temporary: Path) -> None:
    def start() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    killed, left = start()
    living, used = start()
    killed.kill()
    killed.wait()
    assert left.exists()
    with scratch.private_directory():
        assert not left.exists()
        assert (used / "key").read_text() == "x"
    living.communicate("")
    assert list(temporary.iterdir()) == []


def test_nothing_else_is_removed(temporary: Path) -> None:
    for name in ("farmhand-run-unlocked", "farmhand-x", "other"):
        (temporary / name).mkdir(mode=0o700)
    (temporary / "farmhand-run-file").write_text("x")
    (temporary / "mine").mkdir(mode=0o700)
    (temporary / "mine" / ".lock").write_text("")
    os.symlink(temporary / "mine", temporary / "farmhand-run-link")
    open_to_all = temporary / "farmhand-run-open"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    (open_to_all / ".lock").write_text("")
    before = sorted(path.name for path in temporary.iterdir())
    scratch.sweep()
    assert sorted(path.name for path in temporary.iterdir()) == before
