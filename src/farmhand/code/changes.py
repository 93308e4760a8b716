"""The patch that a repository task returns: what it would change, judged by git itself, before anyone applies it."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from farmhand.code.repository import FetchedCommit, GitFailed, git
from farmhand.core.errors import FarmhandError, NotConfigured
from farmhand.core.task import MAX_PATCH_BYTES

#: Files that other programs act on, and directories of them: of CI servers, git, editors, shells and coding agents. A
#: name without what is below it counts too: it could be a link to another directory. Of all that begin with .git only
#: two do not: .gitignore makes git run nothing, and .gitkeep is a habit.
_ACTED_ON = re.compile(
    r"(?:^|/)(?:"
    r"\.git(?!(?:ignore|keep)\Z)[^/]*"
    r"|\.circleci|\.travis\.ya?ml|azure-pipelines[^/]*\.ya?ml|Jenkinsfile[^/]*|\.drone\.ya?ml|\.woodpecker(?:\.ya?ml)?"
    r"|bitbucket-pipelines\.ya?ml|\.buildkite|\.forgejo|buildspec\.ya?ml|cloudbuild\.ya?ml|\.cirrus\.ya?ml"
    r"|\.?appveyor\.ya?ml|\.semaphore|\.teamcity|\.tekton|\.build\.ya?ml|\.builds|\.?zuul(?:\.ya?ml|\.d)"
    r"|\.husky|\.pre-commit-config\.ya?ml|\.?lefthook(?:-local)?(?:\.(?:ya?ml|toml|json))?"
    r"|\.envrc|\.vscode|[^/]*\.code-workspace|\.idea|\.devcontainer(?:\.json)?|\.zed|\.fleet"
    r"|\.exrc|\.nvimrc|\.nvim\.lua|\.dir-locals(?:-2)?\.el"
    r"|\.mcp\.json|\.(?:claude|claude-plugin|cursor|codex|gemini|windsurf|agents|opencode|roo|kilocode|kiro|amazonq|augment)"
    r"|\.(?:junie|qwen|continue|factory|crush|pi|trae)|opencode\.jsonc?|\.?crush\.json|\.aider\.conf\.ya?ml|\.goosehints"
    r"|\.(?:cursor|windsurf|cline|roo|continue)rules"
    r"|(?:CLAUDE|CLAUDE\.local|AGENTS?|AGENTS\.override|GEMINI|QWEN|CRUSH|WARP)\.md"
    r")(?:/.*)?\Z",
    re.IGNORECASE | re.DOTALL,
)
_LINK, _SUBMODULE = "120000", "160000"


class Changes(NamedTuple):
    """A patch that applies: its size, and the tree of the commit with it."""

    files: int
    insertions: int
    deletions: int
    tree: str


class PatchRefused(FarmhandError):
    """The patch must not be used; the message names the file."""

    exit_code = 5


def judge(source: FetchedCommit, patch: bytes, *, allow_ci: bool = False) -> Changes | None:
    """Return what `patch` changes in the commit of `source`, None if nothing. Nothing is checked out.

    Raise PatchRefused: `patch_too_big`, `patch_broken`, `patch_unsafe`, or without `allow_ci` `patch_acted_on`.
    """
    if len(patch) > MAX_PATCH_BYTES:
        raise PatchRefused(f"the patch is larger than {MAX_PATCH_BYTES >> 20} MB", code="patch_too_big")
    if not patch:
        return None
    index = source.git_dir / "index.farmhand"
    try:
        git(["read-tree", source.commit], source.git_dir, index=index)
        git(["apply", "--cached", "--whitespace=nowarn", "-"], source.git_dir, data=patch, index=index)
        tree = git(["write-tree"], source.git_dir, index=index).decode().strip()
    except GitFailed as error:
        raise PatchRefused(f"the patch does not apply: {error}", code="patch_broken") from None
    finally:
        index.unlink(missing_ok=True)
    changed = git(["diff-tree", "-r", "-z", "--raw", "--no-renames", source.commit, tree], source.git_dir)
    reached = () if allow_ci else _reached(source)
    for mode, blob, path in _rows(changed):
        _check_path(source, mode, blob, path, reached, allow_ci=allow_ci)
    counted = git(["diff-tree", "-r", "-z", "--numstat", "--no-renames", source.commit, tree], source.git_dir)
    rows = [row.split(b"\t") for row in counted.split(b"\0") if row.count(b"\t") >= 2]
    added, removed = (sum(int(row[column]) for row in rows if row[column] != b"-") for column in (0, 1))
    return Changes(len(rows), added, removed, tree) if rows else None


def commit(source: FetchedCommit, changes: Changes, message: str) -> str:
    """Return a commit of the changes on top of the source's, by the operator's own git identity. Raise GitFailed."""
    words = ["commit-tree", "-p", source.commit, changes.tree]
    return git(words, source.git_dir, data=message.encode()).decode().strip()


def check_push(source: FetchedCommit, repository: str, branch: str) -> None:
    """Raise GitFailed or NotConfigured where `commit` and `push` would: before the work is done and paid for."""
    for who in ("AUTHOR", "COMMITTER"):
        try:
            git(["var", f"GIT_{who}_IDENT"], source.git_dir)
        except GitFailed as error:
            hint = "git config --global user.name …, and user.email …"
            raise NotConfigured(f"git does not know who commits for --push: {error}", hint=hint) from None
    # A commit that no branch has: one that is there with the same commit would be no refusal.
    tried = git(["commit-tree", "-p", source.commit, f"{source.commit}^{{tree}}"], source.git_dir, data=b"tried\n")
    push(source, tried.decode().strip(), repository, branch, only_try=True)
    _check_beside(source, repository, branch)


def check_lfs(source: FetchedCommit, changes: Changes) -> None:
    """Raise PatchRefused if the patch changes a file that Git LFS keeps: a commit made here would hold all of it."""
    index = source.git_dir / "index.farmhand"
    names = git(
        ["diff-tree", "-r", "-z", "--name-only", "--diff-filter=d", source.commit, changes.tree], source.git_dir
    )
    try:
        git(["read-tree", changes.tree], source.git_dir, index=index)
        words = ["check-attr", "--cached", "--stdin", "-z", "filter"]
        parts = git(words, source.git_dir, index=index, data=names).split(b"\0")
    finally:
        index.unlink(missing_ok=True)
    for name, value in zip(parts[::3], parts[2::3], strict=False):
        if value == b"lfs":
            shown = ascii(os.fsdecode(name))[1:-1]
            hint = "apply the patch in a clone of yours, and commit there"
            raise PatchRefused(f"Git LFS keeps {shown}, and --push does not", hint=hint, code="lfs_file")


def push(source: FetchedCommit, made: str, repository: str, branch: str, *, only_try: bool = False) -> None:
    """Push the commit `made` as a new branch with the operator's login. Raise GitFailed if the branch is there.

    With `only_try`, ask the other side and change nothing.
    """
    if Path(repository).is_dir():
        repository = str(Path(repository).resolve())
    # The lease of an absent branch: nobody's branch is replaced.
    words = ["push", "--quiet", "--no-verify", f"--force-with-lease=refs/heads/{branch}:"]
    words += ["--dry-run"] if only_try else []
    try:
        git([*words, "--", repository, f"{made}:refs/heads/{branch}"], source.git_dir)
    except GitFailed as error:
        if "stale info" in str(error):
            hint = "give --push another name"
            raise GitFailed(f"the branch {branch} is there already", code="branch_exists", hint=hint) from None
        raise GitFailed(f"git cannot push {branch}: {error}", code="push_failed") from None


def _check_beside(source: FetchedCommit, repository: str, branch: str) -> None:
    """Raise GitFailed if the other side has a branch `a` for `a/b`, or the reverse: a trial does not find that out."""
    if Path(repository).is_dir():
        repository = str(Path(repository).resolve())
    parts = branch.split("/")
    above = {"refs/heads/" + "/".join(parts[:count]) for count in range(1, len(parts))}
    below = f"refs/heads/{branch}/"
    rows = git(["ls-remote", "--heads", "--", repository, *sorted(above), f"{below}*"], source.git_dir)
    for name in (row.partition("\t")[2] for row in rows.decode("utf-8", "replace").splitlines()):
        if name in above or name.startswith(below):
            other = name.removeprefix("refs/heads/")
            hint = "give --push another name"
            raise GitFailed(f"{branch} cannot be beside the branch {other}", code="branch_exists", hint=hint)


def _rows(raw: bytes) -> list[tuple[str, str, str]]:
    """Return (new mode, new blob, path) of each change in `git diff-tree --raw -z`."""
    parts = raw.split(b"\0")
    rows = []
    for head, path in zip(parts[::2], parts[1::2], strict=False):
        _, mode, _, blob, _ = head.decode("ascii").split(" ")
        rows.append((mode, blob, path.decode("utf-8", "surrogateescape")))
    return rows


def _reached(source: FetchedCommit) -> tuple[str, ...]:
    """Return the paths of the commit to which its links lead that other programs act on: AGENTS.md → docs/agents.md."""
    listed = git(["ls-tree", "-r", "-z", source.commit], source.git_dir).split(b"\0")
    links = {}
    for head, _, name in (row.partition(b"\t") for row in listed if row.startswith(_LINK.encode())):
        links[name.decode("utf-8", "surrogateescape")] = head.split()[2].decode("ascii")
    found: set[str] = set()
    # A link may lead to another one.
    while wanted := [path for path in links if _ACTED_ON.search(path) or _in(path, found)]:
        found |= {_target(source, links.pop(path), path) for path in wanted}
    return tuple(found)


def _target(source: FetchedCommit, blob: str, path: str) -> str:
    target = git(["cat-file", "blob", blob], source.git_dir).decode("utf-8", "surrogateescape")
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))


def _in(path: str, places: Collection[str]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


def _check_path(
    source: FetchedCommit, mode: str, blob: str, path: str, reached: Collection[str], *, allow_ci: bool
) -> None:
    shown = ascii(path)[1:-1]
    if mode == _SUBMODULE:
        raise PatchRefused(f"the patch makes {shown} a submodule", code="patch_unsafe")
    if mode == _LINK:
        target = git(["cat-file", "blob", blob], source.git_dir).decode("utf-8", "surrogateescape")
        there = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        # After a name that may itself be a link, nobody can tell where `..` leads.
        up = [part for part in target.split("/") if part not in ("", ".")]
        odd = ".." in up[next((n for n, part in enumerate(up) if part != ".."), len(up)) :]
        out = odd or posixpath.isabs(target) or there.startswith("../") or there == ".."
        if out or ".git" in there.lower().split("/"):
            raise PatchRefused(f"the patch makes {shown} a link out of the repository", code="patch_unsafe")
    if not allow_ci and (_ACTED_ON.search(path) or _in(path, reached)):
        hint = "read it, then --allow-ci-changes"
        raise PatchRefused(f"the patch changes {shown}, which other programs act on", hint=hint, code="patch_acted_on")
