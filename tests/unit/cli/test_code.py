"""What `farmhand code` and `farmhand run` refuse of the credentials' options, before anything is asked or started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from farmhand.cli import code
from farmhand.core.settings import Settings

URL = "https://example.org/x.git"
CODE = ("code", URL, "do it", "--place", "fargate")


def farmhand(home: Path, *arguments: str) -> tuple[int, str, str]:
    # No AWS is there: whatever asks for it ends with another status.
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    words = [sys.executable, "-c", "from farmhand.cli import main; main()", *arguments]
    done = subprocess.run(words, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([*CODE, "--subscription"], 5, "allow_subscription_cloud is not set"),
        (["code", URL, "x", "--trust", "--subscription"], 2, "--subscription is for --place fargate"),
        (["code", URL, "x", "--trust", "--credential-source", "federation"], 2, "--credential-source is for"),
        (["code", URL, "x", "--trust", "--clone-in-task"], 2, "--clone-in-task is for --place fargate"),
        ([*CODE, "--clone-in-task", "--push", "b"], 2, "--push needs the clone on this machine"),
        (["code", "git@example.org:x", "x", "--place", "fargate", "--clone-in-task"], 2, "cannot be cloned in a task"),
        (["code", "/", "x", "--place", "fargate", "--clone-in-task"], 2, "cannot be cloned in a task"),
        ([*CODE, "--credential-source", "image:mine"], 2, "has none of the forms"),
        ([*CODE, "--credential-source", "mine"], 2, "has none of the forms"),
        (["run", "--subscription", "x"], 2, "--subscription is for --place fargate"),
        (["run", "--place", "docker", "--subscription", "x"], 2, "elsewhere: --fallback subscription"),
        (["run", "--place", "fargate", "--subscription", "x"], 5, "allow_subscription_cloud is not set"),
        (["run", "--place", "fargate", "--subscription", "--engine", "api", "x"], 5, "never the engine api"),
    ],
)
def test_it_is_refused_in_one_line(tmp_path: Path, arguments: list[str], status: int, said: str) -> None:
    found, out, err = farmhand(tmp_path, *arguments)
    assert (found, out, err.count("\n")) == (status, "", 1), err
    assert said in err


def test_a_directory_whose_name_is_not_unicode_can_be_named(tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    os.mkdir(odd)
    found, _, err = farmhand(tmp_path, "code", odd, "x", "--trust")
    assert found == 3, err
    assert "repos.env cannot be read" in err


@pytest.mark.parametrize(
    ("where", "trusted"),
    [
        ("https://example.org/me/x", True),
        ("https://example.org/me/../other/x", False),
        ("https://example.org/me/%2E%2e/other/x", False),
        ("https://example.org/other/x", False),
        ("git@example.org:me/x", True),
        ("git@example.org:me/../other/x", False),
        ("{home}/src/x", True),
        (".", True),
        ("{home}/src/../other", False),
    ],
)
def test_a_pattern_trusts_what_git_will_ask_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, trusted: bool
) -> None:
    for name in ("src/x", "other"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "src/x")
    conf = Settings(trusted_repos=f"https://example.org/me/*, git@example.org:me/*, {tmp_path}/src/*")
    chosen = code._choose(conf, where.format(home=tmp_path), "auto", trust=False)
    assert chosen == ("docker" if trusted else "fargate")
