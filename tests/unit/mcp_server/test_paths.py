"""Which files a session may have sent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from farmhand.core.errors import Refused, UsageError
from farmhand.mcp_server.paths import Paths

KEY = "sk-ant-test-0123456789abcdefghij"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    root = tmp_path / "work"
    root.mkdir()
    (root / "a.txt").write_text("a")
    return root


def test_files_of_the_roots_by_name_directory_and_pattern(root: Path, tmp_path: Path) -> None:
    (root / "sub").mkdir()
    (root / "sub/b.md").write_text("b")
    other = tmp_path / "other"
    other.mkdir()
    (other / "c.txt").write_text("c")
    paths = Paths([root, other])
    found, left_out = paths.files(["a.txt", "sub", "**/*.md", str(other / "c.txt")])
    assert [paths.shown(path) for path in found] == ["a.txt", "sub/b.md", "c.txt"]
    assert left_out == []


def test_what_is_no_file_is_passed_over_and_what_cannot_be_read_is_named(root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "gone").symlink_to(root / "nowhere")
    assert Paths([root]).files(["."]) == ([root / "a.txt"], [])
    with pytest.raises(UsageError, match="'pipe' is not a regular file"):
        Paths([root]).files(["pipe"])
    with pytest.raises(UsageError, match="'mem': Input/output error"):
        Paths([Path("/proc/self")]).files(["mem"])


@pytest.mark.parametrize(
    "given", ["/etc/passwd", "../outside.txt", "link", "linked/outside.txt", "~/outside.txt", "sub/../../outside.txt"]
)
def test_nothing_outside_of_them_also_not_by_a_link(root: Path, tmp_path: Path, given: str) -> None:
    (tmp_path / "outside.txt").write_text("x")
    (root / "sub").mkdir()
    (root / "link").symlink_to(tmp_path / "outside.txt")
    (root / "linked").symlink_to(tmp_path)
    with pytest.raises(Refused, match="outside of the session"):
        Paths([root]).files([given])


@pytest.mark.parametrize(
    "name",
    [
        *(".env", ".env.local", "prod.env", "repos.env", "id_rsa", "server.pem", "tls.key", ".netrc"),
        *(".ssh/config", ".aws/config", "secrets.yml", ".git-credentials", "auth.json", ".vault-pass"),
        *("credentials.json", "deploy_ed25519"),
    ],
)
def test_files_with_secrets_are_refused_by_name(root: Path, name: str) -> None:
    path = root / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    with pytest.raises(Refused, match="may hold secrets"):
        Paths([root]).files([name])


def test_what_they_hold_counts_as_well_and_an_example_is_none(root: Path) -> None:
    (root / "notes.txt").write_text(f"the key is {KEY}")
    (root / "text.txt").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nx")
    (root / ".env.example").write_text("KEY=")
    paths = Paths([root], [root / "a.txt"])
    for name in ("notes.txt", "text.txt"):
        with pytest.raises(Refused, match="holds a key") as refused:
            paths.files([name])
        assert KEY not in str(refused.value)
    with pytest.raises(Refused, match="may hold secrets"):
        paths.files(["a.txt"])
    assert paths.file(".env.example").name == ".env.example"
    found, left_out = paths.files(["."])
    assert (found, sorted(left_out)) == ([], ["a.txt", "notes.txt", "text.txt"])


def test_what_is_hidden_in_a_home_is_refused_where_the_home_is_the_root(root: Path, tmp_path: Path) -> None:
    (tmp_path / ".config/tool").mkdir(parents=True)
    (tmp_path / ".config/tool/state").write_text("x")
    with pytest.raises(Refused):
        Paths([tmp_path]).file(".config/tool/state")
    assert Paths([tmp_path / ".config/tool"]).file("state").name == "state"


def test_no_directory_of_ones_own_no_device_no_missing_file(root: Path) -> None:
    with pytest.raises(Refused, match="no directory of its own"):
        Paths([Path("/")]).file("/etc/hostname")
    os.mkfifo(root / "pipe")
    for given, said in (("pipe", "not a regular file"), ("none", "No such file"), ("a\0", "NUL"), ("", "empty")):
        with pytest.raises(UsageError, match=said):
            Paths([root]).file(given)
