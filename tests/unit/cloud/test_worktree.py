"""Unpacking a repository and making its patch, with the real git; who may do that is tests/e2e's matter."""

from __future__ import annotations

import base64
import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farmhand.cloud import worktree
from farmhand.code.changes import judge
from farmhand.code.repository import FetchedCommit, fetch
from farmhand.core.task import BUNDLE_REF, TASK_OUTPUTS
from tests.support.repositories import git
from tests.unit.code.test_repository import origin

__all__ = ["origin"]


ORDER: dict[str, Any] = {"ref": BUNDLE_REF, "limits": TASK_OUTPUTS}


def task(source: FetchedCommit, home: Path, work: Callable[[Path], object], **repo: Any) -> dict[str, bytes]:
    """The files that a task leaves which does `work`."""
    home.mkdir()
    bundle = source.bundle.read_bytes()
    order = ORDER | {"commit": source.commit, "shallow": source.shallow, "bundle_bytes": len(bundle), **repo}
    start = worktree.unpack(str(home), order, io.BytesIO(bundle + b"not part of it"))
    assert start.startswith(str(home / "work"))
    seen = worktree.look(str(home))
    work(Path(start))
    left: dict[str, bytes] = {}

    def send(line: dict[str, Any]) -> None:
        assert line["type"] == "farmhand.file"
        left[line["name"]] = left.get(line["name"], b"") + base64.b64decode(line["data"])

    worktree.collect(str(home), order, seen, send)
    return left


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_patch_goes_all_the_way_round(origin: Path, tmp_path: Path, depth: int) -> None:
    source = fetch(str(origin), "HEAD", tmp_path, depth=depth)

    def work(there: Path) -> None:
        (there / "f0").write_text("changed\n")
        (there / "big").write_bytes(os.urandom(200_000))

    found = judge(source, task(source, tmp_path / "home", work)["changes.patch"])
    assert found is not None
    assert (found.files, found.insertions, found.deletions) == (2, 1, 1)


def test_nothing_done_leaves_nothing(origin: Path, tmp_path: Path) -> None:
    source = fetch(str(origin), "HEAD", tmp_path)
    assert task(source, tmp_path / "home", lambda there: None) == {}


def test_settings_and_hooks_of_the_task_do_not_make_its_patch(origin: Path, tmp_path: Path) -> None:
    source = fetch(str(origin), "HEAD", tmp_path)

    def work(there: Path) -> None:
        with (there / ".git/config").open("a") as file:
            file.write(f"[core]\n\tfsmonitor = touch {tmp_path}/PWNED\n[diff]\n\texternal = touch {tmp_path}/PWNED\n")
        (there / ".gitattributes").write_text("* diff=x filter=x\n")
        (there / "f0").write_text("changed\n")

    assert b"+changed" in task(source, tmp_path / "home", work)["changes.patch"]
    assert not (tmp_path / "PWNED").exists()


def test_what_is_left_in_the_directory_for_it_comes_along(origin: Path, tmp_path: Path) -> None:
    source = fetch(str(origin), "HEAD", tmp_path)

    def work(there: Path) -> None:
        (there / worktree.OUT).mkdir(parents=True)
        (there / worktree.OUT / "a.txt").write_text("artifact")
        (there / worktree.OUT / "link").symlink_to("/etc/passwd")

    left = task(source, tmp_path / "home", work)
    assert set(left) == {"artifacts.tar"}
    assert b"artifact" in left["artifacts.tar"]
    assert b"/etc/passwd" not in left["artifacts.tar"]


def test_what_cannot_be_unpacked_is_one_line(origin: Path, tmp_path: Path) -> None:
    source = fetch(str(origin), "HEAD", tmp_path)
    (tmp_path / "home").mkdir()
    with pytest.raises(worktree.Unusable) as caught:
        worktree.unpack(
            str(tmp_path / "home"), ORDER | {"commit": source.commit, "bundle_bytes": 4}, io.BytesIO(b"junk")
        )
    assert "\n" not in str(caught.value)
    with pytest.raises(EOFError):
        worktree.unpack(
            str(tmp_path / "home"), ORDER | {"commit": source.commit, "bundle_bytes": 9}, io.BytesIO(b"short")
        )
    with pytest.raises(worktree.Unusable, match="no directory 'nowhere'"):
        task(source, tmp_path / "other", lambda there: None, subdir="nowhere")


def test_a_patch_that_git_cannot_make_is_not_an_empty_one(origin: Path, tmp_path: Path) -> None:
    source = fetch(str(origin), "HEAD", tmp_path)

    def work(there: Path) -> None:
        (there / "f0").write_text("changed\n")
        for path in (there.parent / "base.git/objects").rglob("*.pack"):
            path.chmod(0o600)
            path.write_bytes(b"damaged")

    with pytest.raises(worktree.Unusable) as caught:
        task(source, tmp_path / "home", work)
    assert "\n" not in str(caught.value)


