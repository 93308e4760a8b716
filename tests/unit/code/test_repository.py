"""Fetching and bundling one commit, with the real git, from ordinary and from hostile repositories."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from farmhand.code import repository
from farmhand.code.repository import GitFailed, fetch
from farmhand.core.errors import NotConfigured, UsageError
from farmhand.core.task import BUNDLE_REF
from tests.support.repositories import git


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A repository with three commits, a branch and a tag."""
    path = tmp_path / "origin"
    path.mkdir()
    git("init", "--quiet", "-b", "main", cwd=path)
    for number in range(3):
        (path / f"f{number}").write_text(f"{number}\n")
        git("add", ".", cwd=path)
        git("commit", "--quiet", "-m", f"c{number}", cwd=path)
    git("branch", "side", "HEAD~1", cwd=path)
    git("tag", "-a", "v1", "-m", "one", "HEAD~2", cwd=path)
    return path


def unpacked(source: repository.FetchedCommit, into: Path) -> Path:
    """What a sandbox makes of the bundle."""
    into.mkdir()
    git("init", "--quiet", cwd=into)
    if source.shallow:
        (into / ".git/shallow").write_text("".join(f"{commit}\n" for commit in source.shallow))
    git("fetch", "--quiet", str(source.bundle), BUNDLE_REF, cwd=into)
    git("checkout", "--quiet", "--detach", source.commit, cwd=into)
    return into


@pytest.mark.parametrize("ref", ["HEAD", "main", "refs/heads/main"])
@pytest.mark.parametrize(("depth", "commits"), [(1, 1), (2, 2), (0, 3)])
def test_a_bundle_has_the_commit_and_so_much_history(
    origin: Path, tmp_path: Path, ref: str, depth: int, commits: int
) -> None:
    source = fetch(str(origin), ref, tmp_path, depth=depth)
    assert source.commit == git("rev-parse", "main", cwd=origin)
    there = unpacked(source, tmp_path / "there")
    assert sorted(path.name for path in there.glob("f*")) == ["f0", "f1", "f2"]
    assert len(git("log", "--format=%h", cwd=there).split()) == commits


def test_branches_tags_and_commits_are_refs(origin: Path, tmp_path: Path) -> None:
    for number, (ref, name) in enumerate(
        [("side", "HEAD~1"), ("v1", "HEAD~2"), (git("rev-parse", "main", cwd=origin), "HEAD")]
    ):
        (tmp_path / str(number)).mkdir()
        assert fetch(str(origin), ref, tmp_path / str(number)).commit == git("rev-parse", name, cwd=origin)


@pytest.mark.parametrize(
    "address",
    [
        *("-x", "--upload-pack=touch PWNED", "ext::sh -c touch% PWNED", "file:///etc", "fd::7", "no/such/dir", ""),
        *(
            "https://",
            "http:///x",
            "https://user:secret@example.org/x.git",
            "origin",
            "testgit::x",
            "ssh://-oProxyCommand=x",
        ),
    ],
)
def test_what_is_no_repository_is_refused_before_git_sees_it(tmp_path: Path, address: str) -> None:
    with pytest.raises(UsageError) as caught:
        fetch(address, "HEAD", tmp_path)
    assert "secret" not in str(caught.value)
    assert not list(tmp_path.rglob("PWNED"))
    if address != "ssh://-oProxyCommand=x":
        assert isinstance(caught.value, UsageError)
        assert not (tmp_path / "source.git").exists()


@pytest.mark.parametrize(
    "ref", ["--upload-pack=touch PWNED", "-x", "", "a:b", "a..b", "a b", "*", "a^", "a~1", "+main"]
)
def test_what_is_no_ref_is_refused(origin: Path, tmp_path: Path, ref: str) -> None:
    with pytest.raises(UsageError):
        fetch(str(origin), ref, tmp_path)
    assert not list(tmp_path.rglob("PWNED"))


def test_a_ref_that_is_not_there_says_so(origin: Path, tmp_path: Path) -> None:
    for number, ref in enumerate(["nowhere", "0" * 40]):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(GitFailed) as caught:
            fetch(str(origin), ref, tmp_path / str(number))
        assert (caught.value.code, ref in str(caught.value)) == ("no_such_ref", True)


