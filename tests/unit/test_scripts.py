"""The shell scripts that make a machine ready, each in a checkout of its own with few programs on its PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect  # type: ignore[import-untyped]  # it has no stubs
import pytest

from tests.support.plan import alive

SCRIPTS = Path(__file__).parents[2] / "scripts"
#: What a bare machine has; no apt-get, so that nothing is installed here.
PROGRAMS = [
    "bash",
    "cat",
    "dirname",
    "echo",
    "env",
    "flock",
    "grep",
    "id",
    "kill",
    "make",
    "mkdir",
    "rm",
    "sed",
    "seq",
    "sh",
    "sleep",
    "tail",
    "tee",
    "touch",
    "tr",
]


class Checkout:
    """A directory with the scripts; `run` calls one of them with nothing but `bin` on its PATH."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.home = root / "home"
        shutil.copytree(SCRIPTS, root / "scripts")
        for directory in (self.bin, self.home, root / ".cache"):
            directory.mkdir()
        for name in PROGRAMS:
            found = shutil.which(name)
            assert found is not None, name
            (self.bin / name).symlink_to(found)

    def program(self, name: str, text: str) -> None:
        """Put a shell program on the PATH."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o755)

    def run(self, name: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run scripts/NAME to its end."""
        environment = {"PATH": str(self.bin), "HOME": str(self.home), **env}
        argv = [str(self.root / "scripts" / name), *arguments]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_demo_s_first_line_says_that_the_api_is_a_loopback_one(checkout: Checkout) -> None:
    done = checkout.run("demo")
    assert done.stdout.splitlines()[0].startswith("No key is configured")
    assert "loopback Messages API" in done.stdout


@pytest.mark.parametrize("line", ["ANTHROPIC_API_KEY=sk-ant-test-x", "  export ANTHROPIC_API_KEY='sk-ant-test-x'"])
def test_the_demo_s_first_line_says_that_the_key_of_repos_env_is_billed(checkout: Checkout, line: str) -> None:
    (checkout.home / "repos.env").write_text(f"OTHER=1\n{line}\n", encoding="utf-8")
    done = checkout.run("demo")
    assert done.stdout.splitlines() == [
        "The key comes from file:~/repos.env: this demo's one task goes to the provider's API and is billed to it."
    ]
    assert "sk-ant" not in done.stdout + done.stderr


def test_a_key_source_in_the_environment_counts_as_well(checkout: Checkout) -> None:
    done = checkout.run("demo", FARMHAND_KEY_SOURCE="command:pass show key")
    assert done.stdout.startswith("The key comes from command:pass show key:")


def test_what_is_missing_is_said_at_once_and_in_one_line(checkout: Checkout) -> None:
    done = checkout.run("demo")
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith("tools: missing: git ssh ssh-keygen npm mmdebstrap docker. Install it")
    assert "apt-get install git openssh-client npm mmdebstrap docker.io" in line


def test_no_engine_and_no_way_to_install_one(checkout: Checkout) -> None:
    checkout.program("docker", "exit 1")
    done = checkout.run("engine", "start")
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert "no Docker engine answers: install Docker Engine" in done.stderr


def test_an_engine_elsewhere_that_does_not_answer(checkout: Checkout) -> None:
    checkout.program("docker", "exit 1")
    done = checkout.run("engine", "start", DOCKER_HOST="tcp://127.0.0.1:9")
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert "DOCKER_HOST=tcp://127.0.0.1:9" in done.stderr


def test_an_engine_that_this_user_may_not_use(checkout: Checkout) -> None:
    checkout.program("docker", "echo 'permission denied while trying to connect' >&2; exit 1")
    done = checkout.run("engine", "start")
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert "usermod -aG docker" in done.stderr


def test_an_engine_that_runs_is_used_and_not_stopped(checkout: Checkout) -> None:
    checkout.program("docker", "exit 0")
    assert checkout.run("engine", "start").returncode == 0
    done = checkout.run("engine", "stop")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pid_that_is_another_s_by_now_is_left_alone(checkout: Checkout) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (checkout.root / ".cache" / "dockerd.pid").write_text(f"{stranger.pid}\n", encoding="ascii")
        assert checkout.run("engine", "stop").returncode == 0
        assert stranger.poll() is None
        stranger.terminate()
    assert not (checkout.root / ".cache" / "dockerd.pid").exists()


