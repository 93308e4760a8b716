"""One way to replace a file, the XDG directories, and who is at a socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from farmhand.core import files


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    path.write_text("before")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.replace(path, b"after")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("state.json", "before")]


@pytest.mark.parametrize(
    ("before", "asked", "after"), [(None, None, 0o600), (0o644, None, 0o644), (0o644, 0o600, 0o600)]
)
def test_modes(tmp_path: Path, before: int | None, asked: int | None, after: int) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.touch()
        path.chmod(before)
    files.replace(path, b"new", mode=asked)
    assert (path.read_bytes(), path.stat().st_mode & 0o7777) == (b"new", after)


def test_what_is_no_regular_file_stays_what_it_is(tmp_path: Path) -> None:
    """A device such as /dev/null, which ssh's options often name, must not become a file; a pipe stands for it here."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    link = tmp_path / "link"
    link.symlink_to(path)
    for name in (path, link):
        with pytest.raises(OSError, match="not a regular file"):
            files.replace(name, b"new")
    assert path.is_fifo()
    assert link.is_symlink()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "pipe"]


def test_owner_and_group_stay(tmp_path: Path) -> None:
    # Only root can give files away; for others the owner is their own, and stays as well.
    owner = (1234, 4321) if os.geteuid() == 0 else (os.geteuid(), os.getgroups()[-1])
    path = tmp_path / "file"
    path.touch()
    os.chown(path, *owner)
    files.replace(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == owner


def test_the_file_is_the_old_one_until_the_block_ends(tmp_path: Path) -> None:
    path, beside = tmp_path / "file", tmp_path / ".beside"
    path.write_text("old")
    beside.write_text("left by a crash")
    with files.replacing(path, beside=str(beside)) as out:
        out.write(b"new")
        out.flush()
        assert (path.read_text(), beside.read_text(), beside.stat().st_mode & 0o777) == ("old", "new", 0o600)
    assert (path.read_text(), list(tmp_path.iterdir())) == ("new", [path])


def test_what_has_no_end_is_not_read_to_it(tmp_path: Path) -> None:
    (tmp_path / "three").write_text("abc")
    assert files.read_most(tmp_path / "three", 3) == b"abc"
    for name, most in ((tmp_path / "three", 2), (Path("/dev/zero"), 1000)):
        with pytest.raises(OSError, match=f"it has more than {most} bytes"):
            files.read_most(name, most)


def test_xdg() -> None:
    assert files.xdg("XDG_STATE_HOME", {"XDG_STATE_HOME": "/s"}) == "/s"
    for unusable in ({}, {"XDG_STATE_HOME": "s"}, {"XDG_STATE_HOME": ""}):
        assert files.xdg("XDG_STATE_HOME", unusable) == os.path.expanduser("~/.local/state")


def test_who_is_at_a_socket() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert files.peer(one) == (os.getpid(), os.geteuid(), os.getegid())
