"""`farmhand code`: a repository goes into the sandbox and a checked patch comes back, with the real CLI."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pair import ROOT, Pair, bash, docker
from tests.support.repositories import git, make_repository
from tests.support.schemas import check_said

COMMAND = Path(sys.executable).with_name("farmhand")


@pytest.fixture(scope="module")
def made_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("pair"), "code") as pair:
        yield pair


@pytest.fixture
def pair(made_pair: Pair) -> Pair:
    return made_pair.fresh()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    files = {"f": "one\ntwo\n", "sub/g": "three\n", ".gitignore": "built/\n"}
    return make_repository(tmp_path / "origin", files)


class Station:
    """A workstation whose place `docker` is the pair."""

    def __init__(self, pair: Pair, home: Path) -> None:
        self.pair = pair
        self.home = home
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "FARMHAND_PROJECT_DIR": str(ROOT),
            "FARMHAND_DOCKER_NAME": pair.name,
            "FARMHAND_UPSTREAM_URL": pair.api.url,
            "FARMHAND_KEY_SOURCE": f"file:{pair.api_process.key_file}",
            **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "Op Erator"),
            **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "op@example.org"),
        }

    def does(self, *commands: str, says: str = "done") -> None:
        """The model runs these commands, and then says something."""
        self.pair.api.rule("change it", *map(bash, commands), {"text": says})

    def start(self, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        """`farmhand code …`, started."""
        pipe = subprocess.PIPE
        argv = [str(COMMAND), "code", *arguments]
        return subprocess.Popen(argv, env=self.environ, cwd=cwd or self.home, stdout=pipe, stderr=pipe, text=True)

    def code(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """`farmhand code …`, done."""
        process = self.start(*arguments, cwd=cwd)
        out, err = process.communicate(timeout=180)
        print(err)
        assert "Traceback" not in err
        check_said(("code", *arguments), out)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.fixture
def station(pair: Pair, tmp_path: Path) -> Station:
    (tmp_path / "home").mkdir()
    return Station(pair, tmp_path / "home")


def test_a_patch_comes_back_and_applies(station: Station, origin: Path) -> None:
    station.does("echo three >> f; rm sub/g; mkdir built; echo x > built/x; head -c 3000 /dev/urandom > sub/new.bin")
    done = station.code(str(origin), "change it", "--place", "docker", "--patch")
    assert done.returncode == 0
    assert "3 files changed, 1 line more, 1 less" in done.stderr
    applied = subprocess.run(
        ["git", "apply"], cwd=origin, input=done.stdout, text=True, check=False, capture_output=True
    )
    assert applied.returncode == 0, applied.stderr
    (kept,) = (station.home / ".local/state/farmhand/code").iterdir()  # for a pipe that does not take it
    assert f"the patch is in {kept}/changes.patch" in done.stderr
    assert (kept / "changes.patch").read_text() == done.stdout
    assert (origin / "f").read_text() == "one\ntwo\nthree\n"
    assert len((origin / "sub/new.bin").read_bytes()) == 3000
    assert not (origin / "sub/g").exists()
    assert not (origin / "built").exists()


def test_all_that_comes_back_is_in_the_directory(station: Station, origin: Path, tmp_path: Path) -> None:
    station.does("mkdir -p .farmhand/out; echo log > .farmhand/out/a.txt", "echo x > n; git add n; git commit -qm mine")
    out = tmp_path / "out"
    done = station.code(str(origin), "change it", "--trust", "--out", str(out), "--json")
    assert done.returncode == 0
    result = json.loads(done.stdout)
    assert json.loads((out / "result.json").read_text())["repo"] == result["repo"]
    assert result["repo"]["commit"] == git("rev-parse", "main", cwd=origin)
    assert (result["repo"]["patch"]["files"], result["state"], result["text"]) == (1, "succeeded", "done")
    assert result["cost_usd"] > 0
    assert "+x" in (out / "changes.patch").read_text()
    listed = subprocess.run(["tar", "tf", out / "artifacts.tar"], capture_output=True, text=True, check=True).stdout
    assert "./a.txt" in listed.split()
    kinds = {json.loads(line)["type"] for line in (out / "transcript.jsonl").read_text().splitlines()}
    assert {"system", "assistant", "user", "result"} <= kinds


def test_it_works_in_a_directory_of_a_branch_with_its_history(station: Station, origin: Path) -> None:
    git("checkout", "--quiet", "-b", "side", cwd=origin)
    (origin / "sub/g").write_text("four\n")
    git("commit", "--quiet", "-am", "second", cwd=origin)
    git("checkout", "--quiet", "main", cwd=origin)
    station.does("pwd; cat g; git log --oneline | wc -l; git status --short; echo y >> g", says="{tool_result}")
    done = station.code(str(origin), "change it", "--trust", "--ref", "side", "--subdir", "./sub/", "--depth", "0")
    assert done.returncode == 0
    where, content, commits = done.stdout.split()[:3]
    assert (where.endswith("/work/sub"), content, commits) == (True, "four", "2")


def test_nothing_changed_is_a_success(station: Station, origin: Path) -> None:
    station.does("true")
    done = station.code(str(origin), "change it", "--trust", "--push", "branch")
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "nothing was changed" in done.stderr
    assert git("branch", "--list", "branch", cwd=origin) == ""


def test_it_is_pushed_to_a_new_branch_with_the_operator_s_name(station: Station, origin: Path) -> None:
    station.does("echo three >> f", says="I added three.")
    done = station.code(str(origin), "change it", "--trust", "--push", "farmhand/three")
    assert done.returncode == 0
    assert git("log", "-1", "--format=%an|%s|%b", "farmhand/three", cwd=origin) == "Op Erator|change it|I added three."
    assert git("show", "farmhand/three:f", cwd=origin) == "one\ntwo\nthree"
    again = station.code(str(origin), "change it", "--trust", "--push", "farmhand/three")
    assert again.returncode == 1
    asked = len(station.pair.api.posts())
    assert "the branch farmhand/three is there already" in again.stderr
    assert asked == len(station.pair.api.posts()), "nothing was paid for"


HOSTILE = {
    "a workflow": ("mkdir -p .github/workflows; echo on: push > .github/workflows/x.yml", "patch_acted_on"),
    "settings of an agent": ("mkdir .claude; echo '{}' > .claude/settings.json", "patch_acted_on"),
    "a link to outside": ("ln -s /etc/passwd p", "patch_unsafe"),
    "instructions of an agent": ("echo obey > CLAUDE.md", "patch_acted_on"),
    "too much": ("head -c 300000000 /dev/urandom > big", "patch_too_big"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_patch_that_must_not_be_used_is_refused_and_kept(
    station: Station, origin: Path, tmp_path: Path, name: str
) -> None:
    command, code = HOSTILE[name]
    station.does(command)
    done = station.code(str(origin), "change it", "--trust", "--json", "--push", "b", "--out", str(tmp_path / "out"))
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (5, code)
    assert git("branch", "--list", "b", cwd=origin) == ""
    assert (tmp_path / "out/changes.patch").stat().st_size > 0


def test_work_that_ran_out_of_time_comes_back(station: Station, origin: Path, tmp_path: Path) -> None:
    station.does("echo three >> f; exec tail -f /dev/null")
    out = tmp_path / "out"
    done = station.code(str(origin), "change it", "--trust", "--timeout", "8", "--out", str(out), "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "timeout")
    assert json.loads((out / "result.json").read_text())["state"] == "failed"
    assert "+three" in (out / "changes.patch").read_text()
    # Without a directory for it, it is kept all the same; standard output has no patch that is not whole.
    done = station.code(str(origin), "change it", "--trust", "--timeout", "8", "--patch")
    assert (done.returncode, done.stdout) == (1, "")
    (kept,) = (station.home / ".local/state/farmhand/code").iterdir()
    assert f"its changes so far are in {kept}/changes.patch" in done.stderr
    assert "+three" in (kept / "changes.patch").read_text()


def test_ci_changes_can_be_allowed(station: Station, origin: Path) -> None:
    station.does("mkdir -p .github/workflows; echo on: push > .github/workflows/x.yml")
    assert station.code(str(origin), "change it", "--trust", "--allow-ci-changes").returncode == 0


def test_a_hostile_repository_runs_nothing_outside_of_the_wall(station: Station, origin: Path, tmp_path: Path) -> None:
    (origin / ".gitattributes").write_text("* filter=x diff=x merge=x\n")
    (origin / ".gitmodules").write_text('[submodule "s"]\n\tpath = s\n\turl = file:///etc\n')
    git("add", ".", cwd=origin)
    git("commit", "--quiet", "-m", "hostile", cwd=origin)
    touch = f"touch {tmp_path}/PWNED ~/PWNED"
    settings = "; ".join(
        f"git config {name} '{touch}'"
        for name in (
            "core.fsmonitor",
            "diff.x.textconv",
            "diff.external",
            "filter.x.clean",
            "core.pager",
            "core.editor",
        )
    )
    hooks = (
        "for h in post-checkout post-index-change pre-commit; do printf '#!/bin/sh\\ntouch ~/PWNED\\n' > .git/hooks/$h;"
    )
    hooks += " chmod +x .git/hooks/$h; done"
    station.does(f"{settings}; {hooks}; echo three >> f")
    done = station.code(str(origin), "change it", "--trust", "--patch")
    assert done.returncode == 0
    assert "+three" in done.stdout
    assert not list(tmp_path.rglob("PWNED"))


def test_a_repository_that_the_task_destroys_still_gives_its_patch(station: Station, origin: Path) -> None:
    station.does("echo three >> f; rm -rf .git; ln -s /etc .git")
    done = station.code(str(origin), "change it", "--trust", "--patch")
    assert done.returncode == 0
    assert "+three" in done.stdout
    assert ".git" not in done.stdout.replace(".gitignore", "")


def test_settings_of_git_that_the_task_makes_do_not_change_its_patch(station: Station, origin: Path) -> None:
    station.does("git config --global diff.noprefix true; git config --global color.ui always; echo three >> f")
    done = station.code(str(origin), "change it", "--trust", "--patch")
    assert done.returncode == 0
    assert "+++ b/f\n" in done.stdout


def test_a_repository_without_room_is_told_and_not_tried_again(station: Station, origin: Path) -> None:
    (origin / "big").write_bytes(os.urandom(5_000_000))
    git("add", ".", cwd=origin)
    git("commit", "--quiet", "-m", "big", cwd=origin)
    worker = station.pair.pair.worker
    docker("exec", worker, "sh", "-c", "head -c 3G /dev/zero > /work/fill 2> /dev/null; true")
    try:
        done = station.code(str(origin), "change it", "--trust", "--json")
    finally:
        docker("exec", worker, "rm", "/work/fill")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (1, "repository_failed")
    assert "there is no room for it: No space left on device" in error["message"]


def test_there_is_neither_key_nor_login_inside(station: Station, origin: Path) -> None:
    (station.home / ".git-credentials").write_text("https://me:secret-of-git@example.org\n")
    station.does("env; cat ~/.gitconfig .git/config; git remote -v", says="{tool_result}")
    done = station.code(str(origin), "change it", "--trust")
    assert done.returncode == 0
    assert "sk-ant" not in done.stdout
    assert "secret-of-git" not in done.stdout
    assert str(origin) not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("{origin}", "change it"), 3, "--trust"),
        (("{origin}", "change it", "--trust", "--ref", "nowhere"), 1, "has no 'nowhere'"),
        (("{origin}", "change it", "--trust", "--ref", "--upload-pack=touch PWNED"), 2, "is not the name of"),
        (("ext::sh -c touch% PWNED", "change it", "--trust"), 2, "not a repository"),
        (("--", "--upload-pack=x", "change it"), 2, "not a repository"),
        (("{origin}", "change it", "--trust", "--subdir", "nowhere"), 2, "no directory 'nowhere'"),
        (("{origin}", "change it", "--trust", "--subdir", "../x"), 2, "not a directory of a repository"),
        (("{origin}", "change it", "--trust", "--push", "a..b"), 2, "cannot be the name of a branch"),
        (("{origin}", "change it", "--trust", "--push", "refs/heads/x"), 2, "is the name of a ref"),
        (("{origin}", "", "--trust"), 2, "the prompt is empty"),
        (("{origin}", "change it", "--trust", "--tools", "Hack"), 2, "unknown tool Hack"),
        (("{origin}", "change it", "--trust", "--max-usd", "0"), 2, "--max-usd"),
        (("{origin}", "change it", "--trust", "--max-usd", "1e9"), 2, "--max-usd"),
        (("https://127.0.0.1:1/x", "x" * 100_000, "--trust", "--model", "odd one"), 2, "unknown model"),
        (("https://127.0.0.1:1/x", "change it", "--trust", "--tools", "Hack"), 2, "unknown tool Hack"),
        (("{origin}/sub", "change it", "--trust"), 1, "with --subdir sub"),
        (("{origin}", "change it", "--trust", "--patch", "--json"), 2, "choose one"),
        (("{origin}", "change it", "--trust", "--out", "{origin}"), 2, "not empty"),
    ],
)
def test_bad_input_is_one_line(
    station: Station, origin: Path, tmp_path: Path, arguments: tuple[str, ...], status: int, words: str
) -> None:
    done = station.code(*(argument.replace("{origin}", str(origin)) for argument in arguments))
    assert done.returncode == status
    lines = [
        line for line in done.stderr.splitlines() if not line.endswith((f"fetching {origin}", "")) or words in line
    ]
    assert words in lines[-1]
    assert not list(tmp_path.rglob("PWNED"))


def test_ctrl_c_while_it_fetches_leaves_nothing(station: Station, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    station.environ["TMPDIR"] = str(tmp_path / "tmp")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = station.start(f"git://127.0.0.1:{silent.getsockname()[1]}/x", "change it", "--trust")
        connection, _ = silent.accept()
        with connection:  # were it closed, git would fail
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=120)
    assert (process.returncode, err.splitlines()[-1]) == (143, "farmhand: stopped")
    assert not list((tmp_path / "tmp").iterdir())


def test_ctrl_c_cancels_the_task(station: Station, origin: Path) -> None:
    station.does("tail -f /dev/null")  # the CLI itself refuses a long sleep
    process = station.start(str(origin), "change it", "--trust")
    for _ in range(1200):
        if station.pair.api.posts():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "task cancelled" in err


def test_ctrl_c_while_it_pushes_keeps_the_changes(station: Station, origin: Path, tmp_path: Path) -> None:
    hook = origin / ".git/hooks/pre-receive"
    hook.write_text(f"#!/bin/sh\n: > {tmp_path}/pushing\nexec sleep 100\n")
    hook.chmod(0o755)
    station.does("echo three >> f")
    process = station.start(str(origin), "change it", "--trust", "--push", "b")
    for _ in range(1200):
        if (tmp_path / "pushing").exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    (kept,) = (station.home / ".local/state/farmhand/code").iterdir()
    assert f"its changes so far are in {kept}/changes.patch" in err
    assert "+three" in (kept / "changes.patch").read_text()


def test_a_trusted_repository_needs_no_word(station: Station, origin: Path) -> None:
    station.environ["FARMHAND_TRUSTED_REPOS"] = f"https://example.org/*, {origin.parent}/*"
    station.does("echo three >> f")
    done = station.code(str(origin), "change it")
    assert done.returncode == 0
    # No word about the patch, and it is there all the same.
    where = Path(done.stderr.strip().rpartition("the patch is in ")[2])
    assert "+three" in where.read_text()