def _start_engine(checkout: Checkout) -> int:
    """Something that looks like the dockerd that `engine start` began; its pid."""
    pidfile = checkout.root / ".cache" / "dockerd.pid"
    engine = subprocess.Popen(["bash", "-c", "sleep 60; :", "dockerd", "--pidfile", str(pidfile)])
    pidfile.write_text(f"{engine.pid}\n", encoding="ascii")
    return engine.pid


def test_our_engine_is_stopped_unless_containers_run_in_it(checkout: Checkout) -> None:
    pid = _start_engine(checkout)
    checkout.program("docker", "echo 0123456789ab")
    kept = checkout.run("engine", "stop")
    assert (kept.returncode, kept.stderr) == (0, "Leaving the Docker engine on: other containers run in it\n")
    checkout.program("docker", "exit 0")
    assert checkout.run("engine", "stop").returncode == 0
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -15


def test_too_old_a_python_is_named(checkout: Checkout) -> None:
    checkout.program("python3", "exit 1")
    done = checkout.run("venv")
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert "Python 3.11 or newer" in done.stderr


def test_stages_stop_at_the_first_that_fails(checkout: Checkout) -> None:
    makefile = "one:\n\t@echo one\ntwo:\n\t@exit 7\nthree:\n\t@echo three\n"
    (checkout.root / "Makefile").write_text(makefile, encoding="utf-8")
    done = checkout.run("stages", "one", "two", "three")
    assert (done.returncode, done.stdout) == (1, "one\n")
    assert "==> two FAILED" in done.stderr
    passed = checkout.run("stages", "one", "three")
    assert (passed.returncode, passed.stdout) == (0, "one\nthree\n")
    assert "==> all passed: one 0 s, three 0 s" in passed.stderr


def test_rows_of_stages_run_at_once_and_a_failure_is_shown_last(checkout: Checkout) -> None:
    # One and two wait for each other.
    makefile = (
        "one:\n\t@touch 1; until test -e 2; do sleep 0.05; done; echo one says\n"
        "two:\n\t@touch 2; until test -e 1; do sleep 0.05; done; echo two says >&2; exit $(STATUS)\n"
        "three:\n\t@echo three says\n"
        "four:\n\t@echo four says\n"
    )
    (checkout.root / "Makefile").write_text(makefile, encoding="utf-8")
    passed = checkout.run("stages", "one three + two", "four", STATUS="0")
    assert passed.returncode == 0
    shown = [line for line in passed.stdout.splitlines() if line.endswith(" says")]
    assert sorted(shown[:3]) == ["one says", "three says", "two says"]
    assert shown[3:] == ["four says"]
    assert "==> all passed: one three + two " in passed.stderr
    failed = checkout.run("stages", "one + two", "four", STATUS="7")
    assert failed.returncode == 1
    shown = failed.stdout.splitlines()
    assert (shown[0], shown[2]) == ("one says", "two says")
    assert shown[-1].startswith("==> two FAILED after ")
    assert "four says" not in shown


def test_a_row_of_stages_that_is_killed_has_not_passed(checkout: Checkout) -> None:
    # The row is the parent of its make.
    makefile = "one:\n\t@echo one says\ntwo:\n\t@kill -KILL $$(sed -n 's/^PPid:.//p' /proc/$$PPID/status)\n"
    (checkout.root / "Makefile").write_text(makefile, encoding="utf-8")
    done = checkout.run("stages", "one + two", "one")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == "one says"
    assert "==> FAILED: a row of stages was killed" in done.stderr
    assert "all passed" not in done.stderr


def test_rows_that_hang_are_ended_and_say_how_far_they_got(checkout: Checkout) -> None:
    makefile = "one:\n\t@echo one says\ntwo:\n\t@echo two says; sleep 600 & echo $$! >pid; wait\n"
    (checkout.root / "Makefile").write_text(makefile, encoding="utf-8")
    done = checkout.run("stages", "one + two", "one", STAGES_LIMIT_S="2", STAGES_END_S="1")
    assert done.returncode == 130
    assert [line for line in done.stdout.splitlines() if line.endswith(" says")] == ["one says", "two says"]
    assert "==> two was under way; it said last:" in done.stderr
    assert not alive(int((checkout.root / "pid").read_text(encoding="ascii")))


