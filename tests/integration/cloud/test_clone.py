"""A repository that the container fetches itself: what it fetches, what it judges, what it says when it cannot."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from farmhand.cloud.clone import TaskClone
from farmhand.code.repository import GitFailed
from farmhand.core import shard, task_access
from farmhand.core.errors import FarmhandError
from farmhand.core.shard import SingleOrder
from farmhand.core.task_access import CloneOrder
from tests.support.git_server import GitServer
from tests.support.messages_api import MessagesApi
from tests.support.repositories import git, make_repository
from tests.support.shards import BUCKET, ENVIRONMENT, Site
from tests.unit.code.test_login import TOKEN


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    make_repository(tmp_path / "served" / "work")
    with GitServer(tmp_path / "served", TOKEN) as running:
        yield running


def patch_of(work: Path, name: str, text: str) -> bytes:
    (work / name).parent.mkdir(parents=True, exist_ok=True)
    (work / name).write_text(text)
    git("add", ".", cwd=work)
    made = git("diff", "--cached", "--binary", "HEAD", cwd=work) + "\n"
    git("reset", "--quiet", "--hard", cwd=work)
    return made.encode()


def test_the_container_judges_what_was_changed(server: GitServer, tmp_path: Path) -> None:
    work, into = tmp_path / "served" / "work", tmp_path / "into"
    into.mkdir()
    clone = TaskClone(CloneOrder(url=f"{server.url}/work/.git"), TOKEN)
    about = clone.fetch(into)
    assert about["commit"] == git("rev-parse", "HEAD", cwd=work)
    found = clone.judged(patch_of(work, "f", "two\n"))
    assert found["patch"]["files"] == 1
    assert (found["commit"], "refused" in found) == (about["commit"], False)
    refused = clone.judged(patch_of(work, ".github/workflows/a.yml", "x\n"))
    assert (refused["patch"], refused["refused"]["code"]) == (None, "patch_acted_on")
    assert clone.judged(b"")["patch"] is None
    assert clone.judged(b"nonsense\n")["refused"]["code"] == "patch_broken"
    allowed = TaskClone(CloneOrder(url=f"{server.url}/work/.git", allow_ci=True), TOKEN)
    (tmp_path / "again").mkdir()
    allowed.fetch(tmp_path / "again")
    assert allowed.judged(patch_of(work, ".github/workflows/a.yml", "x\n"))["patch"]["files"] == 1


@pytest.mark.parametrize(
    ("about", "token", "code"),
    [
        ({}, "", "clone_failed"),
        ({}, "a-wrong-token-0000", "clone_failed"),
        ({"ref": "nowhere"}, TOKEN, "no_such_ref"),
        ({"ref": "--upload-pack=id"}, TOKEN, "invalid_ref"),
        ({"url": "ssh://git@example.org/x.git"}, TOKEN, "invalid_repository"),
        ({"url": "file:///etc"}, TOKEN, "invalid_repository"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(
    server: GitServer, tmp_path: Path, about: dict[str, Any], token: str, code: str
) -> None:
    order = CloneOrder(**{"url": f"{server.url}/work/.git", **about})
    with pytest.raises(FarmhandError) as caught:
        TaskClone(order, token).fetch(tmp_path)
    assert caught.value.code == code
    assert "\n" not in caught.value.message
    assert not token or token not in str(caught.value)
    if not token:
        assert "credential put --kind git" in caught.value.hint
        assert isinstance(caught.value, GitFailed)


async def test_a_clone_that_is_refused_is_the_task_s_result(site: Site, api: MessagesApi, server: GitServer) -> None:
    task = {"id": site.batch, "prompt": "x", "tools": ["Bash"], "repo": {"commit": "0" * 40}}
    order = SingleOrder(
        environment=ENVIRONMENT, task=task, farmhand="0", clone=CloneOrder(url=f"{server.url}/work/.git")
    )
    site.put(site.keys.single, msgspec.json.encode(order))
    wrong = "ghp_test_canary_that_is_refused_0000"
    container = await site.start(order=site.keys.single, environ={task_access.GIT_LOGIN: wrong})
    with socket.socket(socket.AF_UNIX) as launcher:
        launcher.bind(str(container.root / "run/sandbox/task.sock"))
        launcher.listen()
        assert await container.ended() == shard.EXIT_DONE, container.log
    found = site.s3.get_object(Bucket=BUCKET, Key=site.keys.output("result.json"))["Body"].read()
    result = json.loads(found)["result"]
    assert (result["state"], result["error"]["code"]) == ("failed", "clone_failed")
    assert "Authentication failed" in result["error"]["message"]
    assert wrong not in container.log
    assert wrong.encode() not in site.everything()
    assert not api.posts
