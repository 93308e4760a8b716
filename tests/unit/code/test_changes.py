"""What is made of a patch, honest or not, by git itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from farmhand.code import changes
from farmhand.code.changes import PatchRefused, judge
from farmhand.code.repository import FetchedCommit, GitFailed, fetch
from farmhand.core.errors import NotConfigured
from farmhand.core.task import MAX_PATCH_BYTES
from tests.support.repositories import git
from tests.unit.code.test_repository import origin, unpacked

__all__ = ["origin"]


@pytest.fixture
def source(origin: Path, tmp_path: Path) -> FetchedCommit:
    return fetch(str(origin), "HEAD", tmp_path)


@pytest.fixture
def patch(source: FetchedCommit, tmp_path: Path) -> Callable[[Callable[[Path], object]], bytes]:
    """The patch of what a function does to the files."""
    there = unpacked(source, tmp_path / "there")

    def made(work: Callable[[Path], object]) -> bytes:
        work(there)
        git("add", "--all", "--force", cwd=there)
        git("diff", "--cached", "--binary", f"--output={tmp_path}/p.patch", source.commit, cwd=there)
        return (tmp_path / "p.patch").read_bytes()

    return made


Made = Callable[[Callable[[Path], object]], bytes]


def test_an_honest_patch_is_counted_and_becomes_a_commit(source: FetchedCommit, patch: Made, tmp_path: Path) -> None:
    def work(there: Path) -> None:
        (there / "f0").write_text("0\n1\nzwei é\n")
        (there / "f1").unlink()
        (there / "neu/ordner").mkdir(parents=True)
        (there / "neu/ordner/bin är").write_bytes(bytes(range(256)))
        (there / "link").symlink_to("neu/ordner")

    found = judge(source, patch(work))
    assert found is not None
    assert (found.files, found.insertions, found.deletions) == (4, 3, 1)
    git("config", "user.name", "b", cwd=source.git_dir)
    git("config", "user.email", "b@example.org", cwd=source.git_dir)
    made = changes.commit(source, found, "subject\n\nbody")
    assert git("log", "-1", "--format=%s|%P|%an", made, cwd=source.git_dir) == f"subject|{source.commit}|b"


def test_no_change_is_no_patch(source: FetchedCommit, patch: Made) -> None:
    assert judge(source, b"") is None
    assert judge(source, patch(lambda there: None)) is None


@pytest.mark.parametrize(
    "name",
    [
        *(".github/workflows/x.yml", "sub/.GitHub/Workflows/x.yml", ".gitlab-ci.yml", ".gitmodules", ".gitattributes"),
        *("Jenkinsfile", ".circleci/config.yml", ".claude/settings.json", ".mcp.json", ".vscode/tasks.json", ".envrc"),
        *("a/.github/x\ny.yml", ".github/CODEOWNERS", ".github/dependabot.yml", ".gitlab/ci/x.yml", ".gitpod.yml"),
        *("Jenkinsfile\n", "CLAUDE.md", "sub/AGENTS.md", ".cursorrules", ".codex/x", ".github"),
        *(".cirrus.yml", "appveyor.yml", "lefthook.yml", ".exrc", "x.code-workspace", ".zed/tasks.json", ".agents/x"),
        *(".opencode/x", "opencode.json", ".kiro/x", ".roo/x", "QWEN.md", ".aider.conf.yml", ".clinerules"),
        *("a/.husky/pre-commit", "azure-pipelines.yml", ".pre-commit-config.yaml", ".devcontainer/devcontainer.json"),
    ],
)
def test_files_that_other_programs_act_on_need_a_word(source: FetchedCommit, patch: Made, name: str) -> None:
    def work(there: Path) -> None:
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text("x\n")

    made = patch(work)
    with pytest.raises(PatchRefused) as caught:
        judge(source, made)
    assert (caught.value.code, caught.value.exit_code) == ("patch_acted_on", 5)
    assert judge(source, made, allow_ci=True) is not None


@pytest.mark.parametrize("name", [".claude", ".vscode", "sub/.husky", ".circleci", ".cursor", ".agents"])
def test_a_link_is_no_way_around_a_name(source: FetchedCommit, patch: Made, name: str) -> None:
    """What is below the name comes under another one then."""

    def work(there: Path) -> None:
        (there / "tools").mkdir()
        (there / "tools/settings.json").write_text("{}\n")
        (there / name).parent.mkdir(exist_ok=True)
        (there / name).symlink_to("../tools" if "/" in name else "tools")

    with pytest.raises(PatchRefused, match="which other programs act on"):
        judge(source, patch(work))


@pytest.mark.parametrize(
    ("name", "refused"), [("docs/agents.md", True), ("prompts/deep/new", True), ("prompts/deep", True), ("f0", False)]
)
def test_what_a_link_of_the_repository_leads_to_is_acted_on(
    origin: Path, tmp_path: Path, name: str, refused: bool
) -> None:
    for directory in ("docs", ".claude", "prompts/deep"):
        (origin / directory).mkdir(parents=True)
    (origin / "docs/agents.md").write_text("a\n")
    (origin / "AGENTS.md").symlink_to("docs/agents.md")
    (origin / "prompts/deep/x.md").write_text("x\n")
    (origin / "skills").symlink_to("prompts/deep")
    (origin / ".claude/skills").symlink_to("../skills")
    git("add", ".", cwd=origin)
    git("commit", "--quiet", "-m", "links", cwd=origin)
    source = fetch(str(origin), "HEAD", tmp_path)
    there = unpacked(source, tmp_path / "there")
    if (there / name).is_dir():
        (there / name).rename(there / "moved")
    (there / name).write_text("changed\n")
    git("add", "--all", cwd=there)
    git("diff", "--cached", f"--output={tmp_path}/p.patch", source.commit, cwd=there)
    made = (tmp_path / "p.patch").read_bytes()
    assert judge(source, made, allow_ci=True) is not None
    if refused:
        with pytest.raises(PatchRefused, match="which other programs act on"):
            judge(source, made)
    else:
        assert judge(source, made) is not None


@pytest.mark.parametrize(
    "name", ["src/github/workflows/x.yml", ".gitignore", "a/.gitkeep", "jenkins/file", "claude/x", "docs/CLAUDE.md.txt"]
)
def test_files_with_names_like_them_do_not(source: FetchedCommit, patch: Made, name: str) -> None:
    def work(there: Path) -> None:
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text("x\n")

    assert judge(source, patch(work)) is not None


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "a/../../x", ".git/hooks", ".GIT/config"])
def test_a_link_out_of_the_repository_is_refused(source: FetchedCommit, patch: Made, target: str) -> None:
    made = patch(lambda there: (there / "link").symlink_to(target))
    with pytest.raises(PatchRefused, match="link out of the repository") as caught:
        judge(source, made, allow_ci=True)
    assert caught.value.code == "patch_unsafe"


def test_a_link_whose_way_goes_through_another_link_is_refused(source: FetchedCommit, patch: Made) -> None:
    def work(there: Path) -> None:
        (there / "a/b").mkdir(parents=True)
        (there / "a/b/top").symlink_to("../..")
        (there / "out").symlink_to("a/b/top/../..")

    with pytest.raises(PatchRefused, match="makes out a link out of the repository"):
        judge(source, patch(work))


def test_a_file_that_lfs_keeps_is_not_pushed(source: FetchedCommit, patch: Made) -> None:
    def work(there: Path) -> None:
        (there / ".gitattributes").write_text("*.bin filter=lfs\n")
        (there / "a.bin").write_text("x\n")

    found = judge(source, patch(work), allow_ci=True)
    assert found is not None
    with pytest.raises(PatchRefused, match=r"Git LFS keeps a\.bin"):
        changes.check_lfs(source, found)
    plain = judge(source, patch(lambda there: (there / "a.bin").unlink()), allow_ci=True)
    assert plain is not None
    changes.check_lfs(source, plain)


def test_a_push_that_would_fail_fails_before_the_work(
    source: FetchedCommit, origin: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".gitconfig").write_text("[user]\n\tuseConfigOnly = true\n")
    with pytest.raises(NotConfigured, match="does not know who commits"):
        changes.check_push(source, str(origin), "new")
    (tmp_path / ".gitconfig").write_text("[user]\n\tname = b\n\temail = b@example.org\n")
    changes.check_push(source, str(origin), "new")
    assert "new" not in git("branch", "--list", cwd=origin)
    for name in ("side", "main"):  # main has the very commit
        with pytest.raises(GitFailed, match=f"the branch {name} is there already"):
            changes.check_push(source, str(origin), name)
    git("branch", "deep/er", cwd=origin)
    for name in ("side/x/y", "deep"):
        with pytest.raises(GitFailed, match=f"{name} cannot be beside the branch (side|deep/er)"):
            changes.check_push(source, str(origin), name)
    changes.check_push(source, str(origin), "deep/or")
    with pytest.raises(GitFailed, match="git cannot push new: "):
        changes.check_push(source, str(tmp_path / "nowhere"), "new")


def test_a_submodule_is_refused(source: FetchedCommit, patch: Made) -> None:
    def work(there: Path) -> None:
        (there / "sub").mkdir()
        git("init", "--quiet", cwd=there / "sub")
        git("commit", "--quiet", "--allow-empty", "-m", "x", cwd=there / "sub")

    with pytest.raises(PatchRefused, match="submodule"):
        judge(source, patch(work), allow_ci=True)


@pytest.mark.parametrize(
    "text",
    [
        b"not a patch",
        b"diff --git a/f0 b/f0\n--- a/f0\n+++ b/f0\n@@ -1 +1 @@\n-9\n+8\n",
        b"diff --git a/.git/x b/.git/x\nnew file mode 100755\n--- /dev/null\n+++ b/.git/x\n@@ -0,0 +1 @@\n+x\n",
        b"diff --git a/../x b/../x\nnew file mode 100644\n--- /dev/null\n+++ b/../x\n@@ -0,0 +1 @@\n+x\n",
        b"diff --git a//etc/x b//etc/x\nnew file mode 100644\n--- /dev/null\n+++ b//etc/x\n@@ -0,0 +1 @@\n+x\n",
        b"\0" * 100,
    ],
)
def test_a_patch_that_git_refuses_is_one_line(source: FetchedCommit, text: bytes) -> None:
    with pytest.raises(PatchRefused) as caught:
        judge(source, text)
    assert caught.value.code == "patch_broken"
    assert "\n" not in str(caught.value)


def test_a_patch_that_is_too_big_is_not_read(source: FetchedCommit) -> None:
    with pytest.raises(PatchRefused, match="20 MB"):
        judge(source, b"x" * (MAX_PATCH_BYTES + 1))


def test_a_push_makes_a_new_branch_and_replaces_none(
    source: FetchedCommit,
    patch: Made,
    origin: Path,
) -> None:
    found = judge(source, patch(lambda there: (there / "new").write_text("x\n")))
    assert found is not None
    git("config", "user.name", "b", cwd=source.git_dir)
    git("config", "user.email", "b@example.org", cwd=source.git_dir)
    made = changes.commit(source, found, "x")
    changes.push(source, made, str(origin), "farmhand/x")
    assert git("rev-parse", "farmhand/x", cwd=origin) == made
    with pytest.raises(GitFailed):
        changes.push(source, made, str(origin), "side")
    assert git("rev-parse", "side", cwd=origin) == git("rev-parse", "main~1", cwd=origin)
