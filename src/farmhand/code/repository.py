"""One commit of a repository as a bundle, fetched with the operator's own git and its login.

Nothing is checked out here and no program of the repository runs: the files exist only inside the wall. Submodules and
files of Git LFS are not fetched.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import NamedTuple

from farmhand.code.login import GitSetup, TokenLogin
from farmhand.core.child import scrubbed
from farmhand.core.errors import FarmhandError, NotConfigured, UsageError
from farmhand.core.keys import redact
from farmhand.core.task import BUNDLE_REF, MAX_BUNDLE_BYTES

#: Transports that may be used, also after a rewrite by the operator's url.*.insteadOf.
_PROTOCOLS = "file:git:http:https:ssh"
_URL = re.compile(r"(?:https?|ssh|git)://[^\s/-][^\s/]*/\S+")
_SCP = re.compile(r"(?:[A-Za-z0-9_.][A-Za-z0-9._-]*@)?[A-Za-z0-9_.][A-Za-z0-9._-]*:(?!:|//)\S+")
_LOGIN = re.compile(r"https?://[^/@\s]*:[^/@\s]+@")
#: Everything that a repository could make git run, switched off; login and transport stay the operator's.
_QUIET = (
    *("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.attributesFile=/dev/null", "gc.auto=0"),
    *("submodule.recurse=false", "fetch.recurseSubmodules=false", "maintenance.auto=false"),
    # Names that other file systems take for .git are refused here too.
    *("core.protectHFS=true", "core.protectNTFS=true", "advice.detachedHead=false"),
)
#: What git says, and what that means here.
_MEANINGS = (
    (("couldn't find remote ref HEAD",), "the repository has no commit yet, or no default branch", "", "no_such_ref"),
    (
        ("couldn't find remote ref", "not our ref", "unadvertised object"),
        "the repository has no {ref!r}",
        "a branch, a tag or a whole commit id",
        "no_such_ref",
    ),
    (("shallow capabilities",), "its server cannot cut a history: {said}", "--depth 0 fetches all of it", ""),
    (
        ("lazy fetching disabled", "git-pack-objects died"),
        "git cannot fetch it: objects are missing there",
        "of a partial clone, give the address of its origin",
        "",
    ),
    (("dubious ownership",), "git cannot fetch it: {said}", "git config --global --add safe.directory PATH", ""),
    (("No space left on device",), "git cannot fetch it: {said}", "make room, or set TMPDIR to where it is", ""),
    (("",), "git cannot fetch it: {said}", "try: git ls-remote with the same address", ""),
)


class FetchedCommit(NamedTuple):
    """A fetched commit: the bare repository with it, its bundle, and the commits at which its history is cut."""

    git_dir: Path
    bundle: Path
    commit: str
    shallow: tuple[str, ...]


class GitFailed(FarmhandError):
    """A git command failed; the message is its last line."""


def check(repository: str, ref: str) -> None:
    """Raise UsageError if git could take `repository` or `ref` for something else than what they are."""
    if not os.path.isdir(repository) and not _URL.fullmatch(repository) and not _SCP.fullmatch(repository):
        hint = "a directory, https://…, ssh://… or user@host:path"
        raise UsageError(
            f"{repository!r} is not a repository that can be fetched", hint=hint, code="invalid_repository"
        )
    if repository.startswith("-"):
        raise UsageError(f"{repository!r} begins with a dash", hint=f"write ./{repository}", code="invalid_repository")
    if _LOGIN.match(repository):
        hint = "use git's credential helper: other users can see a command's arguments"
        raise UsageError("the repository's address has a password in it", hint=hint, code="invalid_repository")
    if ref.startswith(("-", "+")) or not ref or any(c in ref for c in ":*?[\\^~ \t\n") or ".." in ref or "@{" in ref:
        raise UsageError(f"{ref!r} is not the name of a branch, a tag or a commit", code="invalid_ref")


def check_branch(name: str) -> None:
    """Raise UsageError if `name` cannot be a branch. Source: git check-ref-format."""
    if name.startswith("refs/"):
        raise UsageError(f"{name!r} is the name of a ref", hint="the branch's name alone", code="invalid_ref")
    try:
        git(["check-ref-format", "--branch", name])
    except GitFailed:
        raise UsageError(f"{name!r} cannot be the name of a branch", code="invalid_ref") from None


def fetch(repository: str, ref: str, into: Path, *, depth: int = 1, login: TokenLogin | None = None) -> FetchedCommit:
    """Fetch `ref` of `repository` and bundle it. `depth` commits of history go along; 0 means all.

    With `login`, git uses that in the place of the operator's own login and settings.

    Raise UsageError, NotConfigured without git, and GitFailed (`no_such_ref`, `clone_failed`, `too_large`).
    """
    check(repository, ref)
    git_dir = into / "source.git"
    cut = [f"--depth={depth}"] if depth else []
    address = os.path.abspath(repository) if os.path.isdir(repository) else repository
    command = ["fetch", "--quiet", "--no-tags", "--no-write-commit-graph", "--update-shallow", *cut, "--", address]
    try:
        _fetch([*command, ref], git_dir, login)
    except GitFailed as error:
        raise _explained(error, repository, ref) from None
    try:
        commit = git(["rev-parse", "--verify", "--quiet", "FETCH_HEAD^{commit}"], git_dir).decode().strip()
    except GitFailed:
        hint = "a branch, a tag or a whole commit id"
        raise GitFailed(f"{ref!r} of the repository is no commit", code="no_such_ref", hint=hint) from None
    git(["update-ref", BUNDLE_REF, commit], git_dir)
    bundle = into / "source.bundle"
    git(["bundle", "create", "--quiet", str(bundle), BUNDLE_REF], git_dir)
    if bundle.stat().st_size > MAX_BUNDLE_BYTES:
        raise GitFailed("the repository is larger than 2 GB", code="too_large", hint="give a smaller --depth")
    cuts = git_dir / "shallow"
    return FetchedCommit(git_dir, bundle, commit, tuple(cuts.read_text("ascii").split()) if cuts.exists() else ())


def submodules(source: FetchedCommit) -> str:
    """Return the names of the commit's submodules, a few of them if they are many."""
    rows = git(["ls-tree", "-r", "-z", source.commit], source.git_dir).split(b"\0")
    found = [ascii(os.fsdecode(row.partition(b"\t")[2]))[1:-1] for row in rows if row.startswith(b"160000 ")]
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")