#: Passes from its second run on.
UNSTEADY = """
from pathlib import Path


def test_{0}():
    seen = Path("{0}.seen")
    fresh = not seen.exists()
    seen.touch()
    assert not fresh
"""
#: What ends beside it, so that nothing passes however often it runs.
WORSE = {
    "broken": "def test_broken():\n    assert 0\n",
    "three": UNSTEADY.format("b") + UNSTEADY.format("c"),
    "crash": "def test_crash():\n    import os\n    os._exit(3)\n",
}


@pytest.mark.parametrize("more", ["", *WORSE])
def test_two_tests_that_fail_run_again_alone_and_what_fails_then_has_failed(checkout: Checkout, more: str) -> None:
    tests = checkout.root / "tests"
    tests.mkdir()
    (checkout.root / "pytest.ini").touch()
    (tests / "test_first.py").write_text(UNSTEADY.format("a"), encoding="utf-8")
    (tests / "test_second.py").write_text(WORSE.get(more, "def test_fine():\n    pass\n"), encoding="utf-8")
    pytest_ = f"{sys.executable} -m pytest -p xdist --numprocesses 1 --max-worker-restart 0 tests"
    (checkout.root / "Makefile").write_text(f"one:\n\tscripts/again_alone one {pytest_}\n", encoding="utf-8")
    done = checkout.run("stages", "one", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    shown = done.stdout + done.stderr
    assert "test_a" in shown
    passed_alone = "==> failed beside others, and passed alone: tests/test_first.py::test_a"
    assert (done.returncode, passed_alone in shown) == ((1, False) if more else (0, True)), shown
    assert ("==> again, alone: " in shown) == (more in ("", "broken")), shown


def test_what_takes_long_shows_on_a_terminal_what_its_log_says_and_since_when(checkout: Checkout) -> None:
    log = checkout.root / "log"
    slow = """bash -c 'echo "Get:1 systemd"; read -r _ <go; exit 5'"""
    lines = f"cd {checkout.root}; . scripts/common.sh; logged {log} {slow}"
    os.mkfifo(checkout.root / "go")
    shell = pexpect.spawn("bash", ["-c", lines + ' || echo "ended with $?"'], timeout=120, encoding="utf-8")
    assert shell.expect([r"\d+ s  Get:1 systemd", pexpect.EOF]) == 0
    (checkout.root / "go").write_text("\n", encoding="ascii")
    assert shell.expect(["ended with 5", pexpect.EOF]) == 0
    shell.close()
    assert log.read_text(encoding="ascii") == "Get:1 systemd\n"
    quiet = f". scripts/common.sh; logged {log} echo more"
    assert subprocess.check_output(["bash", "-c", quiet], cwd=checkout.root, stderr=subprocess.STDOUT) == b""
    assert log.read_text(encoding="ascii").endswith("more\n")


def test_a_check_runs_again_when_a_file_has_changed_or_it_has_not_passed(checkout: Checkout) -> None:
    path, calls = os.environ["PATH"], checkout.root / ".cache" / "calls"
    checkout.program("check", f"echo called >> {calls}; exit $(cat result)")
    (checkout.root / "result").write_text("1")
    (checkout.root / ".gitignore").write_text(".cache/\nhome/\n")

    def check() -> tuple[int, int]:
        """How it ended, and how often it was called until then."""
        done = checkout.run("unchanged", "a", str(checkout.bin / "check"), PATH=path)
        return done.returncode, calls.read_text().count("called")

    (checkout.root / "result").write_text("0")
    assert [check(), check()] == [(0, 1), (0, 2)], "without git it always runs"
    subprocess.run(["git", "init", "--quiet", checkout.root], check=True)
    (checkout.root / "result").write_text("1")
    assert [check(), check()] == [(1, 3), (1, 4)], "what failed runs again"
    (checkout.root / "result").write_text("0")
    assert [check(), check()] == [(0, 5), (0, 5)]
    (checkout.root / "new.yml").write_text("")
    assert [check(), check()] == [(0, 6), (0, 6)]
    (checkout.root / "new.yml").write_text("a: 1")
    assert check() == (0, 7)
    (checkout.root / "new.yml").unlink()
    assert [check(), check()] == [(0, 8), (0, 8)]