def test_an_empty_directory_is_no_repository(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(GitFailed) as caught:
        fetch(str(tmp_path / "empty"), "HEAD", tmp_path)
    assert caught.value.code == "clone_failed"


def test_a_hostile_repository_runs_nothing_here(origin: Path, tmp_path: Path) -> None:
    pwn = tmp_path / "PWNED"
    touch = f"touch {pwn}"
    config = {
        "core.fsmonitor": touch,
        "core.sshCommand": touch,
        "core.pager": touch,
        "core.editor": touch,
        "diff.external": touch,
        "diff.x.textconv": touch,
        "filter.x.clean": touch,
        "filter.x.smudge": touch,
        "filter.x.process": touch,
        "uploadpack.packObjectsHook": touch,
        "core.alternateRefsCommand": touch,
        "credential.helper": f"!{touch}",
        "alias.fetch": f"!{touch}",
    }
    (origin / ".gitattributes").write_text("* filter=x diff=x\n")
    (origin / ".gitmodules").write_text('[submodule "s"]\n\tpath = s\n\turl = ext::sh -c "touch PWNED"\n')
    git("add", ".", cwd=origin)
    git("commit", "--quiet", "-m", "attributes", cwd=origin)
    for name, value in config.items():
        git("config", name, value, cwd=origin)
    hooks = origin / ".git/hooks"
    for hook in (
        "post-checkout",
        "pre-push",
        "reference-transaction",
        "post-update",
        "pre-receive",
        "fsmonitor-watchman",
    ):
        (hooks / hook).write_text(f"#!/bin/sh\n{touch}\n")
        (hooks / hook).chmod(0o755)
    source = fetch(str(origin), "HEAD", tmp_path)
    assert source.bundle.exists()
    assert not pwn.exists()


def test_it_works_from_inside_a_hook(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """git gives a hook GIT_DIR and GIT_INDEX_FILE of another repository."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "elsewhere/index"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "elsewhere"))
    assert (
        fetch(str(origin), "HEAD", tmp_path).commit
        == subprocess.run(
            ["git", f"--git-dir={origin}/.git", "rev-parse", "HEAD"],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )


def test_every_kind_of_repository_is_fetched(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = tmp_path / "sha256"
    new.mkdir()
    git("init", "--quiet", "--object-format=sha256", cwd=new)
    git("commit", "--quiet", "--allow-empty", "-m", "x", cwd=new)
    git("clone", "--quiet", "--depth", "1", f"file://{origin}", str(tmp_path / "shallow"), cwd=tmp_path)
    git("worktree", "add", "--quiet", str(tmp_path / "linked"), "side", cwd=origin)
    git("clone", "--quiet", "--bare", str(origin), str(tmp_path / "bare.git"), cwd=tmp_path)
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    for name in ("sha256", "shallow", "linked", "bare.git"):
        for depth in (0, 1):
            into = tmp_path / f"{name}-{depth}"
            into.mkdir()
            source = fetch(str(tmp_path / name), "HEAD", into, depth=depth)
            assert source.commit == git("rev-parse", "HEAD", cwd=tmp_path / name)


def test_what_cannot_be_fetched_says_what_to_do(origin: Path, tmp_path: Path) -> None:
    (origin / "sub").mkdir()
    empty = tmp_path / "none"
    empty.mkdir()
    git("init", "--quiet", cwd=empty)
    git("config", "uploadpack.allowFilter", "true", cwd=origin)
    partial = str(tmp_path / "partial")
    git("clone", "--quiet", "--no-checkout", "--filter=blob:none", f"file://{origin}", partial, cwd=tmp_path)
    for number, (where, words) in enumerate(
        [
            (str(origin / "sub"), f"a directory of the repository {origin} (name that one, with --subdir sub)"),
            (str(empty), "the repository has no commit yet"),
            (partial, "of a partial clone, give"),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(GitFailed) as caught:
            fetch(where, "HEAD", tmp_path / str(number))
        assert words in str(caught.value)


def test_the_directory_to_start_in_is_one_of_the_commit(origin: Path, tmp_path: Path) -> None:
    (origin / "a").mkdir()
    (origin / "a/file").write_text("x")
    for name, target in (("in", "a"), ("out", "../.."), ("file", "f0"), ("nowhere", "b")):
        (origin / name).symlink_to(target)
    git("add", ".", cwd=origin)
    git("commit", "--quiet", "-m", "links", cwd=origin)
    source = fetch(str(origin), "HEAD", tmp_path)
    for good in ("", "a", "in"):
        repository.check_subdir(source, good)
    for bad in ("b", "f0", "file", "nowhere", "a/file", "a/b"):
        with pytest.raises(UsageError, match=f"the repository has no directory '{bad}'"):
            repository.check_subdir(source, bad)
    for out in ("out", "out/x"):
        with pytest.raises(UsageError, match="is a link out of the repository"):
            repository.check_subdir(source, out)


def test_submodules_are_named(origin: Path, tmp_path: Path) -> None:
    git("submodule", "add", "--quiet", str(origin), "s", cwd=origin)
    git("commit", "--quiet", "-m", "s", cwd=origin)
    assert repository.submodules(fetch(str(origin), "HEAD", tmp_path)) == "s"


def test_without_git_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    repository._local_names.cache_clear()
    with pytest.raises(NotConfigured, match=r"git cannot be started: No such file or directory \(install git\)"):
        fetch(str(tmp_path), "HEAD", tmp_path)


def test_a_tag_of_a_file_or_a_tree_is_no_commit(origin: Path, tmp_path: Path) -> None:
    git("tag", "file", "HEAD:f0", cwd=origin)
    git("tag", "tree", "HEAD^{tree}", cwd=origin)
    for number, ref in enumerate(("file", "tree")):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(GitFailed, match=f"'{ref}' of the repository is no commit") as caught:
            fetch(str(origin), ref, tmp_path / str(number))
        assert caught.value.code == "no_such_ref"
    with pytest.raises(UsageError, match="is not the name of a branch"):
        fetch(str(origin), "main@{1}", tmp_path)