def check_subdir(source: FetchedCommit, subdir: str) -> None:
    """Raise UsageError if the commit has no such directory, or a link of that name leads out of the repository.

    Source: git-cat-file(1), --follow-symlinks.
    """
    if not subdir or "\n" in subdir:  # of the second kind the sandbox says it
        return
    named = f"{source.commit}:{subdir}\n".encode("utf-8", "surrogateescape")
    words = ["cat-file", "--batch-check=%(objecttype)", "--follow-symlinks"]
    said = git(words, source.git_dir, data=named).decode("utf-8", "replace")
    if said.startswith("symlink "):
        raise UsageError(f"--subdir {subdir!r} is a link out of the repository", code="invalid_subdir")
    if said.strip() != "tree":
        raise UsageError(f"the repository has no directory {subdir!r}", hint="see --subdir", code="invalid_subdir")


def _fetch(command: Sequence[str], git_dir: Path, login: TokenLogin | None) -> None:
    """Fetch into a new repository of the kind that the other side is. Raise GitFailed."""
    for kind, other in (("sha1", "sha256"), ("sha256", "")):
        git(["init", "--quiet", "--bare", f"--object-format={kind}", str(git_dir)])
        try:
            git(command, git_dir, login=login)
        except GitFailed as error:
            if "mismatched algorithms" not in str(error) or not other:
                raise
            shutil.rmtree(git_dir)
        else:
            return


def git(
    words: Sequence[str],
    git_dir: Path | None = None,
    *,
    data: bytes | None = None,
    index: Path | None = None,
    login: TokenLogin | None = None,
) -> bytes:
    """Return the stdout of a git command that runs nothing of the repository. Raise GitFailed, NotConfigured."""
    where = [f"--git-dir={git_dir}"] if git_dir is not None else []
    with login.opened() if login is not None else nullcontext(_own_setup()) as setup:
        environ = dict(setup.environ) | ({"GIT_INDEX_FILE": str(index)} if index is not None else {})
        settings = [word for setting in (*_QUIET, *setup.settings) for word in ("-c", setting)]
        try:
            done = subprocess.run(
                ["git", *settings, *where, *words],
                env=environ,
                input=data,
                capture_output=True,
                pass_fds=setup.descriptors,
                check=False,
            )
        except OSError as error:
            raise _no_git(error) from None
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        told = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", " ! "))] or lines
        said = redact(told[0].strip())
        raise GitFailed(said if login is None else login.hidden(said), code="clone_failed")
    return done.stdout


def _own_setup() -> GitSetup:
    """Return the setup with the operator's own login and settings."""
    environ = {name: value for name, value in scrubbed().items() if name not in _local_names()}
    return GitSetup((), environ | {"GIT_ALLOW_PROTOCOL": _PROTOCOLS, "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C.UTF-8"})


@cache
def _local_names() -> frozenset[str]:
    """Return git's variables that name a repository: set where this command is called by a hook or an alias."""
    words = ["git", "rev-parse", "--local-env-vars"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        raise _no_git(error) from None
    return frozenset(done.stdout.split())


def _no_git(error: OSError) -> NotConfigured:
    return NotConfigured(f"git cannot be started: {error.strerror}", hint="install git")


def _explained(error: GitFailed, repository: str, ref: str) -> GitFailed:
    said = str(error)
    path = Path(repository).resolve()
    around = [] if not path.is_dir() else [top for top in path.parents if (top / ".git").exists()]
    if around and not (path / ".git").exists() and "not appear to be a git repository" in said:
        hint = f"name that one, with --subdir {path.relative_to(around[0])}"
        return GitFailed(f"{repository} is a directory of the repository {around[0]}", code="clone_failed", hint=hint)
    message, hint, code = next(
        (message, hint, code) for signs, message, hint, code in _MEANINGS if any(sign in said for sign in signs)
    )
    return GitFailed(message.format(said=said, ref=ref), code=code or "clone_failed", hint=hint)
