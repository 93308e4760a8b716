"""What `farmhand code` and `farmhand run` refuse of the credentials' options, before anything is asked or started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