def test_a_bundle_that_finds_no_room_is_read_to_its_end(tmp_path: Path) -> None:
    source = io.BytesIO(b"x" * 3_000_000 + b"rest")
    with pytest.raises(worktree.Unusable, match="no room for it: No space left on device"):
        worktree._receive("/dev/full", 3_000_000, source)
    assert source.read() == b"rest"


def test_a_file_that_nobody_touched_is_not_in_the_patch(origin: Path, tmp_path: Path) -> None:
    """Git would store it otherwise than the commit has it: its lines do not end as the attributes say."""
    (origin / "a.txt").write_bytes(b"one\r\ntwo\r\n")
    (origin / "b.txt").write_bytes(b"one\r\ntwo\r\n")
    git("add", ".", cwd=origin)
    git("commit", "--quiet", "-m", "lines", cwd=origin)
    (origin / ".gitattributes").write_text("*.txt text\n")
    git("add", ".gitattributes", cwd=origin)
    git("commit", "--quiet", "-m", "attributes", cwd=origin)
    source = fetch(str(origin), "HEAD", tmp_path)
    assert task(source, tmp_path / "one", lambda there: None) == {}
    left = task(source, tmp_path / "two", lambda there: (there / "b.txt").write_bytes(b"one\r\n2\r\n"))
    found = judge(source, left["changes.patch"])
    assert found is not None
    assert found.files == 1


def _nested(there: Path) -> None:
    for name in ("empty", "full"):
        (there / name).mkdir()
        git("init", "--quiet", cwd=there / name)
        (there / name / "x").write_text("x\n")
    git("add", ".", cwd=there / "full")
    git("commit", "--quiet", "-m", "x", cwd=there / "full")
    (there / "linked").mkdir()
    (there / "linked/.git").write_text("gitdir: /nowhere\n")
    (there / "linked/x").write_text("x\n")


def test_files_of_a_repository_inside_are_files(origin: Path, tmp_path: Path) -> None:
    source = fetch(str(origin), "HEAD", tmp_path)
    found = judge(source, task(source, tmp_path / "home", _nested)["changes.patch"])
    assert found is not None
    assert (found.files, found.insertions) == (3, 3)


#: What a task does to a repository with the files f0 and f1, as bash.
KINDS = {
    "mode": "chmod +x f0",
    "file to directory": "rm f0; mkdir f0; touch f0/x",
    "file to link": "rm f0; ln -s f1 f0",
    "new case": "mv f0 F0",
    "odd name": r"""echo x > $'a\nb "q"\t\\'""",
    "no utf-8": r"echo x > $'caf\xe9'",
    "no last newline": "printf one > f0",
    "empty": "touch e",
    "lines that end otherwise": r"printf '0\r\n1\r\n' > f0",
    "what the task's home ignores": "mkdir -p ../.config/git; echo g > ../.config/git/ignore; echo x > g",
    "closed files": "mkdir d; echo x > d/x; chmod 0 d/x d",
    "long path": "d=$(printf 'd%.0s' {1..200}); p=$d/$d/$d/$d/$d/$d/$d/$d; mkdir -p $p; echo x > $p/f",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hash_", ["sha1", "sha256"])
def test_every_kind_of_change_comes_through(tmp_path: Path, kind: str, hash_: str) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    git("init", "--quiet", f"--object-format={hash_}", cwd=origin)
    (origin / "f0").write_text("0\n1\n")
    (origin / "f1").write_text("1\n")
    git("add", ".", cwd=origin)
    git("commit", "--quiet", "-m", "one", cwd=origin)
    source = fetch(str(origin), "HEAD", tmp_path)
    argv = ["bash", "-ec", KINDS[kind]]
    left = task(source, tmp_path / "home", lambda there: subprocess.run(argv, cwd=there, check=True))
    found = judge(source, left["changes.patch"])
    assert found is not None
    work = tmp_path / "home/work"
    git("add", "--all", "--force", cwd=work)
    assert found.tree == git("write-tree", cwd=work)


def test_one_file_that_git_does_not_take_does_not_cost_the_others(origin: Path, tmp_path: Path) -> None:
    source = fetch(str(origin), "HEAD", tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    sent: list[dict[str, Any]] = []
    order = ORDER | {"commit": source.commit, "shallow": source.shallow, "bundle_bytes": source.bundle.stat().st_size}
    with source.bundle.open("rb") as bundle:
        there = Path(worktree.unpack(str(home), order, bundle))
    seen = worktree.look(str(home))
    (there / "git~1").mkdir()
    (there / "git~1/x").touch()
    (there / "new").write_text("new\n")
    with pytest.raises(worktree.Unusable, match="invalid path 'git~1/x'"):
        worktree.collect(str(home), order, seen, sent.append)
    assert b"+new" in base64.b64decode(sent[0]["data"])
