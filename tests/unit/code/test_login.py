"""A fetch with a token: it reaches the one server, and nobody else sees it."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmhand.code import repository
from farmhand.code.login import TokenLogin, check_url
from farmhand.code.repository import GitFailed, fetch
from farmhand.core.errors import FarmhandError, UsageError
from tests.support.git_server import GitServer
from tests.support.repositories import git, make_repository

TOKEN = "ghp_test_canary_of_the_git_login_000000"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    """A private repository with one commit."""
    work = make_repository(tmp_path / "served" / "work")
    git("clone", "--quiet", "--bare", str(work), str(tmp_path / "served" / "private.git"), cwd=tmp_path)
    with GitServer(tmp_path / "served", TOKEN) as running:
        yield running


def into(tmp_path: Path) -> Path:
    made = tmp_path / f"into{time.monotonic_ns()}"
    made.mkdir()
    return made


def test_a_private_repository_is_fetched_with_the_token(server: GitServer, tmp_path: Path) -> None:
    url, directory = f"{server.url}/private.git", into(tmp_path)
    found = fetch(url, "main", directory, login=TokenLogin(url, TOKEN))
    assert git("rev-parse", "main", cwd=tmp_path / "served" / "work").strip() == found.commit
    assert found.bundle.stat().st_size > 0
    kept = b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())
    assert TOKEN.encode() not in kept
    assert any(given for _, given in server.asked)


def test_no_process_has_the_token_in_its_arguments_or_environment(
    server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """See gitingest#605 and gitnado#448. The sweep is over every process of this machine while git asks."""
    monkeypatch.setenv("GIT_TRACE", "1")
    monkeypatch.setenv("GIT_TRACE_CURL", "1")
    seen: list[str] = []
    over = threading.Event()

    def sweep() -> None:
        while not over.is_set():
            for path in (*Path("/proc").glob("[0-9]*/cmdline"), *Path("/proc").glob("[0-9]*/environ")):
                try:
                    text = path.read_bytes()
                except OSError:
                    continue
                if b"git-remote-http" in text and path.name == "cmdline":
                    seen.append("git")
                if TOKEN.encode() in text:
                    seen.append(str(path))

    watcher = threading.Thread(target=sweep)
    watcher.start()
    try:
        for _ in range(3):
            url = f"{server.url}/private.git"
            fetch(url, "main", into(tmp_path), login=TokenLogin(url, TOKEN))
    finally:
        over.set()
        watcher.join()
    assert set(seen) == {"git"}


def test_another_server_never_gets_it(server: GitServer, tmp_path: Path) -> None:
    with GitServer(tmp_path / "served", "another-token") as other:
        server.redirect = other.url
        url = f"{server.url}/private.git"
        with pytest.raises(GitFailed):
            fetch(url, "main", into(tmp_path), login=TokenLogin(url, TOKEN))
        assert other.asked
        assert not any(given for _, given in other.asked)


@pytest.mark.parametrize("token", ["", "a-wrong-token-000000"])
def test_a_login_that_is_refused_is_one_line_without_a_token(server: GitServer, tmp_path: Path, token: str) -> None:
    url = f"{server.url}/private.git"
    with pytest.raises(GitFailed) as caught:
        fetch(url, "main", into(tmp_path), login=TokenLogin(url, token))
    assert caught.value.code == "clone_failed"
    assert "\n" not in caught.value.message
    assert not token or token not in caught.value.message
    assert "terminal prompts disabled" in caught.value.message or "Authentication failed" in caught.value.message


def test_what_git_says_is_told_without_the_token() -> None:
    login = TokenLogin("https://example.org/x.git", TOKEN)
    said = f"fatal: unable to access 'https://me:{TOKEN}@example.org/x.git/': {TOKEN}"
    assert TOKEN not in login.hidden(said)
    assert TOKEN not in repr(login)


@pytest.mark.parametrize(
    "url",
    [
        "git@example.org:me/x.git",
        "ssh://git@example.org/x.git",
        "git://example.org/x.git",
        "http://example.org/x.git",
        "file:///etc",
        "ext::sh -c id",
        "/etc",
        "--upload-pack=id",
        "",
    ],
)
def test_a_token_is_sent_by_https_only(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_url(url)
    assert caught.value.code == "invalid_repository"


def test_objects_that_are_not_sound_are_refused(server: GitServer, tmp_path: Path) -> None:
    """A tree with an entry called .git: git checks objects on the way in."""
    work = tmp_path / "served" / "work"
    blob = git("rev-parse", "HEAD:f", cwd=work).strip()
    row = b"100644 .git\0" + bytes.fromhex(blob)
    words = ["git", "hash-object", "-t", "tree", "--literally", "-w", "--stdin"]
    made = subprocess.run(words, cwd=work, input=row, capture_output=True, check=True)
    tree = made.stdout.decode().strip()
    commit = git("commit-tree", tree, "-m", "bad", cwd=work).strip()
    git("push", "--quiet", str(tmp_path / "served" / "private.git"), f"{commit}:refs/heads/bad", cwd=work)
    url = f"{server.url}/private.git"
    with pytest.raises(FarmhandError, match="hasDotgit"):
        fetch(url, "bad", into(tmp_path), login=TokenLogin(url, TOKEN))


def test_the_operator_s_own_settings_have_no_part_in_it(
    server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[url "file://{tmp_path}/served/"]\n\tinsteadOf = {server.url}/\n')
    monkeypatch.setenv("HOME", str(home))
    url = f"{server.url}/private.git"
    fetch(url, "main", into(tmp_path), login=TokenLogin(url, TOKEN))
    assert server.asked
    assert os.environ["HOME"] == str(home)
    assert repository.git(["version"])
